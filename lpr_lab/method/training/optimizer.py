"""AdamW with a rate of its own for routers, and the schedule: linear warm-up, then half a cosine."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from lpr_lab.method.training.train import TrainSettings


def rate_at(step: int, num_steps: int, warmup_steps: int, final: float) -> float:
    """Return the share of the peak rate at which a step learns.

    Step s of W warm-up steps learns at (s + 1) / W, so none is thrown away. The rest is the schedule of transformers'
    `cosine_with_min_lr`, which with W = 0 is all there is, as in the papers' code.

    Args:
        step: counted from 0.
        num_steps: of the stage.
        warmup_steps: W.
        final: the share that the cosine ends at, after the last step.

    >>> [round(rate_at(step, 8, 2, 0.1), 2) for step in range(9)]
    [0.5, 1.0, 1.0, 0.94, 0.78, 0.55, 0.33, 0.16, 0.1]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def make_scheduler(optimizer: torch.optim.Optimizer, settings: "TrainSettings") -> LambdaLR:
    """Return the schedule of every group of an optimizer."""
    num_steps, final = settings.num_steps, settings.final_learning_rate_fraction
    warmup = math.ceil(settings.warmup_fraction * num_steps)
    return LambdaLR(optimizer, lambda step: rate_at(step, num_steps, warmup, final))


def make_optimizer(named: Sequence[tuple[str, torch.nn.Parameter]], settings: "TrainSettings") -> torch.optim.AdamW:
    """Return AdamW over what learns, routers and routing classifiers at their own rate.

    Fused: one pass over each tensor instead of a dozen, a fifth of the time on a processor (docs/performance.md).
    """
    routes = [(n, p) for n, p in named if "moe_lpr_router" in n or "moe_lpr_classifier" in n]
    computes = [(n, p) for n, p in named if "moe_lpr_router" not in n and "moe_lpr_classifier" not in n]
    rates = [(computes, settings.learning_rate), (routes, settings.router_learning_rate)]
    groups = [{"params": members, "lr": rate} for members, rate in rates if members]
    betas = (0.9, settings.adam_beta2)
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, betas=betas, fused=True)


def named_parameters(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return by name the parameters of an optimizer that was built from (name, parameter) pairs, in its order."""
    return {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
