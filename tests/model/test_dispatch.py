"""Every way of sending tokens to experts computes what the plain loop computes, outputs and gradients."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lpr_lab.model.bases.families import find_decoder_mlps, read_mlp
from lpr_lab.model.experts import ExpertStack, mix, mix_by_loop
from lpr_lab.model.router import Routing

# experts of each expansion, and for every token the experts it visits
CASES = {
    "every expert has tokens": ((3,), [(0, 1), (2, 3), (1, 0), (3, 2), (0, 2)]),
    "experts without tokens": ((4,), [(0, 4), (4, 0), (0, 4)]),
    "all tokens at one pair": ((3,), [(2, 0)] * 5),
    "no token at the original expert": ((3,), [(1, 2), (3, 1), (2, 3)]),
    "no token at new experts of a group": ((2, 2), [(0, 1), (1, 2), (2, 0)]),
    "one token": ((3,), [(3, 1)]),
    "top-k of three": ((4,), [(0, 1, 2), (4, 3, 0), (2, 4, 1)]),
    "as many experts as chosen": ((1,), [(0, 1), (1, 0), (0, 1)]),
    "as many experts as chosen, in two groups": ((1, 1), [(0, 1, 2), (2, 1, 0), (1, 0, 2)]),
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def first_mlp(model) -> nn.Module:
    return find_decoder_mlps(model)[0].module.requires_grad_(False)


def stacks_of(mlp: nn.Module, groups: tuple[int, ...]) -> list[ExpertStack]:
    """Return new experts in so many groups that differ from the MLP and from one another."""
    torch.manual_seed(1)
    stacks = [ExpertStack(read_mlp(mlp), count).eval() for count in groups]
    for stack in stacks:
        stack.copy_from(read_mlp(mlp))
        with torch.no_grad():
            for parameter in stack.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return stacks


def outcome(dispatch, x, ids, original, stacks) -> list[torch.Tensor]:
    """Return the output and every gradient: of the input, of the combine weights, of each expert."""
    x = x.clone().requires_grad_(True)
    scores = torch.linspace(0.5, 1.5, ids.numel(), device=x.device).view(ids.shape).requires_grad_(True)
    trained = [parameter for stack in stacks for parameter in stack.parameters()]
    output = dispatch(x, Routing(torch.zeros(len(x), 1), ids, scores / scores.sum(-1, keepdim=True)), original, stacks)
    target = torch.linspace(-1, 1, output.numel(), device=x.device).view(output.shape)
    # An expert that no token visits has a gradient of zeros here and none in the loop.
    loss = (output.float() * target).sum() + sum(0 * parameter.float().sum() for parameter in trained)
    return [output.detach(), *torch.autograd.grad(loss, [x, scores, *trained], materialize_grads=True)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])  # gated without biases, plain with them
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_equal_those_of_the_plain_loop(tiny_model, family, case, device):
    groups, chosen = CASES[case]
    original = first_mlp(tiny_model(family)).to(device)
    stacks = [stack.to(device) for stack in stacks_of(original, groups)]
    width = tiny_model(family).config.hidden_size
    x = torch.randn(len(chosen), width, generator=torch.Generator().manual_seed(2)).to(device)
    ids = torch.tensor(chosen, device=device)
    fast, plain = (outcome(dispatch, x, ids, original, stacks) for dispatch in (mix, mix_by_loop))
    assert all(tensor.abs().max() > 0 for tensor in plain[:2])
    for mine, loops in zip(fast, plain, strict=True):
        torch.testing.assert_close(mine, loops, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("case", ["every expert has tokens", "as many experts as chosen, in two groups"])
def test_experts_that_run_again_have_the_same_gradients_and_keep_less(tiny_model, family, case, device):
    groups, chosen = CASES[case]
    original = first_mlp(tiny_model(family)).to(device)
    stacks = [stack.to(device) for stack in stacks_of(original, groups)]
    x, ids = torch.randn(len(chosen), tiny_model(family).config.hidden_size).to(device), torch.tensor(chosen)
    ways = {
        "loop": mix_by_loop,
        "kept": mix,
        "again": partial(mix, checkpoint=partial(checkpoint, use_reentrant=False)),
        "loop again": partial(mix_by_loop, checkpoint=partial(checkpoint, use_reentrant=False)),
    }
    found, kept = {}, {}
    for name, dispatch in ways.items():
        sizes = {}

        def keep(tensor, sizes=sizes):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found[name] = outcome(dispatch, x, ids.to(device), original, stacks)
        kept[name] = sum(sizes.values())
    for name in ways:
        for mine, loops in zip(found[name], found["loop"], strict=True):
            torch.testing.assert_close(mine, loops, rtol=1e-4, atol=1e-5)
    assert kept["again"] < kept["kept"] < kept["loop"]


def test_an_untrained_copy_moves_nothing(tiny_model):
    original = first_mlp(tiny_model("llama"))
    stack = ExpertStack(read_mlp(original), 1)
    stack.copy_from(read_mlp(original))
    x = torch.randn(7, tiny_model("llama").config.hidden_size)
    scores = torch.rand(7, 2)
    routing = Routing(scores, torch.tensor([[0, 1]] * 7), scores / scores.sum(-1, keepdim=True))
    # Gate and way up are one product here and two in the base's MLP: on some processors that rounds otherwise.
    rounded = (stack.expert(0, x) - original(x)).abs().amax()
    assert rounded <= 1e-6 * original(x).abs().amax()
    assert (mix(x, routing, original, [stack]) - original(x)).abs().amax() <= rounded


@torch.no_grad()
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("chosen", [(0, 3), (3, 1), (2, 4), (4, 0)])
def test_a_token_that_is_generated_gets_what_it_gets_among_others(tiny_model, family, chosen, device):
    original = first_mlp(tiny_model(family)).to(device)
    stacks = [stack.to(device) for stack in stacks_of(original, (3, 1))]
    x = torch.randn(1, tiny_model(family).config.hidden_size, device=device)
    weights = torch.tensor([[0.7, 0.3]], device=device)
    alone = Routing(torch.zeros(1, 5), torch.tensor([chosen], device=device), weights)
    among = Routing(torch.zeros(2, 5), torch.tensor([chosen, (1, 0)], device=device), weights.expand(2, 2))
    mixed = mix(x, alone, original, stacks)
    torch.testing.assert_close(mixed, mix_by_loop(x, alone, original, stacks), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed, mix(x.expand(2, -1), among, original, stacks)[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("case", CASES)
def test_rows_that_are_put_in_change_neither_outputs_nor_gradients(tiny_model, family, case, monkeypatch):
    monkeypatch.setattr("lpr_lab.model.experts._rows_at_once", lambda x: 4)
    groups, chosen = CASES[case]
    original = first_mlp(tiny_model(family))
    stacks = stacks_of(original, groups)
    x = torch.randn(len(chosen), tiny_model(family).config.hidden_size)
    ids = torch.tensor(chosen)
    for mine, loops in zip(*(outcome(way, x, ids, original, stacks) for way in (mix, mix_by_loop)), strict=True):
        torch.testing.assert_close(mine, loops, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_in_bf16_experts_get_rows_by_the_dozen_so_that_products_find_their_compiled_code(tiny_model, autocast):
    """Only on a processor, and only in bf16: elsewhere no row is put in."""
    original, seen = first_mlp(tiny_model("llama")), set()
    stacks = stacks_of(original, (3,))
    if not autocast:
        original = original.to(torch.bfloat16)
    original.register_forward_pre_hook(lambda _, given: seen.add(len(given[0])))
    torch.manual_seed(0)
    for number in range(50, 62):
        ids = torch.rand(number, 4).topk(2).indices
        x = torch.randn(number, 32, dtype=torch.float32 if autocast else torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            mix(x, Routing(torch.zeros(number, 4), ids, torch.full(ids.shape, 0.5)), original, stacks)
    assert len(seen) <= 2 and all(rows % 32 == 0 for rows in seen)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", ["every expert has tokens", "experts without tokens", "as many experts as chosen"])
def test_bf16_stays_within_its_own_rounding(tiny_model, case, device):
    groups, chosen = CASES[case]
    original = first_mlp(tiny_model("llama")).to(device, torch.bfloat16)
    stacks = [stack.to(device) for stack in stacks_of(original, groups)]
    x = torch.randn(len(chosen), original.config.hidden_size).to(device, torch.bfloat16)
    ids = torch.tensor(chosen, device=device)
    fast, plain = (outcome(dispatch, x, ids, original, stacks)[0] for dispatch in (mix, mix_by_loop))
    torch.testing.assert_close(fast, plain, rtol=3e-2, atol=3e-2 * float(plain.abs().max()))


@pytest.mark.gpu
def test_no_more_than_one_number_a_layer_leaves_the_gpu(tiny_model):
    """The sizes of the parts of one sort; all else stays on the device, so that the next layer is not waited for."""
    groups, chosen = CASES["every expert has tokens"]
    original = first_mlp(tiny_model("llama")).to("cuda")
    stacks = [stack.to("cuda") for stack in stacks_of(original, groups)]
    x = torch.randn(len(chosen), original.config.hidden_size, device="cuda")
    ids = torch.tensor(chosen, device="cuda")
    routing = Routing(torch.zeros(len(x), 1), ids, torch.full(ids.shape, 0.5, device="cuda"))
    mix(x, routing, original, stacks)  # what is made at the first call
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        mix(x, routing, original, stacks)
    assert sum(event.count for event in seen.key_averages() if event.key == "aten::_local_scalar_dense") <= 2
