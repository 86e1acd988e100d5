"""How new experts and routers start."""

import pytest
import torch

from lpr_lab.errors import UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.families import read_mlp


def stack_and_mlp(tiny_model, how, amount=None, family="llama"):
    model = upcycle(tiny_model(family), (2, 2), expert_init=how, expert_init_amount=amount).requires_grad_(False)
    layer = moe_layers(model)[0]
    return layer.stacks[0], read_mlp(layer.base_layer)


def test_copies_are_exact(tiny_model):
    stack, mlp = stack_and_mlp(tiny_model, "copy")
    assert torch.equal(stack.up[1], mlp.up) and torch.equal(stack.down[0], mlp.down)


def test_noise_is_relative_to_the_spread_of_each_matrix_and_differs_between_experts(tiny_model):
    stack, mlp = stack_and_mlp(tiny_model, "noise", 0.05)
    assert float((stack.up[0] - mlp.up).std() / mlp.up.std()) == pytest.approx(0.05, rel=0.1)
    assert not torch.equal(stack.up[0], stack.up[1])


def test_random_experts_share_nothing_with_the_base_but_mean_and_spread(tiny_model):
    stack, mlp = stack_and_mlp(tiny_model, "random")
    correlation = torch.corrcoef(torch.stack([stack.down[0].flatten(), mlp.down.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.1
    assert float(stack.down[0].std()) == pytest.approx(float(mlp.down.std()), rel=0.1)


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_partial_re_initialisation_draws_whole_channels_anew_and_keeps_the_others(tiny_model, family):
    stack, mlp = stack_and_mlp(tiny_model, "partial", 0.25, family)
    width = mlp.down.shape[1]
    kept = (stack.down[0] == mlp.down).all(0)
    assert int((~kept).sum()) == round(0.25 * width)
    rows = stack.up[0] == mlp.up
    halves = rows.view(2, width, -1) if mlp.gated else rows.view(1, width, -1)
    for half in halves:
        assert torch.equal(half.all(-1), kept)
    assert not torch.equal(kept, (stack.down[1] == mlp.down).all(0))


def test_routers_start_xavier_or_zero(tiny_model):
    xavier = moe_layers(upcycle(tiny_model("llama"), (3, 3)))[0].router.weight
    assert float(xavier.detach().std()) == pytest.approx((2 / (4 + 32)) ** 0.5, rel=0.3)
    assert not moe_layers(upcycle(tiny_model("llama"), (3, 3), router_init="zero"))[0].router.weight.any()


def test_the_start_depends_on_the_seed_and_on_nothing_else(tiny_model):
    first, again, other = (upcycle(tiny_model("llama"), (1, 1), seed=seed) for seed in (1, 1, 2))
    weights = [moe_layers(model)[1].router.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "options",
    [
        {"expert_init": "clone"},
        {"expert_init_amount": 0.1},
        {"expert_init": "partial", "expert_init_amount": 1.5},
        {"router_init": "mean"},
        {"router_rows": "keep"},
    ],
)
def test_a_start_that_does_not_exist_is_refused_before_the_model_is_touched(tiny_model, options):
    model = tiny_model("llama")
    with pytest.raises(UsageError):
        upcycle(model, (1, 1), **options)
    assert not moe_layers(model)
