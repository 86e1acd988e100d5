"""Several processes train to what one does on the same steps, each with the whole model or all with a part of it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from helpers.several_processes import STEPS, results_of, run_jobs, write_results

pytestmark = pytest.mark.slow

CASES = (
    "llama expand",
    "gpt2 expand",
    "gemma3 expand",
    "llama expand bf16",
    "llama review",
    "gemma3 review",
    "gemma3 full",
    "gpt2 full",
    "gpt2 lora",
    "llama lora_moe",
    "gpt2 sparse_moe",
    "llama llama_pro",
)
WAYS = {"2 whole": (2, False), "2 divided": (2, True), "4 divided": (4, True)}
ON_FOUR = ("llama expand", "gemma3 review", "gemma3 full", "gpt2 full", "gpt2 sparse_moe", "llama lora_moe")
"""Cases that four processes do as well: every way to learn, every family, and tied and untied embeddings."""
WHO = [(way, case) for way in WAYS for case in (ON_FOUR if way.startswith("4") else CASES)]
RESUMED = ("llama expand", "gpt2 full")
SESSIONS = {"2 to 1": ("2 divided", None), "2 to 4": ("2 divided", "4 divided"), "1 to 2": (None, "2 divided")}
"""Who begins a stage and who ends it; None for one process."""


def job(case, way, **further):
    return {"case": case, "out": f"{way}/{case}", **further}


@pytest.fixture(scope="module")
def folder(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    """Tiny bases on disk, where other processes find them, and what one process makes of every case."""
    path = tmp_path_factory.mktemp("several")
    for family in {case.split()[0] for case in CASES}:
        model = tiny_model(family)
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):  # of GPT-2, and drawn per rank and micro-batch
            setattr(model.config, name, 0.0)
        model.save_pretrained(path / family)
        tiny_tokenizer.save_pretrained(path / family)
    (path / "sentences.json").write_text(json.dumps(sentences))
    for way in ("1", *WAYS, *SESSIONS):
        (path / way).mkdir()
    for case in CASES:
        write_results(path, job(case, "1"))
    return path


@pytest.fixture(scope="module")
def begun(folder):
    """One process has done the first step of some stages."""
    for case in RESUMED:
        write_results(folder, job(case, "1 to 2", minutes=1e-9))
    return folder


@pytest.fixture(scope="module")
def trained(begun):
    """Others have done every case, and have begun and ended some stages."""
    run_jobs(begun, [job(case, "2 whole") for case in CASES], 2, is_divided=False)
    jobs = [job(case, "2 divided") for case in CASES] + [
        *(job(case, "1 to 2") for case in RESUMED),
        *(job(case, "2 to 1", minutes=1e-9) for case in RESUMED),
        {**job("llama expand", "2 divided", activation_checkpointing=True), "out": "2 divided/checkpointed"},
    ]
    run_jobs(begun, jobs, 2, is_divided=True)
    shutil.copytree(begun / "2 to 1", begun / "2 to 4", dirs_exist_ok=True)
    jobs = [job(case, "4 divided") for case in ON_FOUR] + [job(case, "2 to 4") for case in RESUMED]
    run_jobs(begun, jobs, 4, is_divided=True)
    for case in RESUMED:
        write_results(begun, job(case, "2 to 1"))
    return begun


def assert_same(folder, case, way):
    found, expected = (torch.tensor(results_of(folder, job(case, name))["losses"]) for name in (way, "1"))
    assert len(expected) == STEPS
    torch.testing.assert_close(found, expected[-len(found) :], rtol=2e-5, atol=0)
    # What learns as a whole has numbers of which the gradient is nothing but rounding, and AdamW takes it for one.
    if "expand" in case or "review" in case:
        weights, whole = (load_file(folder / f"{job(case, name)['out']}.safetensors") for name in (way, "1"))
        assert sorted(weights) == sorted(whole)
        for name, expected in whole.items():
            torch.testing.assert_close(weights[name], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("way", "case"), WHO)
def test_losses_and_gradient_norms_are_those_of_one_process(case, way, trained):
    assert_same(trained, case, way)


@pytest.mark.parametrize(("way", "case"), WHO)
def test_each_process_holds_its_part_of_what_learns_where_the_model_is_divided(case, way, trained):
    processes, is_divided = WAYS[way]
    held = results_of(trained, job(case, way))["share_held"]
    assert held == (1 / processes if is_divided else 1)


def test_with_activation_checkpointing_it_is_the_same(trained):
    found = results_of(trained, {"out": "2 divided/checkpointed"})["losses"]
    expected = results_of(trained, job("llama expand", "1"))["losses"]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=2e-5, atol=0)


@pytest.mark.parametrize("case", RESUMED)
@pytest.mark.parametrize("sessions", SESSIONS)
def test_a_stage_goes_on_with_another_number_of_processes(case, sessions, trained):
    assert len(results_of(trained, job(case, sessions))["losses"]) == STEPS - 1
    assert_same(trained, case, sessions)
