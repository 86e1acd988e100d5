"""On a GPU as on a processor: nothing that meets lies in two places.

The GPU is pretended where there is none (`pretend_gpu`), and real under the marker `gpu`.
"""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch

import lpr_lab as lab
from helpers.pretend_gpu import pretend_gpu
from helpers.tiny_corpus import small_settings, write_corpus
from lpr_lab.experiments import pipeline
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.studies import evaluation
from lpr_lab.experiments.studies import routing as routing_analysis
from lpr_lab.experiments.studies import upcycle as upcycling

BUDGET = StageBudget(tokens=2 * 4 * 32, block_tokens=32, blocks_per_step=4, learning_rate=1e-2)


@pytest.fixture(params=["pretended", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request):
    with pretend_gpu() if request.param == "pretended" else nullcontext():
        yield


def test_the_pretence_refuses_what_a_gpu_refuses(gpu):
    there, here = torch.ones(3, 4).to("cuda"), torch.ones(4, 2)
    assert there.device.type == (there * 2).device.type == torch.zeros(1, device="cuda").device.type == "cuda"
    assert there.cpu().device.type == here.device.type == "cpu"
    with pytest.raises(RuntimeError, match="same device"):
        there @ here
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(4)[torch.zeros(1, dtype=torch.long).to("cuda")]
    assert there[torch.zeros(1, dtype=torch.long)].device.type == "cuda"
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


def test_the_pretence_shows_who_reads_memory_that_nothing_was_written_to():
    with pretend_gpu():
        assert torch.empty(3, device="cuda").isnan().all()
        assert torch.empty(3, device="meta").is_meta, "weights wait there for their file: they must not look made"
        assert torch.empty(3, device="meta").device.type == "meta"


@pytest.fixture
def settings(tiny_model, tiny_tokenizer, sentences, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "show", partial(pipeline.show, max_new_tokens=4))  # four steps show what more would
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    write_corpus(tmp_path / "corpus.jsonl", sentences, ("en", "es", "el", "tr"))
    return small_settings(tmp_path, BUDGET)


def on_gpu(model) -> bool:
    return {parameter.device.type for parameter in model.parameters()} == {"cuda"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["route_first", "layer_moe"])
def test_a_run_from_beginning_to_end_and_the_next_group(recipe, gpu, settings, tmp_path):
    more = {"classifiers": 1} if recipe == "layer_moe" else {}
    run = pipeline.run(lab.recipes.named(recipe, **{**settings, "expanded": ("el",)}, **more), root=tmp_path / "runs")
    assert all(claim["holds"] for claim in run.results["claims"] if claim["is_exact"])
    assert on_gpu(lab.load_expansion(run.path))
    if recipe == "route_first":
        following = pipeline.run(lab.recipes.further(run, expanded=("tr",)), root=run.path.parent)
        assert following.status.state == "finished"


@pytest.mark.slow
def test_what_is_asked_of_a_run(gpu, settings, tmp_path):
    shorter = {**settings, "fit_solver": "logistic", "expanded": ("el",), "original": ("en",)}
    run = pipeline.run(lab.recipes.route_first(**shorter), root=tmp_path / "runs")
    for module, asked in (
        (evaluation, evaluation.EvaluationSettings(after=run.id, eval_tokens_per_language=300, bootstrap=50)),
        (routing_analysis, routing_analysis.RoutingSettings(run=run.id, tokens_per_language=300)),
    ):
        asking = module.start(asked, root=run.path.parent)
        module.measure(asking)
        module.finish(asking)
    made = upcycling.make(upcycling.UpcyclingSettings(base=settings["base"]), root=run.path.parent)
    assert made.status.state == "finished"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stage_that_was_cut_goes_on(precision, gpu, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model = lab.upcycle(tiny_model("llama").to("cuda"), (1, 3))
    two_steps = lab.TrainSettings(
        tokens=2 * 4 * 32, block_tokens=32, blocks_per_step=4, blocks_per_forward=2, precision=precision
    )
    where = {"languages": ["el"], "out": tmp_path / "1"}
    for minutes in (1e-9, None):
        done = lab.expand(model, tiny_tokenizer, tiny_corpus, settings=replace(two_steps, max_minutes=minutes), **where)
    assert done["steps"] == 2 and on_gpu(model) and done["precision"] == precision


@pytest.mark.parametrize("baseline", ["full", "lora", "sparse_moe", "lora_moe", "llama_pro"])
def test_the_baselines_of_the_papers(baseline, gpu, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    options = {"sparse_moe": {"allocation": [1, 2]}, "llama_pro": {"num_blocks": 1}}.get(baseline, {})
    model = getattr(lab.baselines, baseline)(tiny_model("llama").to("cuda"), **options)
    one_step = lab.TrainSettings(tokens=4 * 32, block_tokens=32, blocks_per_step=4, precision="bf16")
    lab.baselines.finetune(
        model, tiny_tokenizer, tiny_corpus, original=["en"], expanded=["el"], out=tmp_path / "1", settings=one_step
    )
    assert on_gpu(model)


def test_both_models_generate_and_a_forced_expert_is_seen(gpu, tiny_model, tiny_tokenizer):
    model = lab.upcycle(tiny_model("llama").to("cuda"), (1, 1), router_input="token_and_mean")
    for temperature in (0.0, 1.0):
        steps = list(lab.generate_pair(model, tiny_tokenizer, "The old clock", 4, temperature))
        assert len(steps) == 4
    with lab.steer(model, force=1):
        assert (lab.trace(model, tiny_tokenizer, "The old clock").original_weight == 0).all()
