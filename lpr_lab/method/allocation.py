"""How many new experts each layer gets.

MoE-LPR gives every layer the same number (`uniform`). LayerMoE gives a layer more, the less alike languages look in it
(`allocate`); any other score of layers divides a budget as well (`scores`). A list of numbers is an allocation too. No
torch here: plans are made wherever a similarity or scores are at hand.

Letters: L layers.
"""

import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from lpr_lab.errors import UsageError, one_of
from lpr_lab.method.scores.table import LayerScores
from lpr_lab.method.similarity_table import SimilarityTable

RULES = ("largest_remainder", "round_up", "round_up_added")


def _shuffled(similarity: Sequence[float], seed: int) -> list[int]:
    layers = list(range(len(similarity)))
    random.Random(seed).shuffle(layers)
    return layers


ORDERS: dict[str, Callable[[Sequence[float], int], Iterable[int]]] = {
    "similarity": lambda similarity, seed: sorted(range(len(similarity)), key=lambda layer: similarity[layer]),
    "inverse": lambda similarity, seed: sorted(range(len(similarity)), key=lambda layer: -similarity[layer]),
    "first": lambda similarity, seed: range(len(similarity)),
    "last": lambda similarity, seed: reversed(range(len(similarity))),
    "random": _shuffled,
}
"""Which layers get more of the budget: given each layer's similarity and a seed, the layers, largest share first. Of
scores, an order is given one over the score."""
OWN = "similarity"
"""The order that is not a control: by what was measured."""
_LAST = Fraction(1, 10**12)
"""The share of a layer without a score, beside the smallest share of all others: it comes after them."""

Number = TypeVar("Number", int, Fraction)


@dataclass(frozen=True)
class Allocation:
    """New experts per decoder layer.

    Attributes:
        new_experts: length L; 0 leaves a layer dense. Expert 0, the original, is not counted.
    """

    new_experts: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(not isinstance(count, int) or count < 0 for count in self.new_experts):
            raise UsageError(f"An allocation is one whole number >= 0 per layer; got {self.new_experts}.")
        if not sum(self.new_experts):
            raise UsageError("The allocation adds no expert to any layer; give at least one layer one new expert.")

    @property
    def total(self) -> int:
        """New experts over all layers."""
        return sum(self.new_experts)

    def parameters(self, parameters_per_expert: Sequence[int]) -> int:
        """Return how many parameters the new experts have, given those of one expert of each layer."""
        return sum(count * size for count, size in zip(self.new_experts, parameters_per_expert, strict=True))


def uniform(num_layers: int, per_layer: int = 1) -> Allocation:
    """Give every layer the same number of new experts (MoE-LPR; 5 in the paper's main experiments).

    >>> uniform(3, per_layer=2).new_experts
    (2, 2, 2)
    """
    if num_layers < 1 or per_layer < 1:
        raise UsageError(f"Expected at least one layer and one new expert, got {num_layers} and {per_layer}.")
    return Allocation((per_layer,) * num_layers)


def allocate(
    similarity: SimilarityTable | LayerScores | Sequence[float],
    budget: float,
    rule: str = "largest_remainder",
    *,
    min_new: int = 0,
    max_new: int | None = None,
    by: str | None = None,
    parameters_per_expert: Sequence[int] | None = None,
    seed: int = 0,
) -> Allocation:
    """Divide a budget of new experts over the layers, in inverse proportion to similarity (LayerMoE) or by a score.

    >>> allocate([0.2, 0.4, 0.4, 0.2], budget=6).new_experts
    (2, 1, 1, 2)
    >>> allocate(LayerScores(kind="gradient", values=(3, 1, 0)), budget=4).new_experts
    (3, 1, 0)
    >>> allocate([0.2, 0.4, 0.4, 0.2], budget=6, max_new=1)
    Traceback (most recent call last):
    lpr_lab.errors.UsageError: A budget of 6 does not fit 4 layers with 0 to 1 new experts each, which take 0 to 4.

    Args:
        similarity: from `measure_similarity`, or one number > 0 per layer; or `LayerScores`, in proportion to which the
            budget is divided.
        budget: new experts in all, a whole number; with `parameters_per_expert`, parameters; for the round-up rules,
            the paper's delta.
        rule: `largest_remainder` spends a budget of experts exactly. `round_up` is the paper's formula,
            `ceil(share · delta)`, which counts expert 0 and comes to about delta + L/2 in all. `round_up_added` takes
            the same value as the number of *new* experts, as the paper does in a second expansion.
        min_new: every layer gets at least so many new experts.
        max_new: and at most so many; None for no limit.
        by: what was measured (`similarity`, or the kind of the scores), which is also meant by None; or a control that
            gives the same shares to other layers: `inverse` the largest to the most similar layer or that of the lowest
            score, `first` and `last` the largest to the first or last layer, `random` in random order.
        parameters_per_expert: parameters of one new expert, per layer (`SimilarityTable.expert_parameters`). The
            budget is then in parameters, and at most it is spent: what is left would not pay for one more expert in
            any layer that was rounded down.
        seed: for `by="random"`.

    Returns:
        An `Allocation`. Of two layers with the same expert size the less similar one never gets fewer; equally similar
        ones differ by at most one, in favour of the earlier.

    Raises:
        UsageError: a similarity that is not positive, a budget that does not fit, an unknown rule or control, or one
            that is by something else than was measured.
    """
    one_of("rule", rule, RULES)
    if min_new < 0 or (max_new is not None and max_new < min_new):
        raise UsageError(f"min_new = {min_new} and max_new = {max_new}; expected 0 <= min_new <= max_new.")
    shares = _shares(similarity, by, seed)
    if rule == "largest_remainder":
        return Allocation(_largest_remainder(shares, budget, min_new, max_new, parameters_per_expert))
    if parameters_per_expert is not None:
        raise UsageError(f"rule = {rule!r} has the paper's delta as its budget; drop parameters_per_expert.")
    if not 0 < budget < math.inf:
        raise UsageError(f"budget = {budget}; expected the paper's delta, a number above 0.")
    counted = 1 if rule == "round_up" else 0
    counts = [math.ceil(share * Fraction(budget)) - counted for share in shares]
    return Allocation(tuple(_clamp(count, min_new, max_new) for count in counts))


