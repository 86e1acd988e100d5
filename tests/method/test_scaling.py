"""Gradients do not depend on how a step is split: over micro-batches, or over processes."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from helpers.one_step import EXPANDED, ORIGINAL, SETTINGS, STAGES, RaggedCorpus, gradients, load
from helpers.processes import TESTS, run_ranks
from lpr_lab.errors import UsageError
from lpr_lab.method.expand import pack_by_language
from lpr_lab.method.training.terms import Forward, balance_term, group_term
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.router import Routing


@pytest.fixture(scope="module")
def folder(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    """A tiny base and sentences on disk, where other processes find them."""
    path = tmp_path_factory.mktemp("scaling")
    tiny_model("llama").save_pretrained(path / "base")
    tiny_tokenizer.save_pretrained(path / "base")
    (path / "sentences.json").write_text(json.dumps(sentences))
    return path


@pytest.fixture(scope="module")
def two_processes(folder):
    """Two processes have run both stages; their files are in the folder."""
    run_ranks(TESTS / "helpers" / "one_step.py", str(folder), processes=2)
    return folder


def assert_equal_gradients(found, expected):
    assert sorted(found) == sorted(expected)
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert (found[name] - gradient).abs().max() < 1e-5 * gradient.abs().max(), name


def test_the_blocks_of_these_tests_are_ragged(tiny_tokenizer, sentences):
    splits = dict.fromkeys((*ORIGINAL, *EXPANDED), "train")
    blocks = pack_by_language(RaggedCorpus(sentences), tiny_tokenizer, splits, SETTINGS)
    tokens = {language: int((packed.language_id >= 0).sum()) for language, packed in blocks.items()}
    assert all(len(packed) == 1 for packed in blocks.values())
    assert len(set(tokens.values())) == 5, tokens  # and half of the blocks of a review have no original token at all


@pytest.mark.parametrize("blocks_per_forward", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_gradients_do_not_depend_on_gradient_accumulation(stage, blocks_per_forward, folder, tmp_path):
    expected = gradients(stage, folder, tmp_path / "whole", blocks_per_forward=4)
    assert_equal_gradients(gradients(stage, folder, tmp_path / "split", blocks_per_forward), expected)


RELEASED = {
    "expand": {"load_balancing_variant": "released"},
    "one_stage": {"load_balancing_variant": "released", "lpr_variant": "released"},
    "review": {"lpr_variant": "released", "classifier_input": "sequence"},
    "further_review": {"lpr_variant": "released", "group_variant": "released"},
}


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_of_the_released_losses_do_not_depend_on_gradient_accumulation(stage, folder, tmp_path):
    expected = gradients(stage, folder, tmp_path / "whole", blocks_per_forward=4, **RELEASED[stage])
    assert_equal_gradients(gradients(stage, folder, tmp_path / "split", 1, **RELEASED[stage]), expected)
    paper = gradients(stage, folder, tmp_path / "paper", blocks_per_forward=4)
    assert any(not torch.allclose(paper[name], gradient, rtol=1e-3) for name, gradient in expected.items())


def test_the_balance_loss_of_the_papers_runs_has_the_statistics_of_each_micro_batch(tiny_model):
    """`f_i` of each micro-batch by itself, and the mean of their losses, for micro-batches of equally many tokens."""
    model = upcycle(tiny_model("llama"), (3, 4))
    term = balance_term(model, 0.01, "released", scope="micro_batch")
    assert term.describe()["scope"] == "micro_batch" and term.observe is None
    nothing = torch.empty(24, 0)
    parts = [
        {layer: Routing(2 * torch.randn(24, number), nothing, nothing) for layer, number in ((0, 4), (1, 5))}
        for _ in range(3)
    ]
    batch = {"language_id": torch.zeros(4, 6, dtype=torch.int64)}
    losses = []
    for part in parts:
        for routing in part.values():
            probs = routing.router_logits.double().softmax(-1)
            chosen = torch.zeros_like(probs).scatter_(1, probs.topk(2).indices, 1.0)
            losses.append(float(probs.shape[-1] * (chosen.mean(0) * probs.mean(0)).sum()))
    total = sum(float(term.total(Forward(batch, torch.empty(0), part))) for part in parts)
    assert total / (3 * term.count(batch)) == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_gradients_of_the_papers_runs_depend_on_how_a_step_is_split_and_ours_do_not(folder, tmp_path):
    """Which is what the scope `micro_batch` imitates; in one micro-batch both scopes are the same."""
    found = {
        (scope, size): gradients(
            "expand", folder, tmp_path / f"{scope}-{size}", blocks_per_forward=size, load_balancing_scope=scope
        )
        for scope in ("step", "micro_batch")
        for size in (4, 1)
    }
    whole = found["step", 4]
    assert_equal_gradients(found["step", 1], whole)
    assert_equal_gradients(found["micro_batch", 4], whole)
    apart = {
        name: float((found["micro_batch", 1][name] - gradient).abs().max() / gradient.abs().max())
        for name, gradient in whole.items()
    }
    assert max(value for name, value in apart.items() if "router" in name) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_gradients_do_not_depend_on_the_number_of_processes(stage, two_processes, tmp_path):
    expected = gradients(stage, two_processes, tmp_path, blocks_per_forward=4)
    assert_equal_gradients(load_file(two_processes / f"{stage}.safetensors"), expected)


@pytest.mark.slow
def test_a_stage_of_two_processes_resumes_bit_identical_from_the_one_checkpoint_they_share(two_processes):
    whole, cut = load_file(two_processes / "whole.safetensors"), load_file(two_processes / "cut.safetensors")
    assert sorted(whole) == sorted(cut)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    results = [json.loads((two_processes / f"{name}.json").read_text()) for name in ("whole", "cut")]
    assert results[0]["terms"] == results[1]["terms"]


@pytest.mark.slow
def test_a_step_that_processes_cannot_share_equally_is_refused(two_processes):
    assert re.search(r"blocks_per_step = 3 .*2 processes", (two_processes / "refused.txt").read_text())


def test_nothing_is_run_twice_for_layers_that_always_choose_every_expert(tiny_model):
    """The extra pass is paid only where the balance loss has a gradient, and only for the paper's exact form."""
    narrow, wide = upcycle(tiny_model("llama"), (1, 1)), upcycle(tiny_model("llama"), (1, 2))
    assert balance_term(narrow, 0.01).observe is None
    assert balance_term(wide, 0.0).observe is None
    assert balance_term(wide, 0.01, scope="micro_batch").observe is None
    assert balance_term(wide, 0.01).observe is not None


def test_an_unknown_scope_is_refused(tiny_model):
    with pytest.raises(UsageError, match="step, micro_batch"):
        balance_term(upcycle(tiny_model("llama"), (1, 2)), 0.01, scope="batch")


def test_tokens_of_earlier_groups_are_counted_only_where_their_group_has_experts(folder):
    model, _, _ = load(folder, "further_review")
    languages = [*ORIGINAL, *EXPANDED]
    term = group_term(model, languages, 1.0)
    batch = {"language_id": torch.tensor([[0, 1, 2, 2, 3, 4, -1]])}  # el is of group 1, hu of 2, tr of the newest
    assert term.count(batch) == 3
    assert sum(group_term(model, [code], 1.0).count({"language_id": torch.zeros(1, 5)}) for code in ("el", "hu")) == 10
    assert group_term(model, languages, 1.0, "released").count(batch) == 6
    with pytest.raises(UsageError, match=r"en, es, tr .*earlier group"):
        group_term(model, ["en", "es", "tr"], 1.0)
