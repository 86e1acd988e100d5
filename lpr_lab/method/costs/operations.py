"""How many floating-point operations a token takes, in a forward pass and in a step of either stage.

With N the parameters of all matrix products (head included), F those of all feed-forward blocks, A what attention
scores take, v the experts a token visits and n how many of those are new ones, both averaged over layers:

    forward            2 (N + (v - 1) F) + A
    backward, inputs   the same again, with the scores twice
    backward, weights  2 per parameter that learns and was used

Frozen weights have no third part. That is why an expansion of twice the width costs less than twice the step.
Routers, norms and the optimiser are left out: under one per cent of the products of any model that is used.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """What a dense model's arithmetic depends on."""

    matrices: int
    """N: parameters of all matrix products, the head included, whether tied or not."""
    feed_forward: int
    """F: those of all feed-forward blocks."""
    scores: float
    """A: operations of attention scores per token, forward, for blocks of the length that was asked for."""


def forward(of: Sizes, visited: float = 1.0) -> float:
    """Return operations per token of a forward pass."""
    return 2.0 * (of.matrices + (visited - 1) * of.feed_forward) + of.scores


def dense_step(of: Sizes) -> float:
    """Return operations per token of full fine-tuning: 6 N, and the scores three times."""
    return 6.0 * of.matrices + 3 * of.scores


def expand_step(of: Sizes, visited: float, new: float) -> float:
    """Return operations per token of stage 1: forward, the way back to the inputs, and the new experts' weights."""
    return 2 * forward(of, visited) + of.scores + 2.0 * new * of.feed_forward


def review_step(of: Sizes, visited: float) -> float:
    """Return operations per token of stage 2: forward and the way back; routers are next to nothing."""
    return 2 * forward(of, visited) + of.scores
