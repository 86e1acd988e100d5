"""MoE-LPR's equations 1 to 3 and LayerMoE's classifier, written out by hand beside one layer of ours."""

import pytest
import torch

from helpers.shaken import ids_of, shake
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.router import route
from lpr_lab.model.stages import enter_stage


def by_hand(layer, x, top_k):
    """Mix every token of x [T, D] for itself, in float64: softmax over all experts, top K, divided by their sum."""
    mlp = layer.base_layer
    gates, ups, downs = [mlp.gate_proj.weight], [mlp.up_proj.weight], [mlp.down_proj.weight]
    for stack in layer.stacks:
        for up, down in zip(stack.up, stack.down, strict=True):
            gate, value = up.chunk(2)
            gates.append(gate), ups.append(value), downs.append(down)
    rows = []
    for token in x.double():
        scores = layer.router.weight.double() @ token
        probs = scores.exp() / scores.exp().sum()
        chosen = sorted(range(len(probs)), key=lambda expert: -float(probs[expert]))[:top_k]
        total = sum(probs[expert] for expert in chosen)
        mixed = torch.zeros_like(token)
        for expert in chosen:
            gate, up, down = (part[expert].double() for part in (gates, ups, downs))
            mixed += probs[expert] / total * (down @ (torch.nn.functional.silu(gate @ token) * (up @ token)))
        rows.append(mixed)
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize("dispatch", ["grouped", "loop"])
@pytest.mark.parametrize(("new_experts", "top_k"), [(1, 2), (2, 2), (5, 2), (5, 3), (1, 3)])
def test_eq_1_to_3_softmax_over_all_experts_then_top_k_then_divided_by_their_sum(
    new_experts, top_k, dispatch, tiny_model
):
    """Also with top-k above the number of experts, which then uses all of them."""
    model = shake(upcycle(tiny_model("llama"), (new_experts, 1), top_k=top_k, dispatch=dispatch))
    layer, x = moe_layers(model)[0], torch.randn(2, 15, 32)
    assert torch.allclose(layer(x).flatten(0, 1).double(), by_hand(layer, x.flatten(0, 1), top_k), atol=1e-5)


@torch.no_grad()
def test_no_token_is_dropped_when_all_choose_the_same_experts(tiny_model):
    model = shake(upcycle(tiny_model("llama"), (3, 1)))
    layer, x = moe_layers(model)[0], torch.randn(1, 200, 32).abs()
    layer.router.weight.copy_(torch.tensor([0.0, -9.0, 1.0, -9.0])[:, None].expand(4, 32))
    ids = route(layer.router(x[0], None), 2).expert_ids
    assert (ids == torch.tensor([2, 0])).all(), "expert 2 and then 0, for every token"
    assert torch.allclose(layer(x)[0].double(), by_hand(layer, x[0], 2), atol=1e-5)


@torch.no_grad()
def test_the_softmax_is_in_float32_whatever_the_model_is_in(tiny_model):
    model = shake(upcycle(tiny_model("llama").bfloat16(), (2, 2)))
    layer, x = moe_layers(model)[0], torch.randn(30, 32, dtype=torch.bfloat16)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            routing = route(layer.router(x, None), 2)
        assert routing.router_logits.dtype == routing.expert_weights.dtype == torch.float32
        scores = (x.double() @ layer.router.weight.double().T).softmax(-1).topk(2).values
        assert torch.allclose(routing.expert_weights.double(), scores / scores.sum(-1, keepdim=True), atol=1e-6)


def test_every_mlp_becomes_a_mixture_and_its_expert_0_is_the_very_module_of_the_base(tiny_model):
    dense = tiny_model("llama", num_layers=3)
    mlps = [layer.mlp for layer in dense.model.layers]
    layers = moe_layers(upcycle(dense, (2, 2, 2)))
    assert [layer.base_layer for layer in layers] == mlps
    assert not any(parameter.requires_grad for mlp in mlps for parameter in mlp.parameters())


@torch.no_grad()
def test_a_routing_classifier_is_one_map_of_two_rows_drawn_xavier_normal_on_what_the_router_reads(tiny_model):
    drawn, inputs = [], []
    for seed in range(20):
        model = upcycle(tiny_model("llama"), (1, 1), seed=seed)
        enter_stage(model, "review", classifiers=[0, 1])
        drawn += [layer.classifier.weight for layer in moe_layers(model)]
    assert {tuple(weight.shape) for weight in drawn} == {(2, 32)} and moe_layers(model)[0].classifier.bias is None
    values = torch.stack(drawn)
    deviation = (2 / (2 + 32)) ** 0.5
    assert float(values.std()) == pytest.approx(deviation, rel=0.05)
    assert float(values.abs().max()) > 2 * deviation, "a uniform draw of this spread ends at 1.73 deviations"
    layer = moe_layers(model)[1]
    layer.router.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    layer.classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model(ids_of(model), use_cache=False)
    assert len(inputs) == 2 and torch.equal(*inputs)
