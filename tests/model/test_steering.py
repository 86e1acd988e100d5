"""What if tokens went elsewhere: a change inside a block, exact where it says so, and nothing left behind."""

import pytest
import torch

from lpr_lab.errors import UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.capture import record_routing
from lpr_lab.model.stages import enter_stage, select_stage
from lpr_lab.model.steering import steer

IDS = torch.arange(5, 45).view(2, 20)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.fixture(params=[(1, 1, 1), (1, 3, 0)], ids=["two_experts_each", "four_none_and_two"])
def model(request, tiny_model):
    """A model whose experts and routers differ, with a classifier before one router."""
    model = upcycle(tiny_model("llama", num_layers=3), request.param, router_bias=True)
    enter_stage(model, "review", classifiers=[1])
    with torch.no_grad():
        for layer in moe_layers(model):
            for part in (layer.router, layer.stacks[0], layer.classifier):
                for parameter in [] if part is None else part.parameters():
                    parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def weights_of(model, layer, expert):
    with record_routing(model) as record:
        logits(model)
    routing = record.routing[layer]
    return (routing.expert_weights * (routing.expert_ids == expert)).sum(-1)


def test_forcing_expert_0_everywhere_computes_the_base_exactly(model):
    with model.disable_adapter():
        base = logits(model)
    assert not torch.equal(logits(model), base)
    with steer(model, force=0):
        assert torch.equal(logits(model), base)


def test_a_forced_expert_has_weight_one_for_every_token(model):
    with steer(model, force={1: 1}):
        assert (weights_of(model, 1, 1) == 1).all()
        assert not (weights_of(model, 0, 1) == 1).all()


@pytest.mark.parametrize("expert", [0, 1])
def test_a_banned_expert_has_no_weight_and_the_others_share_its_part(model, expert):
    assert weights_of(model, 1, expert).max() > 0
    with steer(model, ban={1: expert}):
        assert (weights_of(model, 1, expert) == 0).all()
        with record_routing(model) as record:
            logits(model)
        assert record.routing[1].expert_weights.sum(-1) == pytest.approx(1)


def test_a_ban_leaves_the_order_of_the_others_as_it_was(tiny_model):
    model = upcycle(tiny_model("llama", num_layers=1), (3,))
    with record_routing(model) as record:
        logits(model)
        free = record.routing[0].router_logits
    with steer(model, ban={0: [1, 2]}), record_routing(model) as record:
        logits(model)
    left = free[:, [0, 3]].softmax(-1)
    weights = record.routing[0].expert_weights * (record.routing[0].expert_ids == 3)
    assert torch.allclose(weights.sum(-1), left[:, 1])


def test_a_classifier_keeps_its_say_when_another_expert_is_banned(model):
    with record_routing(model) as record:
        logits(model)
        before = record.routing[1].classifier_logits
    assert before is not None
    with steer(model, ban={1: 1}), record_routing(model) as record:
        logits(model)
        kept = record.routing[1].classifier_logits
        assert kept is not None and torch.equal(kept, before)
    with steer(model, force={1: 1}), record_routing(model) as record:
        logits(model)
        assert record.routing[1].classifier_logits is None


def test_nothing_remains_afterwards_also_after_an_error(model):
    before = logits(model)
    with steer(model, force=0):
        logits(model)
    assert torch.equal(logits(model), before)
    with pytest.raises(RuntimeError), steer(model, ban={0: 0}):
        raise RuntimeError
    assert forward_context(model).steering is None
    assert torch.equal(logits(model), before)


