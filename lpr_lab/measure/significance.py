"""Decides whether a difference is better, worse or not clear, for every page, table, notebook and command.

The evidence is the 95 % interval of a *paired* difference: both sides measured on the same documents, or with the same
seeds. Where it contains 0, or none can be had, there is no clear difference, and nobody is named the winner.

Intervals over documents are those of Student's t with the standard error of a paired bootstrap. Plain percentiles of
the bootstrap are too narrow with few documents, which the tests show. Over seeds it is Student's t as well, over
judgements the exact binomial interval of Clopper and Pearson.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

CONFIDENCE = 0.95
_NORMAL = 1.959964
"""Half the width of that interval in standard errors, of a normal distribution."""
_MIN_PAIRS = 5
BETTER, WORSE, UNCLEAR = "better", "worse", "no clear difference"
NOT_WORSE = "not worse"
"""What a clear fall from the base is called on an original language."""
ADAPTATION = (
    "A small fall on original languages is the model adapting to this kind of text, not a gain, and it can hide "
    "forgetting: only a control tells the two apart."
)


@dataclass(frozen=True)
class Difference:
    """A paired difference and its 95 % interval, whose ends are NaN or infinite where none can be had."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known and finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def direction(self) -> int:
        """1 where it is clearly above 0, -1 where it is clearly below, 0 where it is neither."""
        return direction(self.low, self.high)

    def verdict(self, *, less_is_better: bool = True) -> str:
        """Return `better`, `worse` or `no clear difference`."""
        return verdict(self.low, self.high, less_is_better=less_is_better)


NOT_PAIRED = Difference(math.nan)
"""Two numbers that were not measured on the same documents, or not document by document."""


def direction(low: float | None, high: float | None) -> int:
    """Return the sign of a difference by its interval; 0 where that contains 0 or is not known.

    >>> direction(0.2, 0.9), direction(-3.0, -1.0), direction(-0.5, 0.5), direction(None, None), direction(0.0, 1.0)
    (1, -1, 0, 0, 0)
    """
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return 0
    return 1 if low > 0 else -1 if high < 0 else 0


def verdict(low: float | None, high: float | None, *, less_is_better: bool = True) -> str:
    """Name a difference by its 95 % interval.

    >>> verdict(-3.0, -1.0), verdict(-0.5, 0.5), verdict(0.2, 0.9), verdict(None, None)
    ('better', 'no clear difference', 'worse', 'no clear difference')
    """
    sign = direction(low, high)
    if not sign:
        return UNCLEAR
    return BETTER if (sign < 0) == less_is_better else WORSE


def change_of(row: Mapping[Any, Any]) -> Difference:
    """Return the change in a row of a table of changes: `change_percent`, `ci_low`, `ci_high`, which may be missing."""
    return Difference(*(_number(row.get(key)) for key in ("change_percent", "ci_low", "ci_high")))


def change_verdict(row: Mapping[Any, Any], *, from_base: bool) -> str:
    """Name the change of one language, a row of a table of changes with its `role`.

    From the base to an expanded model, a clear fall on an original language is `not worse` and never `better`: what was
    asked is whether it was forgotten, and a base that meets plain text gets better at it in any language.

    >>> fell = {"change_percent": -0.7, "ci_low": -0.9, "ci_high": -0.5}
    >>> [change_verdict({**fell, "role": role}, from_base=True) for role in ("expanded", "original")]
    ['better', 'not worse']
    """
    word = change_of(row).verdict()
    return NOT_WORSE if from_base and word == BETTER and row.get("role") == "original" else word


def mean_change(rows: Iterable[Mapping[Any, Any]]) -> Difference:
    """Return the mean change over languages and its interval, from the rows of a table of changes.

    Every language has documents of its own, so their errors are independent: half widths add as squares.
    """
    changes = [change_of(row) for row in rows]
    if not changes:
        return NOT_PAIRED
    mean = sum(change.value for change in changes) / len(changes)
    below, above = (
        math.sqrt(sum((change.value - end) ** 2 for change, end in ends)) / len(changes)
        for ends in ([(c, c.low) for c in changes], [(c, c.high) for c in changes])
    )
    return Difference(mean, mean - below, mean + above)


def clear_best(count: int, difference: Callable[[int, int], Difference], *, less_is_better: bool = True) -> int | None:
    """Return which of several is clearly better than every other, or None.

    Args:
        count: how many there are.
        difference: of (one, other): the first minus the second, paired.
        less_is_better: whether a negative difference speaks for the first.
    """
    for one in range(count):
        others = [other for other in range(count) if other != one]
        if others and all(difference(one, o).verdict(less_is_better=less_is_better) == BETTER for o in others):
            return one
    return None


# ------------------------------------------------------------------------------------------------------ intervals


