"""How unlike two texts are routed: Jensen-Shannon divergence of their weights on experts, and how much of it is chance.

Two texts are finite samples. Were both dealt from one pool of tokens, their mean weights would still differ a little:
a divergence is above 0 by chance, and the more so the fewer tokens there are. Two numbers to hold beside it: that of
the same tokens dealt to both texts at random, and that of the first and the second half of one text.

No torch here. Letters: L layers with a router, N tokens, E experts.
"""

from dataclasses import dataclass

import numpy as np

from lpr_lab.measure.trace import RoutingTrace


def jensen_shannon_bits(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence of distributions over the last axis, in bits: 0 where equal, at most 1.

    The mean of what each loses when it is described by the middle of both; 1 where they have nothing in common.

    >>> jensen_shannon_bits(np.array([1.0, 0.0]), np.array([0.0, 1.0])).item()
    1.0
    """
    middle = (p + q) / 2
    bits = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return np.clip(bits, 0.0, 1.0)  # rounding alone leads beyond


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the sum over the last axis of p log2(p / q), in bits; what has no probability adds nothing."""
    is_there = p > 0
    ratio = np.divide(p, q, out=np.ones(np.broadcast_shapes(p.shape, q.shape)), where=is_there)
    return (p * np.log2(ratio)).sum(axis=-1)


def token_weights(trace: RoutingTrace) -> np.ndarray:
    """Return the weight of every expert on every text token, float [N, L, E]; 0 for experts that were not chosen."""
    chosen, weights = trace.expert_ids[:, trace.is_text], trace.expert_weights[:, trace.is_text]
    dense = np.zeros((*chosen.shape[:2], int(trace.num_experts.max(initial=1))))
    rows, columns = np.indices(chosen.shape[:2])
    for slot in range(chosen.shape[2]):  # one by one: an expert may stand in two slots, once with weight 0
        dense[rows, columns, chosen[:, :, slot]] += weights[:, :, slot]
    return dense.transpose(1, 0, 2)


@dataclass(frozen=True)
class Divergence:
    """How unlike two texts are routed, layer by layer, in bits, each float [L].

    Attributes:
        bits: Jensen-Shannon divergence of the mean weights on experts.
        chance: the mean of it when the same tokens are dealt to the two texts at random.
        chance_high: what 95 % of such deals stay below; NaN where there was none.
    """

    bits: np.ndarray
    chance: np.ndarray
    chance_high: np.ndarray


def divergence(one: np.ndarray, other: np.ndarray, *, shuffles: int, seed: int) -> Divergence:
    """Return the divergence of two texts, and that of as many deals of their tokens at random.

    Args:
        one: weights on experts, float [N1, L, E].
        other: of the other text, float [N2, L, E].
        shuffles: how often to deal; 0 leaves chance unknown (NaN).
        seed: of the deals.
    """
    bits = jensen_shannon_bits(one.mean(axis=0), other.mean(axis=0))
    unknown = np.full(bits.shape, np.nan)
    if not shuffles:
        return Divergence(bits, unknown, unknown)
    pooled = np.concatenate([one, other])
    flat = pooled.reshape(len(pooled), -1)
    generator = np.random.default_rng(seed)
    is_first = np.arange(len(pooled)) < len(one)
    deals = generator.permuted(np.tile(is_first, (shuffles, 1)), axis=1).astype(float)
    first = deals @ flat
    shape = (shuffles, *pooled.shape[1:])
    mine = (first / len(one)).reshape(shape)
    theirs = np.maximum((flat.sum(axis=0) - first) / len(other), 0).reshape(shape)  # a difference of sums: rounding
    dealt = jensen_shannon_bits(mine, theirs)
    return Divergence(bits, dealt.mean(axis=0), np.quantile(dealt, 0.95, axis=0))


def between_halves(weights: np.ndarray) -> np.ndarray:
    """Return the divergence of the first and the second half of one text, in bits, float [L]; NaN of a single token.

    Neighbouring tokens are routed alike, which tokens dealt at random do not show. Halves are shorter than the texts
    that are compared, so theirs is more by chance.
    """
    half = len(weights) // 2
    if not half:
        return np.full(weights.shape[1], np.nan)
    return jensen_shannon_bits(weights[:half].mean(axis=0), weights[half:].mean(axis=0))
