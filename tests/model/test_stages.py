"""Lifelong expansion: a second group leaves the first as it was, and every earlier stage can be had again."""

import pytest
import torch

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.formats.save_load import load_adapter_tensors, restore_expansion, save_expansion
from lpr_lab.model.stages import enter_stage, select_stage, selected_stage, set_trainable, stage_names

IDS = torch.arange(5, 45).view(2, 20)


@torch.no_grad()
def learn(model, seed=0):
    """Move all that may learn, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def reviewed(model, **options):
    enter_stage(model, "review", **options)
    set_trainable(model, experts=False, routers=True)
    return learn(model, seed=len(stage_names(model)))


def two_groups(tiny_model, first=(1, 2, 0), second=(2, 0, 1), **options):
    """A model with two groups and a review each; what it computed at every stage, by name."""
    model = upcycle(tiny_model("llama", num_layers=3), first, router_bias=True, **options)
    seen = {}
    for group in (1, 2):
        if group == 2:
            upcycle(model, second)
        set_trainable(model, experts=True, routers=True)
        seen[f"G{group} expand"] = logits(learn(model, seed=group))
        seen[f"G{group} review"] = logits(reviewed(model))
    return model, seen


def test_a_second_expansion_adds_experts_where_it_says_also_to_layers_that_were_dense(tiny_model):
    model, _ = two_groups(tiny_model)
    assert [layer.num_experts for layer in moe_layers(model)] == [4, 3, 2]
    assert stage_names(model) == ["G1 expand", "G1 review", "G2 expand", "G2 review"]


def test_every_earlier_stage_can_be_selected_again_bit_for_bit(tiny_model):
    model, seen = two_groups(tiny_model)
    assert len({tuple(values.flatten()[:3].tolist()) for values in seen.values()}) == 4
    for name, expected in [*seen.items(), *reversed(seen.items())]:
        select_stage(model, name)
        assert torch.equal(logits(model), expected), name


def test_every_stage_survives_saving_and_loading(tiny_model, tmp_path):
    model, seen = two_groups(tiny_model)
    save_expansion(model, tmp_path / "adapter")
    other = upcycle(tiny_model("llama", num_layers=3), (1, 2, 0), router_bias=True, seed=9)
    restore_expansion(other, tmp_path / "adapter")
    for name, expected in seen.items():
        select_stage(other, name)
        assert torch.equal(logits(other), expected), name


def test_claim_7_a_second_expansion_leaves_the_base_and_the_first_group_bit_identical(tiny_model):
    model = reviewed(learn(upcycle(tiny_model("llama"), (2, 1), router_bias=True)))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    learn(upcycle(model, (1, 1)))
    reviewed(model)
    after = dict(model.named_parameters())
    assert set(before) < set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("rows", ["append", "reinit"])
def test_router_rows_are_kept_by_default_and_drawn_anew_as_released(tiny_model, rows):
    model = reviewed(learn(upcycle(tiny_model("llama"), (2, 1), router_bias=True)))
    before = [layer.router.weight.detach().clone() for layer in moe_layers(model)]
    upcycle(model, (1, 2), router_rows=rows)
    for weight, layer in zip(before, moe_layers(model), strict=True):
        assert torch.equal(layer.router.weight[: len(weight)], weight) == (rows == "append")
        assert layer.router.weight[len(weight) :].abs().sum() > 0


def test_new_experts_of_a_second_group_are_copies_of_the_base_and_alone_learn(tiny_model):
    model = learn(upcycle(tiny_model("llama"), (1, 1)))
    upcycle(model, (2, 0))
    first, second = moe_layers(model)
    base = first.base_layer
    assert torch.equal(first.stacks[1].down[1], base.down_proj.weight)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in learning if "experts" in name and ".mlp." in name} == {
        f"base_model.model.model.layers.0.mlp.moe_lpr_experts.default.1.{part}" for part in ("up", "down")
    }
    assert not any("layers.1" in name and "experts" in name for name in learning)
    assert second.num_experts == 2


def test_disabling_the_adapter_is_the_base_after_two_groups(tiny_model):
    dense = tiny_model("llama", num_layers=3)
    expected = logits(dense)
    model, _ = two_groups(tiny_model)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)


def test_going_back_to_an_earlier_adapter_drops_what_came_later(tiny_model, tmp_path):
    model = learn(upcycle(tiny_model("llama"), (1, 1)))
    expected = logits(model)
    save_expansion(model, tmp_path / "first")
    reviewed(learn(upcycle(reviewed(model), (1, 1))))
    restore_expansion(model, tmp_path / "first")
    assert stage_names(model) == ["G1 expand"]
    assert torch.equal(logits(model), expected)


def test_an_adapter_with_another_history_is_refused(tiny_model, tmp_path):
    save_expansion(upcycle(tiny_model("llama"), (1, 2)), tmp_path / "other")
    with pytest.raises(UsageError, match="different histories"):
        restore_expansion(upcycle(tiny_model("llama"), (2, 1)), tmp_path / "other")


def test_an_earlier_stage_cannot_be_trained_or_extended(tiny_model):
    model = reviewed(upcycle(tiny_model("llama"), (1, 1)))
    select_stage(model, "G1 expand")
    for attempt in (
        lambda: set_trainable(model, experts=True, routers=True),
        lambda: upcycle(model, (1, 1)),
        lambda: enter_stage(model, "review"),
    ):
        with pytest.raises(UsageError, match="only the newest"):
            attempt()


def test_an_unknown_stage_is_refused_with_the_closest_name(tiny_model):
    with pytest.raises(UsageError, match="G1 expand"):
        select_stage(upcycle(tiny_model("llama"), (1, 1)), "G1 expnd")


def test_settings_of_a_second_expansion_that_differ_from_the_first_are_refused(tiny_model):
    model = upcycle(tiny_model("llama"), (1, 1))
    with pytest.raises(UsageError, match="first expansion"):
        upcycle(model, (1, 1), router_bias=True)


def test_going_on_with_a_stage_keeps_its_routers(tiny_model):
    model = reviewed(upcycle(tiny_model("llama"), (1, 1)))
    expected = logits(model)
    enter_stage(model, "review")
    assert selected_stage(model) == "G1 review"
    assert torch.equal(logits(model), expected)


# Routing classifiers


def say(model, what):
    """Make every classifier call every token original (0) or expanded (1)."""
    for layer in moe_layers(model):
        if layer.classifier is not None:
            with torch.no_grad():
                layer.classifier.weight.zero_()
                layer.classifier.bias.copy_(torch.eye(2)[what])
    return model


def with_classifiers(tiny_model, layers=(0, 1), family="llama", **options):
    model = learn(upcycle(tiny_model(family), (1, 3), router_bias=True, **options))
    enter_stage(model, "review", classifiers=layers)
    return model


@pytest.mark.parametrize("router_input", ["token", "token_and_mean"])
def test_claim_6_classified_original_everywhere_the_model_is_the_base_bit_for_bit(
    family_model, tiny_model, request, router_input
):
    family = request.node.callspec.params["family_model"]
    expected = logits(family_model)
    model = say(with_classifiers(tiny_model, family=family, router_input=router_input), 0)
    assert torch.equal(logits(model), expected)


def test_claim_6_a_token_classified_original_gets_the_dense_output_exactly_beside_others(tiny_model):
    model = with_classifiers(tiny_model)
    layer = moe_layers(model)[1]
    x = torch.randn(2, 20, 32)
    with torch.no_grad():
        layer.classifier.bias.zero_()
        output = layer(x)
        is_original = layer.classifier.classify(x, None).argmax(-1).view(2, 20) == 0
        assert 5 < is_original.sum() < 35
        assert torch.equal(output[is_original], layer.base_layer(x)[is_original])
        assert not torch.allclose(output[~is_original], layer.base_layer(x)[~is_original], atol=1e-3)


def test_classified_expanded_everywhere_the_model_routes_as_without_classifiers(tiny_model):
    model = say(with_classifiers(tiny_model), 1)
    expected = logits(model)
    select_stage(model, "G1 expand")
    assert torch.allclose(logits(model), expected, atol=1e-5)


def test_routing_is_recorded_as_it_happens_behind_a_classifier(tiny_model):
    from lpr_lab.model.capture import record_routing

    model = say(with_classifiers(tiny_model, layers=[1]), 0)
    with record_routing(model) as record:
        logits(model)
    assert record.routing[0].classifier_logits is None
    assert record.routing[1].classifier_logits.shape == (40, 2)
    assert torch.equal(record.routing[1].original_weight(), torch.ones(40))
    assert torch.equal(record.routing[1].expert_ids, torch.zeros(40, 2, dtype=torch.int64))


@torch.no_grad()
def test_the_token_classifier_is_causal_and_the_released_one_is_not(tiny_model):
    other = IDS.clone()
    other[:, -1] = 7
    for form, is_causal in (("token", True), ("sequence", False)):
        model = learn(upcycle(tiny_model("llama"), (1, 1), router_bias=True, router_input="token_and_mean"))
        enter_stage(model, "review", classifiers=[0, 1], classifier_input=form)
        set_trainable(model, experts=False, routers=True)
        learn(model, seed=3)
        layer = moe_layers(model)[0]
        rows = []
        for ids in (IDS, other):
            inputs = []
            handle = layer.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
            model(input_ids=ids)
            handle.remove()
            mean = inputs[0].cumsum(1) / torch.arange(1, 21)[:, None]
            rows.append(layer.classifier.classify(inputs[0], mean).view(2, 20, 2)[:, :-1])
        assert torch.allclose(*rows, atol=1e-5) == is_causal, form


def test_a_classifier_without_a_router_to_stand_before_is_refused(tiny_model):
    model = upcycle(tiny_model("llama"), (0, 1))
    with pytest.raises(UsageError, match=r"\[0\] .*no new experts"):
        enter_stage(model, "review", classifiers=[0])


def test_a_second_expansion_begins_without_classifiers(tiny_model):
    model = upcycle(with_classifiers(tiny_model), (1, 1))
    assert [layer.classifier for layer in moe_layers(model)] == [None, None]
    assert expansion_config(model).stages[-1]["classifiers"] == []


def test_classifiers_survive_saving(tiny_model, tmp_path):
    model = with_classifiers(tiny_model)
    expected = logits(model)
    save_expansion(model, tmp_path / "adapter")
    other = upcycle(tiny_model("llama"), (1, 3), router_bias=True)
    restore_expansion(other, tmp_path / "adapter")
    assert torch.equal(logits(other), expected)
    with pytest.raises(DamagedError):
        load_adapter_tensors(upcycle(tiny_model("llama"), (1, 3)), tmp_path / "adapter" / "adapter_model.safetensors")