def delta_for(
    similarity: SimilarityTable | LayerScores | Sequence[float],
    budget: int,
    rule: str = "round_up",
    *,
    by: str | None = None,
    seed: int = 0,
) -> float:
    """Return a delta whose rounding up comes to a budget of new experts.

    The papers' own totals are such: 3 per layer, expert 0 counted, on Qwen1.5-1.8B and on Llama-3.2-3B. Some layers
    step up together, such as those that are exactly as alike, so a budget can lie between two totals; then the lower is
    meant.

    >>> allocate([0.2, 0.4, 0.1], delta_for([0.2, 0.4, 0.1], 8), "round_up").new_experts
    (2, 1, 5)

    Args:
        similarity: as for `allocate`.
        budget: new experts in all.
        rule: `round_up` (expert 0 is counted in every layer) or `round_up_added`.
        by: as for `allocate`.
        seed: as for `allocate`.

    Raises:
        UsageError: fewer than rounding up gives at least.
    """
    shares = _shares(similarity, by, seed)
    wanted = budget + (len(shares) if rule == "round_up" else 0)
    # Just above 0 every layer counts one expert; a layer goes from k to k + 1 just above delta = k / share.
    total, low = len(shares), Fraction(0)
    coming = [(1 / share, 1, share) for share in shares]
    heapq.heapify(coming)
    least = sum(step == coming[0][0] for step, _, _ in coming) if rule == "round_up" else total
    if budget < least:
        raise UsageError(
            f"A budget of {budget} is too small: rounding up adds {least} experts or more to these layers."
        )
    delta = float(low)
    while True:
        high = coming[0][0]
        together = sum(step == high for step, _, _ in coming)
        delta = _float_between(low, high) or delta
        if total + together > wanted:
            return delta
        for _ in range(together):
            _, count, share = coming[0]
            heapq.heapreplace(coming, ((count + 1) / share, count + 1, share))
        total, low = total + together, high


def _float_between(low: Fraction, high: Fraction) -> float | None:
    """Return a float above `low` and at most `high`; None where they are so close that there is none."""
    middle = float((low + high) / 2)
    near = (middle, math.nextafter(middle, math.inf), math.nextafter(middle, 0))
    return next((value for value in near if low < Fraction(value) <= high), None)


def _shares(similarity: SimilarityTable | LayerScores | Sequence[float], by: str | None, seed: int) -> list[Fraction]:
    """Return each layer's share of the budget, in exact arithmetic: a tie is then a tie.

    Of scores that is the share of their sum; similarity S_i has the score 1/S_i.
    """
    has_scores = isinstance(similarity, LayerScores)
    own, scores = (similarity.kind, _of_scores(similarity)) if has_scores else (OWN, _of_similarity(similarity))
    by = own if by is None else by
    one_of("by", by, (own, *(name for name in ORDERS if name != OWN)), f"What was measured is {own}.")
    total = sum(scores)
    shares = [score / total for score in scores]
    layers = ORDERS[OWN if by == own else by]([float(1 / score) for score in scores], seed)
    return [share for _, share in sorted(zip(layers, sorted(shares, reverse=True), strict=True))]


