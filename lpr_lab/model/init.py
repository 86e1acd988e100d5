"""Initialisation of new experts and routers.

`copy` with any router is the only start that leaves the model computing what it computed (MoE-LPR §2.2). The others are
there for ablations: the paper's own (`random`, its Table 2, "w/o expert-copy"), a little `noise` to break the symmetry
between copies, and Drop-Upcycling's `partial` re-initialisation (arXiv 2502.19261 §3).

Letters: n experts of a stack, D model width, F hidden width, E experts.
"""

import torch
from torch import nn

from lpr_lab.errors import UsageError, one_of
from lpr_lab.model.bases.families import MLPWeights
from lpr_lab.model.experts import ExpertStack
from lpr_lab.model.router import Router

EXPERT_INITS = {"copy": 0.0, "noise": 0.01, "random": 0.0, "partial": 0.5}
"""Initialisations of experts, each with its default amount: the noise relative to the spread of each matrix,
or the share of hidden channels that are drawn anew."""

ROUTER_INITS = ("xavier", "zero")


def check_init(expert_init: str, amount: float | None, router_init: str) -> None:
    """Refuse an unknown initialisation or an amount that makes no sense."""
    one_of("expert_init", expert_init, EXPERT_INITS)
    one_of("router_init", router_init, ROUTER_INITS, "Fit routers from text with lpr_lab.fit_routers after upcycling.")
    if amount is None:
        return
    if expert_init not in ("noise", "partial"):
        raise UsageError(f"expert_init = {expert_init!r} takes no amount; leave expert_init_amount out.")
    if not 0 < amount or (expert_init == "partial" and amount > 1):
        raise UsageError(f"expert_init_amount = {amount}; expected more than 0, and at most 1 for 'partial'.")


@torch.no_grad()
def init_experts(
    stack: ExpertStack, mlp: MLPWeights, how: str, amount: float | None, generator: torch.Generator
) -> None:
    """Fill a stack of new experts from the MLP they are made of.

    Args:
        stack: to fill.
        mlp: the base model's MLP of this layer.
        how: one of `EXPERT_INITS`.
        amount: see there; None for the default.
        generator: of everything random, on the CPU.
    """
    amount = EXPERT_INITS[how] if amount is None else amount
    stack.copy_from(mlp)
    if how == "copy":
        return
    for index in range(stack.num_experts):
        if how == "noise":
            for matrix in (stack.up[index], stack.down[index]):
                matrix.add_(_normal(matrix.shape, generator).to(matrix) * matrix.std() * amount)
        elif how == "random":
            _redraw(stack, index, torch.arange(stack.down.shape[-1]), generator)
        else:
            num_channels = stack.down.shape[-1]
            drawn = torch.randperm(num_channels, generator=generator)[: round(amount * num_channels)]
            _redraw(stack, index, drawn, generator)


def _redraw(stack: ExpertStack, index: int, channels: torch.Tensor, generator: torch.Generator) -> None:
    """Draw hidden channels anew, with the mean and spread that their weights had, matrix by matrix."""
    up, down = stack.up[index], stack.down[index]
    # A gated MLP keeps its gate rows first, its up rows second: a channel is one row of each and a column of `down`.
    for start in (0, len(up) // 2) if stack.gated else (0,):
        rows = (channels + start).to(up.device)
        up[rows] = _like(up[rows], generator)
    columns = channels.to(down.device)
    down[:, columns] = _like(down[:, columns], generator)


def _like(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return _normal(values.shape, generator).to(values) * values.std() + values.mean()


def _normal(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator)


@torch.no_grad()
def init_router(router: Router, how: str, generator: torch.Generator, earlier: Router | None = None) -> None:
    """Fill a router: the papers' Xavier-normal rows, or zeros.

    Args:
        router: [E, D], to fill.
        how: `xavier` or `zero`.
        generator: of the Xavier rows, on the CPU.
        earlier: a router of fewer experts whose rows are kept; only the rows after them start anew.
    """
    rows = torch.zeros(router.weight.shape)
    if how == "xavier":
        nn.init.xavier_normal_(rows, generator=generator)
    router.weight.copy_(rows)
    for other in (router.mean_weight, router.bias):
        if other is not None:
            other.zero_()
    if earlier is not None:
        kept = len(earlier.weight)
        for mine, theirs in zip(router.parameters(), earlier.parameters(), strict=True):
            mine[:kept] = theirs