def test_the_stage_in_use_is_the_one_that_is_steered(model):
    select_stage(model, "G1 expand")
    with steer(model, force={1: 1}):
        assert (weights_of(model, 1, 1) == 1).all()
    select_stage(model, "G1 review")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "nothing to change"),
        ({"force": {9: 0}}, "Layer 9 has no router"),
        ({"force": 7}, "experts 0 to"),
        ({"ban": {1: -1}}, "no expert -1"),
        ({"force": {0: 1}, "ban": {0: 1}}, "both forced and banned"),
        ({"ban": {0: [0, 1]}}, "leave at least one"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(model, asked, said):
    with pytest.raises(UsageError, match=said), steer(model, **asked):
        pass
    assert forward_context(model).steering is None


def test_a_block_inside_another_is_refused(model):
    with steer(model, force=0), pytest.raises(UsageError, match="being steered already"), steer(model, force=0):
        pass


def test_an_expert_can_be_forced_row_by_row_and_other_rows_stay_as_they_are(model):
    free = logits(model)
    with steer(model, force={1: 1}):
        forced = logits(model)
    with steer(model, force={1: [None, 1]}):
        torch.testing.assert_close(logits(model), torch.stack([free[0], forced[1]]), rtol=0, atol=1e-5)
    with steer(model, force={1: [1, None]}, ban={0: 1}):
        assert not torch.allclose(logits(model)[1], free[1])
    with steer(model, force={1: [1, None, None]}), pytest.raises(UsageError, match="3 rows, and this batch has 2"):
        logits(model)
    with pytest.raises(UsageError, match="both forced and banned"), steer(model, force={1: [None, 1]}, ban={1: 1}):
        pass


def test_a_scaled_expert_s_probability_is_multiplied_before_the_choice(model):
    with record_routing(model) as record:
        logits(model)
        free = record.routing[0].router_logits.softmax(-1)
    with steer(model, scale={0: (1, 3.0)}), record_routing(model) as record:
        logits(model)
        scaled = record.routing[0].router_logits.softmax(-1)
    wanted = free.clone()
    wanted[:, 1] *= 3
    torch.testing.assert_close(scaled, wanted / wanted.sum(-1, keepdim=True))
    before = logits(model)
    with steer(model, scale=(0, 1.0)):
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"scale": (0, 0.0)}, "above 0"),
        ({"scale": (9, 2.0)}, "no expert 9"),
        ({"scale": {0: (1, 2.0)}, "force": {0: 1}}, "nothing is left to scale"),
        ({"scale": {0: (1, 2.0)}, "ban": {0: 1}}, "both scaled and banned"),
    ],
)
def test_a_strength_that_cannot_be_is_refused(model, asked, said):
    with pytest.raises(UsageError, match=said), steer(model, **asked):
        pass


@pytest.mark.parametrize("told", [{"force": {1: 1}}, {"force": {1: [0, 1]}}, {"ban": {1: 0}}, {"scale": (0, 9.0)}])
def test_from_a_place_on_tokens_are_routed_as_steered_and_before_it_as_ever(model, told):
    free, start = weights_of(model, 1, 0).view(2, 20), 7
    with steer(model, **told):
        whole = weights_of(model, 1, 0).view(2, 20)
    with steer(model, **told, start=start):
        found = weights_of(model, 1, 0).view(2, 20)
    assert torch.equal(found[:, :start], free[:, :start])
    if "scale" not in told:  # layer 0 is left alone there, and layer 1 reads what it wrote
        assert torch.allclose(found[:, start:], whole[:, start:])
    assert not torch.equal(found[:, start:], free[:, start:])


def test_tokens_before_the_place_are_computed_as_if_nothing_were_steered(model):
    free = logits(model)
    with steer(model, force=0, start=7):
        steered = logits(model)
    assert torch.allclose(steered[:, :7], free[:, :7], atol=1e-6)
    assert not torch.allclose(steered[:, 7:], free[:, 7:], atol=1e-3)


@torch.no_grad()
def test_the_place_counts_what_a_cache_holds(model):
    with steer(model, force={1: 1}, start=7):
        whole = logits(model)
        cached, outputs = None, []
        for part in IDS.split(4, dim=1):
            given = model(input_ids=part, past_key_values=cached, use_cache=True)
            cached = given.past_key_values
            outputs.append(given.logits)
    assert torch.allclose(torch.cat(outputs, dim=1), whole, atol=1e-5)


def test_a_place_before_the_text_is_refused(model):
    with pytest.raises(UsageError, match="start is -1"), steer(model, force=0, start=-1):
        pass
