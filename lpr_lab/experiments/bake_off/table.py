"""Reads the bake-off: what each arm gained and changed, and how far it is from `uniform`, with intervals.

A difference is paired: the same seed, the same documents. Its interval has two parts, Student's t over the seeds and
the bootstrap over the documents of each language, whose half widths add as squares. Fewer than two seeds have no
interval, and then nothing is named.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpr_lab.experiments.bake_off.arms import MEASURED, TEST
from lpr_lab.measure.significance import Difference, bootstrap_interval, rank_correlation, student_interval

REFERENCE = "uniform"
_RESAMPLES = 1000


def arm_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per arm that has a point: experts, change from the base, and difference from `uniform`.

    Columns `new`, `original` (percent of bits per byte, mean over the languages, against the base) and
    `new_to_uniform`, `original_to_uniform` (the same against `uniform`) are `Difference`s; below 0 is better. Also
    `seeds` and `experts`, the experts of each seed layer by layer.
    """
    rows = []
    for arm, keys in found["arms"].items():
        keys = {seed: key for seed, key in keys.items() if key in found["points"]}
        if not keys:
            continue
        row: dict[str, Any] = {"arm": arm, "seeds": len(keys)}
        row["experts"] = sorted({key.split(": ")[1] for key in keys.values()})
        for role, codes in (("new", "expanded"), ("original", "original")):
            tests = [f"{TEST} {code}" for code in found["settings"][codes]]
            row[role] = _difference(_pairs(found, keys, None), tests)
            shared = {seed: key for seed, key in keys.items() if seed in found["arms"].get(REFERENCE, {})}
            row[f"{role}_to_{REFERENCE}"] = _difference(_pairs(found, shared, found["arms"][REFERENCE]), tests)
        rows.append(row)
    return rows


def score_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per measured curve: its values, and its rank correlation with the measured gain of each layer.

    Similarity claims that a layer gains the more the lower it is, so its sign is turned.
    """
    gains = found["curves"].get(MEASURED)
    rows = []
    for name, values in found["curves"].items():
        turned = [-value for value in values] if name in ("mlp_input", "attention_output") else values
        correlation = None if gains is None or name == MEASURED else rank_correlation(turned, gains)
        rows.append({"score": name, "values": values, "rank_correlation": correlation})
    return rows


Pairs = list[tuple[Mapping[str, Sequence[float]], Mapping[str, Sequence[float]]]]
"""For each seed, the nats of every document by test, of the reference and of the arm."""


def _pairs(found: Mapping[str, Any], keys: Mapping[str, str], reference: Mapping[str, str] | None) -> Pairs:
    points = found["points"]
    return [
        (found["base"] if reference is None else points[reference[seed]]["nats"], points[key]["nats"])
        for seed, key in keys.items()
    ]


def _difference(pairs: Pairs, tests: Sequence[str]) -> Difference:
    """Return the change in percent, mean over tests and seeds, with its interval."""
    per_seed = np.array(
        [np.mean([_percent(*(np.array(one[test]) for one in pair)) for test in tests]) for pair in pairs]
    )
    mean, _, low, _ = student_interval(per_seed)
    if math.isnan(low):
        return Difference(mean)
    drawn = np.zeros(_RESAMPLES)
    fewest = math.inf
    for number, test in enumerate(tests):
        before, after = (np.array([pair[side][test] for pair in pairs]).mean(0) for side in (0, 1))
        fewest = min(fewest, len(before))
        draw = np.random.default_rng([number, len(before)]).integers(0, len(before), (_RESAMPLES, len(before)))
        drawn += 100 * (after[draw].sum(1) / before[draw].sum(1) - 1) / len(tests)
    of_documents, _ = bootstrap_interval(drawn, int(fewest))
    half = math.hypot(mean - low, float(drawn.mean()) - of_documents)
    return Difference(mean, mean - half, mean + half)


def _percent(before: np.ndarray, after: np.ndarray) -> float:
    return float(100 * (after.sum() / before.sum() - 1))


def as_markdown(found: Mapping[str, Any]) -> str:
    """Return the table of arms in Markdown, the largest gain first; a difference from `uniform` is bold where clear."""
    lines = ["| arm | new experts by layer | seeds | new languages | original languages | new, to uniform |"]
    lines.append("|---|---|---|---|---|---|")
    for row in sorted(arm_rows(found), key=lambda row: row["new"].value):
        experts = "; ".join(row["experts"])
        cells = [_said(row[name]) for name in ("new", "original")]
        to_uniform = "" if row["arm"] == REFERENCE else _said(row[f"new_to_{REFERENCE}"])
        to_uniform = f"**{to_uniform}**" if row[f"new_to_{REFERENCE}"].direction else to_uniform
        lines.append(f"| {row['arm']} | {experts} | {row['seeds']} | {cells[0]} | {cells[1]} | {to_uniform} |")
    return "\n".join(lines)


def _said(difference: Difference) -> str:
    if not difference.has_interval:
        return f"{difference.value:+.2f}"
    return f"{difference.value:+.2f} ({difference.low:+.2f} to {difference.high:+.2f})"
