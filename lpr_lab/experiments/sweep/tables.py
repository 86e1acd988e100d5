"""Tables of a sweep: metrics by point, mean and spread over seeds, and differences with confidence intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lpr_lab.experiments.sweep.grid import SEED
from lpr_lab.measure.significance import UNCLEAR, direction, student_interval
from lpr_lab.text.splits import main_test_set

MORE, LESS = "more", "less"
_VERDICTS = {1: MORE, -1: LESS, 0: UNCLEAR}


@dataclass(frozen=True)
class Metric:
    """A number of an expansion's results: what it is, its unit, and whether more or less of it is better."""

    meaning: str
    unit: str
    better: str
    role: str
    key: str
    sign: int = 1


EXPANSION_METRICS = {
    "gain": Metric(
        "mean fall of bits per byte on expanded languages", "%", MORE, "expanded", "mean_change_percent", -1
    ),
    "forgetting": Metric(
        "mean rise of bits per byte on original languages", "%", LESS, "original", "mean_change_percent"
    ),
    "worst_forgetting": Metric("largest rise on any original language", "%", LESS, "original", "worst_change_percent"),
    "weight_on_original": Metric(
        "weight of the original expert on original languages", "", MORE, "original", "original_weight"
    ),
    "weight_on_expanded": Metric(
        "weight of the original expert on expanded languages", "", LESS, "expanded", "original_weight"
    ),
}
"""Simple names for what `results.summarise` reports: of held-out text where there is any."""

_USUAL = ("gain", "forgetting", "weight_on_original", "weight_on_expanded")


def value_of(results: Mapping[str, Any] | None, metric: str) -> float:
    """Return a metric of one run's results; NaN when they do not have it.

    Args:
        results: what `results.json` holds.
        metric: one of `EXPANSION_METRICS`, or a dotted path such as `plan.total` or `change.0.after`.
    """
    simple = EXPANSION_METRICS.get(metric)
    if simple is None:
        return _number_at(results, metric.split("."))
    summary = (results or {}).get("summary")
    if not isinstance(summary, Mapping) or not summary:
        return math.nan
    return simple.sign * _number_at(summary[main_test_set(summary)], [simple.role, simple.key])


def _number_at(value: Any, path: Sequence[str]) -> float:
    for key in path:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return math.nan
    return float(value) if isinstance(value, int | float) else math.nan


def usual_metrics(results: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the default metrics: those of an expansion, else every number at the top level of the results."""
    if any(not math.isnan(value_of(found, name)) for found in results for name in _USUAL):
        return _USUAL
    top = dict.fromkeys(name for found in results for name, value in found.items() if _is_number(value))
    return tuple(name for name in top if name != "schema_version")


def known_metrics(results: Mapping[str, Any]) -> list[str]:
    """Return the name of every number in results, simple names first."""
    simple = [name for name in EXPANSION_METRICS if not math.isnan(value_of(results, name))]
    return simple + list(_paths(results, ""))


def _paths(value: Any, before: str) -> Any:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if _is_number(item):
            yield f"{before}{key}"
        yield from _paths(item, f"{before}{key}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def by_setting(summary: pd.DataFrame, varied: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return mean and spread over seeds of every metric at every setting.

    Args:
        summary: one row per point: the varied parameters and the metrics.
        varied: the names of the varied parameters, `seed` perhaps among them.
        metrics: names of columns.

    Returns:
        Columns of the compared parameters, metric, n (points with a number), mean, sd (divided by n - 1), min, max, and
        the 95 % interval of the mean ci_low, ci_high; what takes two points is missing where there is one.
    """
    settings = [name for name in varied if name != SEED]
    rows = []
    for setting, part in _groups(summary, settings):
        for metric in metrics:
            values = part[metric].dropna().to_numpy(dtype=float)
            spread = {"min": values.min(), "max": values.max()} if len(values) else {"min": math.nan, "max": math.nan}
            mean, sd, low, high = student_interval(values)
            numbers = {"n": len(values), "mean": mean, "sd": sd, **spread, "ci_low": low, "ci_high": high}
            rows.append({**setting, "metric": metric, **numbers})
    return pd.DataFrame(rows)


def differences(summary: pd.DataFrame, varied: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the difference of every value of a parameter from its first one, with a paired interval over seeds.

    Points are paired that differ in nothing else, seed included; their differences are averaged over all other
    settings, which leaves one number per seed. The interval is that of Student's t, and supposes that these numbers
    are roughly normal; of twenty such intervals one misses by chance.

    Args:
        summary: one row per point: the varied parameters and the metrics.
        varied: the names of the varied parameters, `seed` perhaps among them.
        metrics: names of columns.

    Returns:
        Columns parameter, value, against, metric, difference, sd, seeds, ci_low, ci_high, verdict (`more`, `less`, or
        `no clear difference`, which is all that one seed can tell).
    """
    table = summary if SEED in varied else summary.assign(**{SEED: 0})
    settings = [name for name in varied if name != SEED]
    rows = []
    for name in settings:
        others = [other for other in settings if other != name]
        first, *rest = dict.fromkeys(table[name])
        for value in rest:
            for metric in metrics:
                indexed = [
                    table[table[name] == level].set_index([*others, SEED])[metric].astype(float)
                    for level in (value, first)
                ]
                matched = (indexed[0] - indexed[1]).dropna()
                per_seed = matched.groupby(level=SEED).mean().to_numpy(dtype=float)
                if not len(per_seed):
                    continue
                mean, sd, low, high = student_interval(per_seed)
                pair = {"parameter": name, "value": value, "against": first, "metric": metric, "difference": mean}
                numbers = {"sd": sd, "seeds": len(per_seed), "ci_low": low, "ci_high": high}
                rows.append({**pair, **numbers, "verdict": _VERDICTS[direction(low, high)]})
    names = ["parameter", "value", "against", "metric", "difference", "sd", "seeds", "ci_low", "ci_high", "verdict"]
    return pd.DataFrame(rows, columns=names)


def _groups(summary: pd.DataFrame, settings: list[str]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    if not settings:
        return [({}, summary)]
    parts = summary.groupby(settings, sort=False, dropna=False)
    return [(dict(zip(settings, key, strict=True)), part) for key, part in parts]