def resample(fingerprint: str, size: int, resamples: int, seed: int) -> np.ndarray:
    """Return indices of the documents (or items) of each bootstrap resample, int [resamples, size].

    One generator per test set, so that adding a language does not move the intervals of the others.

    Args:
        fingerprint: hexadecimal, of the test set.
        size: how many documents it has.
        resamples: how often they are drawn.
        seed: of the drawing.
    """
    return np.random.default_rng([seed, int(fingerprint[:8], 16)]).integers(0, size, (resamples, size))


def bootstrap_interval(resampled: np.ndarray, size: int) -> tuple[float, float]:
    """Return the 95 % interval of a statistic from its bootstrap; of a single document it is without bounds.

    Args:
        resampled: the statistic in every resample, float [resamples].
        size: how many documents were resampled; of several sets, the smallest number. A bootstrap of n documents has a
            variance that is too small by (n - 1) / n.
    """
    if size < 2:
        return -math.inf, math.inf
    mean, error = float(resampled.mean()), float(resampled.std()) * math.sqrt(size / (size - 1))
    half = student_quantile(0.5 + CONFIDENCE / 2, size - 1) * error
    return mean - half, mean + half


def student_interval(values: np.ndarray) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, and the ends of the interval of the mean; NaN for what cannot be said."""
    if len(values) < 2:
        return (float(values[0]) if len(values) else math.nan), math.nan, math.nan, math.nan
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    half = student_quantile(0.5 + CONFIDENCE / 2, len(values) - 1) * sd / math.sqrt(len(values))
    return mean, sd, mean - half, mean + half


@cache
def student_quantile(probability: float, freedom: int) -> float:
    """Return a quantile above one half of Student's t distribution.

    With t = sqrt(freedom) tan(angle) the density becomes a power of the cosine, which a plain sum integrates to six
    digits; it saves a dependency on a library of statistics.

    Args:
        probability: in (0.5, 1).
        freedom: degrees of freedom, at least 1.
    """
    angle = np.linspace(0.0, math.pi / 2, 200_001)
    density = np.cos(angle) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(2 * probability - 1, area / area[-1], angle)))


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation; equal values share the mean of their ranks, and constants have none (NaN).

    >>> rank_correlation([1, 2, 3], [10, 30, 20]), rank_correlation([1, 1, 2], [1, 1, 3])
    (0.5, 1.0)
    """
    ranks = np.stack([_ranks(np.asarray(values, dtype=float)) for values in (one, other)])
    if (ranks.std(axis=1) == 0).any():
        return math.nan
    return round(float(np.corrcoef(ranks)[0, 1]), 10)


def rank_correlation_interval(one: Sequence[float], other: Sequence[float]) -> Difference:
    """Return Spearman's rank correlation with its 95 % interval over what the pairs are a sample of.

    The interval is Fisher's, with the standard error of Bonett and Wright (2000); fewer than five pairs have none, and
    neither has a perfect order, of which it would say that no other was possible.

    >>> found = rank_correlation_interval(range(20), [*range(18), 19, 18])
    >>> found.low > 0.9
    True
    """
    correlation, pairs = rank_correlation(one, other), len(one)
    if pairs < _MIN_PAIRS or math.isnan(correlation) or abs(correlation) == 1:
        return Difference(correlation)
    error = math.sqrt((1 + correlation**2 / 2) / (pairs - 3))
    middle, half = math.atanh(correlation), _NORMAL * error
    return Difference(correlation, math.tanh(middle - half), math.tanh(middle + half))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[where]


def share_interval(wins: int, total: int) -> tuple[float, float]:
    """Return the exact 95 % interval of a share (Clopper and Pearson); it excludes one half where the sign test does.

    >>> [round(end, 3) for end in share_interval(9, 10)], share_interval(0, 0)
    ([0.555, 0.997], (0.0, 1.0))
    """
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if wins == 0 else _where(lambda share: _at_least(wins, total, share) >= tail)
    high = 1.0 if wins == total else _where(lambda share: 1 - _at_least(wins + 1, total, share) < tail)
    return low, high


def _at_least(wins: int, total: int, share: float) -> float:
    """Return the probability of so many wins or more, for a share inside (0, 1); by logarithms, for any total."""
    won = np.arange(wins, total + 1)
    ways = _log_factorials(total)[total] - _log_factorials(total)[won] - _log_factorials(total)[total - won]
    return float(np.exp(ways + won * math.log(share) + (total - won) * math.log1p(-share)).sum())


@cache
def _log_factorials(total: int) -> np.ndarray:
    return np.concatenate([[0.0], np.log(np.arange(1, total + 1)).cumsum()])


def _where(holds: Callable[[float], bool]) -> float:
    """Return where in [0, 1] a condition begins to hold."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
