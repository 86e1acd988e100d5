"""Token budget, batch sizes and optimiser hyperparameters of a training stage. Torch-free.

`training.TrainSettings` is this with what concerns only how a machine computes it.
"""

import math
from dataclasses import dataclass

from lpr_lab.errors import UsageError

_ABOVE_0 = "above 0", lambda value: 0 < value < math.inf
_SHARE = "from 0 to 1", lambda value: 0 <= value <= 1
_RANGES = {
    **dict.fromkeys(("tokens", "block_tokens", "blocks_per_step", "max_grad_norm"), _ABOVE_0),
    **dict.fromkeys(("learning_rate", "router_learning_rate"), _ABOVE_0),
    **dict.fromkeys(("warmup_fraction", "final_learning_rate_fraction"), _SHARE),
    "weight_decay": ("0 or more", lambda value: 0 <= value < math.inf),
    "adam_beta2": ("from 0 to below 1", lambda value: 0 <= value < 1),
}


@dataclass(frozen=True, kw_only=True)
class StageBudget:
    """How much one training stage may take, and how it learns."""

    tokens: int
    """Token budget, padding included."""
    max_minutes: float | None = None
    """Wall-clock cap over all sessions of the stage; it ends cleanly with a checkpoint."""
    block_tokens: int = 256
    """S, tokens of a packed block (1,024 in the papers' stage 1, 512 in stage 2)."""
    blocks_per_step: int = 4
    """Blocks of one optimiser step over all ranks (512 in the papers)."""
    blocks_per_forward: int | None = None
    """Blocks that fit into memory at once; the rest is gradient accumulation. None: the most up to 4 that divides a
    step. Halved when memory runs out. It changes no result, unless load balancing is counted per micro-batch."""
    learning_rate: float | None = None
    """Peak learning rate of experts, and of all that is no router; None for what suits the base (see
    `model.bases.embedded.learning_rates`). 5e-5 in the papers, with 45,000 steps."""
    router_learning_rate: float | None = None
    """Peak learning rate of routers and routing classifiers; None for what suits the base (the papers use one rate for
    all)."""
    warmup_fraction: float = 0.05
    """Share of the steps over which the learning rate rises to its peak (none in the papers' code)."""
    final_learning_rate_fraction: float = 0.1
    """What the cosine ends at, as a share of the peak (0 in the papers)."""
    weight_decay: float = 0.0
    adam_beta2: float = 0.95
    """Decay of AdamW's second moment. A few dozen steps need it short; 0.999 in the papers' code."""
    max_grad_norm: float = 1.0
    """Gradients of a larger norm are scaled down to it."""

    def __post_init__(self) -> None:
        for name, (expected, is_inside) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not is_inside(value):
                raise UsageError(f"{name} = {value}; expected a number, {expected}.")
        if self.blocks_per_forward is not None and self.blocks_per_step % self.blocks_per_forward:
            raise UsageError(
                f"blocks_per_step = {self.blocks_per_step} is not a multiple of blocks_per_forward = "
                f"{self.blocks_per_forward}."
            )
        if self.tokens < self.block_tokens * self.blocks_per_step:
            raise UsageError(
                f"tokens = {self.tokens} is less than one step of {self.blocks_per_step} x {self.block_tokens} tokens."
            )

    @property
    def num_steps(self) -> int:
        """Optimiser steps that the token budget pays for."""
        return self.tokens // (self.block_tokens * self.blocks_per_step)