def _of_similarity(similarity: SimilarityTable | Sequence[float]) -> list[Fraction]:
    given = similarity.similarity if isinstance(similarity, SimilarityTable) else similarity
    values = [float(value) for value in given]
    wrong = [f"layer {layer}: {value:.4g}" for layer, value in enumerate(values) if not 0 < value < math.inf]
    if wrong or not values:
        raise UsageError(
            f"Experts are divided in proportion to 1 / similarity, so every layer needs one above 0; got "
            f"{', '.join(wrong) or 'none'}. Measure more tokens, another state, or give the allocation as a list."
        )
    return [1 / Fraction(value) for value in values]


def _of_scores(scores: LayerScores) -> list[Fraction]:
    """Return scores above 0: one that is not becomes a very small one, so that a layer without any comes last."""
    least = _LAST * min(Fraction(value) for value in scores.values if value > 0)
    return [max(Fraction(value), least) for value in scores.values]


def _largest_remainder(
    shares: Sequence[Fraction], budget: float, least: int, most: int | None, sizes: Sequence[int] | None
) -> tuple[int, ...]:
    """Scale shares until they cost the budget within floor and ceiling; round down; go on by largest remainder."""
    left = _checked_budget(budget, len(shares), least, most, sizes)
    sizes = [1] * len(shares) if sizes is None else sizes
    wanted = _quotas(shares, left, least, most, sizes)
    counts = [math.floor(quota) for quota in wanted]
    left -= sum(count * size for count, size in zip(counts, sizes, strict=True))
    for layer in sorted(range(len(shares)), key=lambda layer: counts[layer] - wanted[layer]):  # stable: earlier first
        if counts[layer] < wanted[layer] and sizes[layer] <= left:
            counts[layer] += 1
            left -= sizes[layer]
    return tuple(counts)


def _quotas(
    shares: Sequence[Fraction], budget: int, least: int, most: int | None, sizes: Sequence[int]
) -> list[Fraction]:
    """Return experts per layer, not yet whole: `scale · share` within floor and ceiling, costing the budget in all."""

    def quotas(scale: Fraction) -> list[Fraction]:
        return [_clamp(scale * share, Fraction(least), None if most is None else Fraction(most)) for share in shares]

    def cost(scale: Fraction) -> Fraction:
        return sum((size * quota for size, quota in zip(sizes, quotas(scale), strict=True)), Fraction(0))

    # The cost grows with the scale in straight pieces that meet where a layer reaches its floor or its ceiling.
    ceiling = budget if most is None else most  # one layer's quota never exceeds what the budget buys
    corners = sorted({Fraction(bound) / share for share in shares for bound in (least, ceiling)})
    after = bisect_right(corners, budget, key=cost)
    scale = corners[after - 1]
    if after < len(corners):
        slope = (cost(corners[after]) - cost(scale)) / (corners[after] - scale)
        scale += (budget - cost(scale)) / slope
    return quotas(scale)


def _checked_budget(budget: float, num_layers: int, least: int, most: int | None, sizes: Sequence[int] | None) -> int:
    """Return the budget as a whole number that floor and ceiling leave room for, or refuse it with the numbers."""
    if not math.isfinite(budget) or budget != int(budget):
        raise UsageError(f"budget = {budget}; expected a whole number.")
    budget = int(budget)
    if sizes is not None and (len(sizes) != num_layers or min(sizes) < 1):
        raise UsageError(
            f"parameters_per_expert is {list(sizes)}; expected a number above 0 for each of {num_layers} layers."
        )
    unit = "" if sizes is None else " parameters"
    cheapest, all_layers = (1, num_layers) if sizes is None else (min(sizes), sum(sizes))
    lowest, highest = least * all_layers, math.inf if most is None else most * all_layers
    if budget < cheapest:
        raise UsageError(f"A budget of {budget:,}{unit} pays for no expert; one takes {cheapest:,}{unit} or more.")
    # A budget in parameters is one to stay below; one in experts is spent to the last.
    if budget < lowest or (sizes is None and budget > highest):
        each = f"{least} or more" if most is None else f"{least} to {most}"
        room = f"{lowest:,} or more" if most is None else f"{lowest:,} to {highest:,}"
        raise UsageError(
            f"A budget of {budget:,}{unit} does not fit {num_layers} layers with {each} new experts each, "
            f"which take {room}{unit}."
        )
    return budget


def _clamp(value: Number, least: Number, most: Number | None) -> Number:
    value = max(value, least)
    return value if most is None else min(value, most)
