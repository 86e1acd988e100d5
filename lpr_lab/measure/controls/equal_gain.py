"""Forgetting at equal gain: two ways of training are compared where they learned the same, not at the same rate.

A way of training is a curve: several models of it, trained with other rates or budgets, each a point of gain and
forgetting. Between two neighbouring points forgetting is taken to be a straight line in gain. Nothing is said of a gain
that no two points enclose. A rate so high that a lower one gained as much is no way to gain, and is left out: a line
from there to the others would make a method look worse than anyone would train it.

Intervals are of a bootstrap over documents: every resample moves the points of all curves together, because all were
scored on the same documents. They say nothing about other seeds. Numpy only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lpr_lab.errors import ComparisonRefusedError
from lpr_lab.measure.significance import Difference, bootstrap_interval, direction


@dataclass(frozen=True)
class GainPoint:
    """One model: what it gained and forgot, in per cent of its base's bits per byte, and the same in every resample.

    Attributes:
        name: of the model.
        gain: mean fall on expanded languages.
        forgetting: mean rise on original languages.
        gains: float [resamples].
        forgettings: float [resamples], of the same resamples.
        n_documents: of the smallest test set.
        rate: the learning rate it was trained at; NaN where that is not known.
        otherwise: of what it was made beside the rate; points that differ in the rate alone share it.
    """

    name: str
    gain: float
    forgetting: float
    gains: np.ndarray
    forgettings: np.ndarray
    n_documents: int
    rate: float = math.nan
    otherwise: str = ""


@dataclass(frozen=True)
class AtGain:
    """Forgetting of one way of training at a gain.

    Attributes:
        gain: at which, in per cent.
        forgetting: read off the line between two points, with its interval.
        between: the names of the two points; twice the same where a point has this very gain.
        resamples: forgetting in every resample, float [resamples]; None where the two points do not clearly differ in
            gain, so that the line between them has no direction.
    """

    gain: float
    forgetting: Difference
    between: tuple[str, str]
    resamples: np.ndarray | None


def before_the_turn(points: Sequence[GainPoint]) -> list[GainPoint]:
    """Return the points of a curve without those whose rate was too high: where a lower one gained no less."""
    return [
        point
        for point in points
        if not any(
            lower.otherwise == point.otherwise and lower.rate < point.rate and lower.gain >= point.gain
            for lower in points
        )
    ]


def common_gain(curves: Mapping[str, Sequence[GainPoint]]) -> tuple[float, float]:
    """Return the lowest and highest gain that every curve encloses.

    Raises:
        ComparisonRefusedError: there is none, with the range of each.
    """
    gains = {name: [point.gain for point in before_the_turn(points)] for name, points in curves.items()}
    spans = {name: (min(own), max(own)) for name, own in gains.items()}
    low, high = max(span[0] for span in spans.values()), min(span[1] for span in spans.values())
    if low > high:
        told = "; ".join(f"{name} from {span[0]:.2f} to {span[1]:.2f} %" for name, span in spans.items())
        raise ComparisonRefusedError(
            f"No gain was reached by all: {told}. Train the one that learned less for longer or at a higher rate, or "
            "the other for less; a line beyond the points would be a guess."
        )
    return low, high


def at_gain(points: Sequence[GainPoint], gain: float, name: str = "") -> AtGain:
    """Return forgetting at a gain, between the two points of a curve that enclose it.

    Args:
        points: of one curve, in any order.
        gain: in per cent.
        name: of the curve, for the error.

    Raises:
        ComparisonRefusedError: no two points enclose the gain.
    """
    order = sorted(before_the_turn(points), key=lambda point: (point.gain, point.forgetting))
    low, high = order[0].gain, order[-1].gain
    if not low <= gain <= high:
        raise ComparisonRefusedError(
            f"{name or 'These models'} gained {low:.2f} to {high:.2f} %, and forgetting at {gain:.2f} % was asked for. "
            "Beyond the points a line would be a guess: add a model with that gain."
        )
    for point in order:
        if point.gain == gain:
            own = _difference(point.forgetting, point.forgettings, point)
            return AtGain(gain, own, (point.name, point.name), point.forgettings)
    after = next(place for place, point in enumerate(order) if point.gain > gain)
    left, right = order[after - 1], order[after]
    value = left.forgetting + (gain - left.gain) / (right.gain - left.gain) * (right.forgetting - left.forgetting)
    apart = right.gains - left.gains
    smaller = min(left, right, key=lambda point: point.n_documents)
    if not direction(*bootstrap_interval(apart, smaller.n_documents)) or (apart <= 0).any():
        return AtGain(gain, Difference(value), (left.name, right.name), None)
    drawn = left.forgettings + (gain - left.gains) / apart * (right.forgettings - left.forgettings)
    return AtGain(gain, _difference(value, drawn, smaller), (left.name, right.name), drawn)


def difference_at_gain(one: Sequence[GainPoint], other: Sequence[GainPoint], gain: float) -> Difference:
    """Return by how many points the forgetting of one curve is above that of another at a gain, paired.

    Raises:
        ComparisonRefusedError: one of them does not enclose the gain.
    """
    mine, theirs = at_gain(one, gain), at_gain(other, gain)
    value = mine.forgetting.value - theirs.forgetting.value
    if mine.resamples is None or theirs.resamples is None:
        return Difference(value)
    count = min(point.n_documents for point in (*one, *other))
    return Difference(value, *bootstrap_interval(mine.resamples - theirs.resamples, count))


def _difference(value: float, resamples: np.ndarray, point: GainPoint) -> Difference:
    return Difference(value, *bootstrap_interval(resamples, point.n_documents))
