"""Learning-rate schedule: linear warm-up whose first step already learns, then half a cosine."""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR


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


def make_scheduler(optimizer: torch.optim.Optimizer, num_steps: int, warmup_fraction: float, final: float) -> LambdaLR:
    """Return the schedule of every group of an optimizer."""
    warmup = math.ceil(warmup_fraction * num_steps)
    return LambdaLR(optimizer, lambda step: rate_at(step, num_steps, warmup, final))
