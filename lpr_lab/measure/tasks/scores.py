"""Tables of tasks: how often each model is right, beside chance, and how two models differ, paired. Torch-free.

A share has the exact interval of Clopper and Pearson. Two models answer the same items, so a difference of their shares
is about the items that exactly one of them gets right (McNemar), and its interval leaves 0 out where the exact sign
test does. The mean margin, which sees smaller differences, has an interval from resampling items, as documents have.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lpr_lab.measure.significance import (
    BETTER,
    NOT_WORSE,
    Difference,
    bootstrap_interval,
    resample,
    share_interval,
)
from lpr_lab.measure.tasks.kinds import TASKS

_OF_SET = ["task", "language", "role", "dataset"]
COLUMNS = [*_OF_SET, "model", "accuracy", "ci_low", "ci_high", "chance", "margin", "n_items"]
CHANGE_COLUMNS = [
    *_OF_SET, "before", "after", "change_points", "ci_low", "ci_high", "verdict",
    "margin_change", "margin_ci_low", "margin_ci_high", "chance", "n_items", "test_set",
]  # fmt: skip
ITEM_COLUMNS = [*_OF_SET, "test_set", "item", "model", "right", "margin"]
LEFT_OUT_COLUMNS = ["task", "language", "reason"]


@dataclass(frozen=True)
class ScoredItems:
    """One task in one language, and what each model made of each item.

    Attributes:
        task: one of `kinds.TASKS`.
        language: ISO 639-1 code.
        role: `original` or `expanded`.
        dataset: name of the split that the items are made from.
        fingerprint: SHA-256 over ids and texts of the items.
        ids: of the items.
        right: model -> whether it is right, bool [items].
        margins: model -> by how much, float [items] (see `kinds.Task.margin`); NaN where a task has none.
    """

    task: str
    language: str
    role: str
    dataset: str
    fingerprint: str
    ids: tuple[str, ...]
    right: dict[str, np.ndarray]
    margins: dict[str, np.ndarray] = field(default_factory=dict)

    def of_set(self) -> list[str]:
        """Return what tells this set from others, as the tables have it."""
        return [self.task, self.language, self.role, self.dataset]

    def draws(self, resamples: int, seed: int) -> np.ndarray:
        """Return item indices of each bootstrap resample, int [resamples, items]; the same for every model."""
        return resample(self.fingerprint, len(self.ids), resamples, seed)


@dataclass
class TaskReport:
    """What models made of tasks, and in which languages a task could not be made."""

    sets: list[ScoredItems]
    bootstrap: int = 1000
    seed: int = 0
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LEFT_OUT_COLUMNS))
    """Columns task, language, reason."""

    def to_frame(self) -> pd.DataFrame:
        """Return one row per task, language and model: share right with its exact interval, chance, mean margin."""
        rows = []
        for test in self.sets:
            for model, right in test.right.items():
                low, high = share_interval(int(right.sum()), len(right))
                margin = float(np.mean(test.margins[model])) if model in test.margins else math.nan
                row = [*test.of_set(), model, float(right.mean()), low, high, chance_of(test.task), margin, len(right)]
                rows.append(row)
        return pd.DataFrame(rows, columns=COLUMNS)

    def changes(self, before: str = "base", after: str = "expanded") -> pd.DataFrame:
        """Return the paired difference between two models per task and language, in points and in mean margin."""
        return change_rows(self.sets, before, after, self.bootstrap, self.seed)

    def items(self) -> pd.DataFrame:
        """Return one row per item and model: its id, whether it is right, and by how much; never its text."""
        rows = []
        for test in self.sets:
            for model, right in test.right.items():
                margins = test.margins.get(model, np.full(len(right), math.nan))
                for name, is_right, margin in zip(test.ids, right, margins, strict=True):
                    row = [*test.of_set(), test.fingerprint[:16], name, model, int(is_right), float(margin)]
                    rows.append(row)
        return pd.DataFrame(rows, columns=ITEM_COLUMNS)


def chance_of(task: str) -> float:
    """Return the chance level of a task in [0, 1]; NaN where it has none, or is one that we do not know."""
    chance = TASKS[task].chance if task in TASKS else None
    return math.nan if chance is None else chance


def scored_items(rows: pd.DataFrame) -> list[ScoredItems]:
    """Return the sets that `TaskReport.items` wrote; any two models of a set can then be compared, paired."""
    sets = []
    for key, part in rows.groupby([*_OF_SET, "test_set"], sort=False):
        by_model = {str(model): group for model, group in part.groupby("model", sort=False)}
        names = tuple(str(name) for name in next(iter(by_model.values()))["item"])
        right = {model: group["right"].to_numpy().astype(bool) for model, group in by_model.items()}
        margins = {model: group["margin"].to_numpy(dtype=float) for model, group in by_model.items()}
        margins = {model: values for model, values in margins.items() if not np.isnan(values).all()}
        task, language, role, dataset, fingerprint = (str(value) for value in key)
        sets.append(ScoredItems(task, language, role, dataset, fingerprint, names, right, margins))
    return sets


def change_rows(
    sets: Iterable[ScoredItems],
    before: str,
    after: str,
    resamples: int = 1000,
    seed: int = 0,
    *,
    from_base: bool | None = None,
) -> pd.DataFrame:
    """Return one row per set that both models answered: the difference of shares, in points, and of mean margins.

    Args:
        sets: what was answered.
        before: name of one model.
        after: name of the other.
        resamples: of the items, for the interval of margins.
        seed: of the resampling.
        from_base: whether `before` is the base (see `significance.change_verdict`); by its name, if not given.
    """
    from_base = before == "base" if from_base is None else from_base
    rows = []
    for test in sets:
        if not {before, after} <= set(test.right):
            continue
        old, new = test.right[before], test.right[after]
        points = share_difference(old, new)
        margin = _margin_difference(test, before, after, resamples, seed)
        rows.append(
            [
                *test.of_set(),
                float(old.mean()),
                float(new.mean()),
                100 * points.value,
                100 * points.low,
                100 * points.high,
                task_verdict(points, test.role, from_base=from_base),
                margin.value,
                margin.low,
                margin.high,
                chance_of(test.task),
                len(test.ids),
                test.fingerprint[:16],
            ]
        )
    return pd.DataFrame(rows, columns=CHANGE_COLUMNS)


def share_difference(before: np.ndarray, after: np.ndarray) -> Difference:
    """Return by how much the share of right answers differs, paired over the items, with an interval.

    It is how often exactly one of the two is right, times how one-sided that is. Both have an exact 95 % interval, and
    the ends are what these allow together: no narrower than 95 %, and 0 is outside where the exact sign test says so.

    Args:
        before: bool [items].
        after: the same items.

    >>> import numpy as np
    >>> same = np.array([True, False] * 20)
    >>> difference = share_difference(same, same)
    >>> difference.value, round(difference.low, 3), round(difference.high, 3)
    (0.0, -0.088, 0.088)
    """
    number = len(before)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    one_sided = [2 * end - 1 for end in share_interval(gained, gained + lost)]
    often = share_interval(gained + lost, number)
    low, high = min(one_sided[0] * end for end in often), max(one_sided[1] * end for end in often)
    return Difference((gained - lost) / number, low, high)


def task_verdict(difference: Difference, role: str, *, from_base: bool) -> str:
    """Name a difference of shares; from the base, a rise on an original language is `not worse`."""
    word = difference.verdict(less_is_better=False)
    return NOT_WORSE if from_base and word == BETTER and role == "original" else word


def _margin_difference(test: ScoredItems, before: str, after: str, resamples: int, seed: int) -> Difference:
    if before not in test.margins or after not in test.margins:
        return Difference(math.nan)
    apart = test.margins[after] - test.margins[before]
    low, high = bootstrap_interval(apart[test.draws(resamples, seed)].mean(1), len(apart))
    return Difference(float(apart.mean()), low, high)


def left_out_rows(reasons: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    """Return the table of what could not be made: (task, language, reason)."""
    return pd.DataFrame(list(reasons), columns=LEFT_OUT_COLUMNS)
