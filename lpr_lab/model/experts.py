"""New experts as stacked matrices, and the dispatch of tokens to them.

Expert 0 is never here: it is the base model's own MLP, called as the module it is. The new experts of one expansion
are one 3-D parameter each for the way up and the way down, so that an expert without tokens still has a gradient (of
zeros) and no rank ever waits for another.

Letters: T tokens, D model width, F hidden width, n new experts of one stack, E experts in all, K chosen per token.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lpr_lab.model.bases.families import MLPWeights
from lpr_lab.model.router import ORIGINAL_EXPERT, Routing

Checkpoint = Callable[..., torch.Tensor]
"""Calls a function with arguments, keeps only these for the backward pass, and runs the function again there."""


class ExpertStack(nn.Module):
    """The new experts that one expansion adds to one layer. They hold no numbers (NaN) until something fills them.

    Args:
        mlp: the MLP whose form they share.
        num_experts: n, how many.
    """

    def __init__(self, mlp: MLPWeights, num_experts: int) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.gated = mlp.gated
        self.dropout = mlp.dropout
        # Shared with the base, also where it has numbers of its own (xIELU in Apertus): hence hidden from `parameters`,
        # or training the stack would train the base.
        self._activation = (mlp.activation,)
        self.up = _empty(mlp.up, num_experts)
        self.down = _empty(mlp.down, num_experts)
        self.up_bias = None if mlp.up_bias is None else _empty(mlp.up_bias, num_experts)
        self.down_bias = None if mlp.down_bias is None else _empty(mlp.down_bias, num_experts)

    @torch.no_grad()
    def copy_from(self, mlp: MLPWeights) -> None:
        """Make every expert an exact copy of `mlp`."""
        for name in ("up", "down", "up_bias", "down_bias"):
            mine = getattr(self, name)
            if mine is not None:
                mine.copy_(getattr(mlp, name).detach().expand_as(mine))

    def expert(self, index: int, x: torch.Tensor, *, lean: bool = False) -> torch.Tensor:
        """Apply one expert to all of `x` [T, D] -> [T, D]; for `lean` see `_ActivatedProduct`."""
        up, down, up_bias, down_bias = (
            None if stacked is None else self._of(stacked, index).to(_compute_dtype(x))
            for stacked in (self.up, self.down, self.up_bias, self.down_bias)
        )
        assert up is not None and down is not None
        hidden = F.linear(x, up, up_bias)
        if self._can_be(lean, hidden):
            output = _ActivatedProduct.apply(hidden, down, down_bias, None, self._activation[0], self.gated)
        else:
            output = F.linear(self._activate(hidden), down, down_bias)
        return F.dropout(output, self.dropout, self.training)

    def grouped(self, x: torch.Tensor, tokens_per_expert: torch.Tensor, *, lean: bool = False) -> torch.Tensor:
        """Apply each expert to its own rows in one grouped matrix product.

        Args:
            x: [rows, D], the rows of expert 0 of this stack first, then expert 1, and so on.
            tokens_per_expert: int64 [n], how many rows each has; they sum to `rows`.
            lean: see `_ActivatedProduct`.
        """
        ends = tokens_per_expert.cumsum(0).to(torch.int32)
        dtype = _compute_dtype(x)
        hidden = F.grouped_mm(x.to(dtype), self.up.to(dtype).transpose(-2, -1), offs=ends)
        if self.up_bias is not None:
            hidden = hidden + _rows_of(self.up_bias, tokens_per_expert, hidden)
        down = self.down.to(dtype)
        if self._can_be(lean, hidden):
            output = _ActivatedProduct.apply(hidden, down, None, ends, self._activation[0], self.gated)
        else:
            output = F.grouped_mm(self._activate(hidden).to(dtype), down.transpose(-2, -1), offs=ends)
        if self.down_bias is not None:
            output = output + _rows_of(self.down_bias, tokens_per_expert, output)
        return F.dropout(output, self.dropout, self.training)

    def _of(self, stacked: torch.Tensor, index: int) -> torch.Tensor:
        # A single expert is a view of the whole, so its gradient need not be copied into a stack of zeros.
        return stacked.squeeze(0) if self.num_experts == 1 else stacked[index]

    def _activate(self, hidden: torch.Tensor) -> torch.Tensor:
        return _activated(hidden, self._activation[0], self.gated)

    def _can_be(self, lean: bool, hidden: torch.Tensor) -> bool:
        # An activation that learns would get no gradient.
        learns = any(parameter.requires_grad for parameter in self._activation[0].parameters())
        return lean and hidden.requires_grad and not learns


def _activated(hidden: torch.Tensor, activation: nn.Module, gated: bool) -> torch.Tensor:
    if not gated:
        return activation(hidden)
    gate, up = hidden.chunk(2, dim=-1)
    return activation(gate) * up


class _ActivatedProduct(torch.autograd.Function):
    """`down(act(hidden))`, of which `hidden` alone is kept: what lies between is made again in the backward pass.

    Torch keeps the activation, too, and its product with the other half, which is as much again. Made again they cost
    one activation and one product of numbers, no product of matrices; results and gradients are the same.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        down: torch.Tensor,
        bias: torch.Tensor | None,
        ends: torch.Tensor | None,
        activation: nn.Module,
        gated: bool,
    ) -> torch.Tensor:
        kind = hidden.device.type
        ctx.activation, ctx.gated = activation, gated
        ctx.autocast = {"dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}
        ctx.save_for_backward(hidden, down, ends)
        # Detached, for whoever hooks modules and asks what they get for its place in the graph: here it has none.
        activated = _activated(hidden.detach(), activation, gated).to(down.dtype)
        if ends is None:
            return F.linear(activated, down, bias)
        return F.grouped_mm(activated, down.transpose(-2, -1), offs=ends)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        hidden, down, ends = ctx.saved_tensors
        of_activated = grad @ down if ends is None else F.grouped_mm(grad, down, offs=ends)
        with torch.autocast(hidden.device.type, **ctx.autocast):
            activated, of_hidden = _activation_gradient(hidden, of_activated, ctx.activation, ctx.gated)
        of_down = None
        if ctx.needs_input_grad[1]:
            activated = activated.to(down.dtype)
            of_down = grad.T @ activated if ends is None else F.grouped_mm(grad.T, activated, offs=ends)
        return of_hidden, of_down, grad.sum(0) if ctx.needs_input_grad[2] else None, None, None, None


def _activation_gradient(
    hidden: torch.Tensor, grad: torch.Tensor, activation: nn.Module, gated: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `_activated(hidden)` and the gradient of `hidden`, given that of the former."""
    gate, up = hidden.chunk(2, dim=-1) if gated else (hidden, None)
    gate = gate.detach().requires_grad_()
    with torch.enable_grad():
        made = activation(gate.view_as(gate))  # no leaf, which hooks on modules cannot ask for its place in this graph
    if up is None:
        return made.detach(), torch.autograd.grad(made, gate, grad.to(made.dtype))[0]
    of_hidden = torch.empty_like(hidden)
    of_gate, of_up = of_hidden.chunk(2, dim=-1)
    of_up.copy_(grad * made.detach())
    of_gate.copy_(torch.autograd.grad(made, gate, (grad * up).to(made.dtype))[0])
    return made.detach() * up, of_hidden


def _empty(like: torch.Tensor, num_experts: int) -> nn.Parameter:
    return nn.Parameter(torch.full((num_experts, *like.shape), torch.nan, dtype=torch.float32, device=like.device))


def _rows_of(bias: torch.Tensor, tokens_per_expert: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return for each row of `like` the bias [n, ...] of its expert, in its dtype."""
    return bias.to(like.dtype).repeat_interleave(tokens_per_expert, dim=0, output_size=len(like))


def _compute_dtype(x: torch.Tensor) -> torch.dtype:
    # grouped_mm is not on autocast's list, so the cast that autocast would make is made here.
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def mix(
    x: torch.Tensor,
    routing: Routing,
    original: nn.Module,
    stacks: Sequence[ExpertStack],
    *,
    checkpoint: Checkpoint | None = None,
) -> torch.Tensor:
    """Send each token to its chosen experts and sum their outputs by the combine weights (paper eq. 3).

    Args:
        x: [T, D].
        routing: chosen experts and weights, [T, K].
        original: expert 0, the base model's own MLP.
        stacks: the new experts, expansion by expansion; numbered on from 1.
        checkpoint: calls each expert, so that of its pass only the input and the output are kept. None: what its
            gradient needs is kept, but for what an activation makes again.

    Returns:
        [T, D] in the dtype of `x`.

    Every row is computed once per chosen expert and never for the others. When all experts are chosen (K = E) there
    is nothing to sort and each expert simply sees all tokens.
    """
    num_experts = 1 + sum(stack.num_experts for stack in stacks)
    if routing.expert_ids.shape[-1] == num_experts:
        return _mix_all(x, routing, original, stacks, checkpoint)
    if len(x) == 1 and not torch.is_grad_enabled():  # where gradients are wanted, all experts of a stack must have one
        return _mix_one(x, routing, original, stacks)
    return _mix_sorted(x, routing, original, stacks, checkpoint)


def mix_by_loop(
    x: torch.Tensor,
    routing: Routing,
    original: nn.Module,
    stacks: Sequence[ExpertStack],
    *,
    checkpoint: Checkpoint | None = None,
) -> torch.Tensor:
    """Compute what `mix` computes by a plain loop over experts: the form that tests compare with."""
    experts = [original, *((lambda x, s=s, i=i: s.expert(i, x)) for s in stacks for i in range(s.num_experts))]
    output = torch.zeros_like(x)
    for number, expert in enumerate(experts):
        token, slot = torch.where(routing.expert_ids == number)
        if len(token):
            weight = routing.expert_weights[token, slot].unsqueeze(-1)
            made = _run(expert, x[token], checkpoint=checkpoint)
            output = output.index_add(0, token, (made * weight).to(x.dtype))
    return output


def _mix_all(
    x: torch.Tensor,
    routing: Routing,
    original: nn.Module,
    stacks: Sequence[ExpertStack],
    checkpoint: Checkpoint | None,
) -> torch.Tensor:
    """Return what expert 0 makes, moved towards what each other makes by that one's weight.

    Weights sum to 1, so that is their mean. An expert that is a copy of expert 0 moves it by nothing at all, and the
    backward pass needs one tensor fewer than the sum of all would have it keep.
    """
    weights = torch.empty_like(routing.expert_weights).scatter(1, routing.expert_ids, routing.expert_weights)
    first = _run(original, x, checkpoint=checkpoint).to(weights.dtype)
    output, number = first, 1
    for stack in stacks:
        for index in range(stack.num_experts):
            made = _run(partial(stack.expert, index, lean=checkpoint is None), x, checkpoint=checkpoint)
            output = output + weights[:, number : number + 1] * (made - first)
            number += 1
    return output.to(x.dtype)


def _run(expert: Callable[..., torch.Tensor], *args: torch.Tensor, checkpoint: Checkpoint | None) -> torch.Tensor:
    return expert(*args) if checkpoint is None or not torch.is_grad_enabled() else checkpoint(expert, *args)


def _mix_one(x: torch.Tensor, routing: Routing, original: nn.Module, stacks: Sequence[ExpertStack]) -> torch.Tensor:
    """Run the experts of a single token, as cached generation asks for: nothing to sort or to put together."""
    places = [(stack, index) for stack in stacks for index in range(stack.num_experts)]
    outputs = []
    for number in routing.expert_ids[0].tolist():
        if number == ORIGINAL_EXPERT:
            outputs.append(original(x))
        else:
            stack, index = places[number - 1]
            outputs.append(stack.expert(index, x))
    return (torch.cat(outputs) * routing.expert_weights.transpose(0, 1)).sum(0, keepdim=True).to(x.dtype)


def _mix_sorted(
    x: torch.Tensor,
    routing: Routing,
    original: nn.Module,
    stacks: Sequence[ExpertStack],
    checkpoint: Checkpoint | None,
) -> torch.Tensor:
    num_tokens, top_k = routing.expert_ids.shape
    chosen = routing.expert_ids.reshape(-1)
    num_experts = 1 + sum(stack.num_experts for stack in stacks)
    tokens_per_expert = torch.bincount(chosen, minlength=num_experts)
    step = _rows_at_once(x)
    rows_per_expert = (tokens_per_expert + step - 1) // step * step
    # One number leaves the device per stack and layer: where the rows of each part end.
    parts = [1, *(stack.num_experts for stack in stacks)]
    sizes = torch.stack([part.sum() for part in rows_per_expert.split(parts)]).tolist()
    counts = rows_per_expert.split(parts)[1:]
    order = chosen.argsort(stable=True)
    extra = rows_per_expert - tokens_per_expert
    places = torch.arange(len(order), device=order.device) + (extra.cumsum(0) - extra)[chosen[order]]
    back = torch.empty_like(order).index_copy_(0, order, places)
    taken = order.new_zeros(sum(sizes)).index_copy_(0, places, order)  # what is put in is some token; nobody reads it
    rows = _TakeRows.apply(x, taken, back, top_k)
    pieces = rows.split(sizes)
    outputs = [_run(original, pieces[0], checkpoint=checkpoint).to(x.dtype)]
    for stack, piece, count in zip(stacks, pieces[1:], counts, strict=True):
        grouped = partial(stack.grouped, lean=checkpoint is None)
        outputs.append(_run(grouped, piece, count, checkpoint=checkpoint).to(x.dtype))
    # Undo the sort and sum each token's K rows: no index_add, so the same result every time.
    unsorted = _PutBack.apply(torch.cat(outputs), back).view(num_tokens, top_k, -1)
    return (unsorted * routing.expert_weights.unsqueeze(-1)).sum(1).to(x.dtype)


def _rows_at_once(x: torch.Tensor) -> int:
    """Return what the rows of each expert are rounded up to.

    In bf16 a processor's products are compiled for their sizes (oneDNN), some milliseconds each. How many tokens an
    expert gets is another number every time, so hardly any product would find its code (docs/performance.md).
    """
    return 32 if x.device.type == "cpu" and _compute_dtype(x) == torch.bfloat16 else 1


class _TakeRows(torch.autograd.Function):
    """Put K copies of every row in an order, with others put in; its gradient takes them back, not adding by index.

    Torch does not know that no row is taken more than K times, so the gradient of `x[order]` adds row by row.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, taken: torch.Tensor, back: torch.Tensor, repeats: int) -> torch.Tensor:
        ctx.save_for_backward(back)
        ctx.repeats = repeats
        return x.index_select(0, taken // repeats)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        grad = grads[0].index_select(0, back)
        return grad.view(-1, ctx.repeats, grad.shape[-1]).sum(1), None, None, None


class _PutBack(torch.autograd.Function):
    """Take the rows at places that differ; the gradient of all other rows is 0."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(places)
        ctx.num_rows = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (places,) = ctx.saved_tensors
        return grads[0].new_zeros(ctx.num_rows, grads[0].shape[-1]).index_copy_(0, places, grads[0]), None
