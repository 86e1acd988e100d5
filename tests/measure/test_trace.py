"""A trace can hold several stages of one model, and two traces of one text can be compared."""

import numpy as np
import pytest
import torch

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.measure import routing
from lpr_lab.measure.routing import trace, trace_changed
from lpr_lab.measure.trace import routing_change
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model import head
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.stages import enter_stage, selected_stage, stage_names
from lpr_lab.runs import formats

TEXT = "A letter came this morning."


@pytest.fixture(scope="module")
def reviewed(tiny_model):
    torch.manual_seed(0)
    model = upcycle(tiny_model("llama", num_layers=3), (1, 0, 3), router_bias=True)
    disturb(model)
    enter_stage(model, "review")
    disturb(model)
    return model


@torch.no_grad()
def disturb(model):
    for layer in moe_layers(model):
        for parameter in [*layer.router.parameters(), *layer.stacks[0].parameters()]:
            parameter.add_(0.4 * torch.randn_like(parameter))


@pytest.fixture(scope="module")
def both(reviewed, tiny_tokenizer):
    return trace(reviewed, tiny_tokenizer, TEXT, "en", stages=stage_names(reviewed))


def same(one, other) -> bool:
    return one is not None and other is not None and np.array_equal(one, other, equal_nan=True)


def test_a_trace_of_several_stages_holds_each_as_if_it_were_traced_alone(reviewed, tiny_tokenizer, both):
    assert both.stage_names == ["G1 expand", "G1 review"]
    for name in both.stage_names:
        alone = trace(reviewed, tiny_tokenizer, TEXT, "en", stages=[name])
        assert np.array_equal(both.at(name).expert_weights, alone.expert_weights), name
        assert same(both.at(name).log_prob, alone.log_prob)
    assert not np.array_equal(both.expert_weights, both.at("G1 expand").expert_weights)
    assert selected_stage(reviewed) == "G1 review"
    with pytest.raises(UsageError, match="'G1 reviews'"):
        both.at("G1 reviews")


def test_a_long_text_is_scored_without_logits_of_all_its_tokens(reviewed, tiny_tokenizer, both, monkeypatch):
    for module in (routing, head):
        monkeypatch.setattr(module, "rows_at_once", lambda *_: 2)
    rows = []
    output = reviewed.get_output_embeddings()
    hook = output.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[-2]))
    try:
        long = trace(reviewed, tiny_tokenizer, TEXT, "en")
    finally:
        hook.remove()
    assert rows.count(2) >= 2 * (both.num_tokens // 2) and both.num_tokens not in rows
    for mine, whole in ((long.log_prob, both.log_prob), (long.base_log_prob, both.base_log_prob)):
        assert mine == pytest.approx(whole, abs=1e-5, nan_ok=True)


def test_router_probabilities_cover_all_experts_of_a_layer_and_rank_the_chosen_first(both):
    assert both.router_probs.shape == (2, both.num_tokens, 4)
    assert both.router_probs.sum(-1) == pytest.approx(np.ones(both.router_probs.shape[:2]), abs=1e-5)
    assert (both.router_probs[0, :, 2:] == 0).all()
    assert np.array_equal(both.router_probs.argmax(-1), both.first_choice)


def test_first_choices_of_a_layer_sum_to_one_and_agree_with_the_share_that_reached_the_original(both):
    assert both.first_share().sum(axis=1) == pytest.approx([1, 1])
    assert np.array_equal(both.first_share()[:, 0], both.reached_original())


def test_what_moved_is_what_has_another_first_choice(both):
    before = both.at("G1 expand")
    change = routing_change(before, both, same_model=True)
    moved = (before.first_choice != both.first_choice) & both.is_text
    assert moved.any() and np.array_equal(change.moved, moved)
    counts = change.counts()
    assert counts["moved"] == counts["to_original"] + counts["to_new"] + counts["among_new"] == moved.sum()
    assert counts["choices"] == 2 * both.is_text.sum()
    assert not routing_change(both, both, same_model=True).moved.any()
    assert not routing_change(before, both, same_model=False).among_new.any()


def test_traces_of_different_texts_are_not_compared(reviewed, tiny_tokenizer, both):
    other = trace(reviewed, tiny_tokenizer, "Another letter.", base=False)
    assert other.base_log_prob is None
    with pytest.raises(UsageError, match="two texts"):
        routing_change(other, both, same_model=True)


def test_a_stored_trace_keeps_its_stages_and_one_of_before_them_is_still_read(both, tmp_path):
    formats.write_trace(tmp_path, "en", both)
    back = formats.read_trace(tmp_path, "en")
    assert back.stage_names == both.stage_names
    for name in both.stage_names:
        assert np.array_equal(back.at(name).expert_ids, both.at(name).expert_ids)
        assert back.at(name).router_probs == pytest.approx(both.at(name).router_probs, abs=1e-3)
        assert back.at(name).base_log_prob == pytest.approx(both.base_log_prob, nan_ok=True)
    old = trace_without(both, "router_probs", stage=True)
    formats.write_trace(tmp_path, "old", old)
    assert formats.read_trace(tmp_path, "old").stage_names == [""]
    assert formats.read_trace(tmp_path, "old").router_probs is None


def trace_without(full, field, stage):
    values = {**vars(full), field: None, "stages": {}}
    values["model"] = {key: value for key, value in full.model.items() if key != "stage" or not stage}
    return type(full)(**values)


def test_a_stage_whose_arrays_do_not_fit_is_damage(both, tmp_path):
    cut = type(both)(**{**vars(both), "stages": {"G1 expand": both.at("G1 expand")}})
    early = cut.stages["G1 expand"]
    cut.stages["G1 expand"] = type(early)(**{**vars(early), "expert_ids": early.expert_ids[:, :-1]})
    formats.write_trace(tmp_path, "en", cut)
    with pytest.raises(DamagedError, match="differ in length"):
        formats.read_trace(tmp_path, "en")


def test_a_changed_run_is_scored_against_the_model_as_it_is(reviewed, tiny_tokenizer, both):
    changed = trace_changed(reviewed, tiny_tokenizer, both, force=0)
    assert (changed.original_weight == 1).all()
    assert same(changed.log_prob, both.base_log_prob)
    assert same(changed.base_log_prob, both.log_prob)
    early = trace_changed(reviewed, tiny_tokenizer, both.at("G1 expand"), ban={2: 1})
    assert early.stage == "G1 expand" and (early.expert_weights * (early.expert_ids == 1))[1].max() == 0
