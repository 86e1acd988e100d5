"""Detects divergence: the loss stays above its start, or gradient norms stay far above the clipping threshold."""

import statistics
from dataclasses import dataclass, field
from typing import Any

IN_A_ROW = 4
"""A single step may be hard text; so many in a row are not."""
RISE = 1.25
"""How far above the start: with small batches of several languages, sound steps vary by a fifth (docs/log.md)."""
EARLY = 8
"""After so many steps a stage knows better where it began than by its first batch, which may have been an easy one."""
CLIPS = 30.0
"""Gradient norms in multiples of `max_grad_norm`..."""
GROWTH = 5.0
"""... and of the first step's norm: on some bases sound training begins at 75 times the clip (docs/log.md)."""


@dataclass
class Divergence:
    """What is known of a stage so far, in plain values that a checkpoint keeps.

    Attributes:
        first: loss and gradient norm of the first step, which no update has touched.
        early: losses of the first `EARLY` steps, as far as they are sound.
        recent: losses of the last steps, no more than `IN_A_ROW`.
        wild: how many steps in a row had a gradient norm far beyond the clip and the first.
        diverged: the `step` at which it was noticed, `why`, and the step by which it had `recovered`, if it did;
            None while all is well.
    """

    first: list[float] = field(default_factory=list)
    early: list[float] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    wild: int = 0
    diverged: dict[str, Any] | None = None

    def update(self, step: int, loss: float, grad_norm: float, max_grad_norm: float) -> bool:
        """Take in one step; returns whether it is the one at which divergence is noticed.

        Args:
            step: counted from 1.
            loss: the whole loss of the step, finite.
            grad_norm: before clipping.
            max_grad_norm: the clip.
        """
        if not self.first:
            self.first = [loss, grad_norm]
        if len(self.early) < EARLY and self.diverged is None:
            self.early = [*self.early, loss]
        start, start_norm = self.start, self.first[1]
        self.recent = [*self.recent, loss][-IN_A_ROW:]
        self.wild = self.wild + 1 if grad_norm > max(CLIPS * max_grad_norm, GROWTH * start_norm) else 0
        if self.diverged is not None:
            if self.is_diverging and statistics.mean(self.recent) <= start:
                self.diverged["recovered"] = step
            return False
        if len(self.recent) == IN_A_ROW and min(self.recent) > RISE * start:
            why = f"for {IN_A_ROW} steps the loss was over {RISE:g} times its start ({start:.3g}), now {loss:.3g}"
        elif self.wild >= IN_A_ROW:
            why = f"for {IN_A_ROW} steps gradient norms were over {CLIPS:g} times the clip, now {grad_norm:.3g}"
        else:
            return False
        self.diverged = {"step": step, "why": why, "recovered": None}
        return True

    @property
    def start(self) -> float:
        """The loss that the stage began with: of the first step, or later the median of the early ones where higher."""
        known = [statistics.median(self.early)] if len(self.early) == EARLY else []
        return max([self.first[0], *known])

    @property
    def is_diverging(self) -> bool:
        """Whether it was noticed, and the loss has not come back since."""
        return self.diverged is not None and self.diverged["recovered"] is None
