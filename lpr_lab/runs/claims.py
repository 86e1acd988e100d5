"""Check what the method promises against what a run measured. Torch-free.

Two kinds of claims: exact ones, which must hold for every run however short, and measured ones, which need training.
Thresholds are for the demo (SmolLM2, some 60,000 tokens); a claim that does not hold is reported, never hidden.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lpr_lab.measure.significance import BETTER, Difference, change_of
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.runs.watch.alerts import FORGETTING_PERCENT
from lpr_lab.text.splits import main_test_set

MIN_GAIN_PERCENT = 8.0
MAX_FORGETTING_PERCENT = FORGETTING_PERCENT
MIN_ORIGINAL_WEIGHT = 0.9
MIN_SEPARATION = 0.4
MIN_RETURN = 0.01

_EXACT = ("starts_equal", "base_untouched", "parent_untouched")
_OF_STAGE = {
    "stage1": (*_EXACT, "training_stable", "gains"),
    "stage2": (*_EXACT, "training_stable", "retention", "originals_return"),
}
"""What a run of one stage claims."""


@dataclass(frozen=True)
class Claim:
    """One claim with what was measured.

    Attributes:
        name: short and stable, for code.
        text: for people.
        measured: the number it is about.
        target: what it is compared with.
        holds: whether it does.
        is_exact: exact claims hold for every run; the others need enough training.
    """

    name: str
    text: str
    measured: float
    target: float
    holds: bool
    is_exact: bool = False


def check(
    changes: pd.DataFrame,
    original_weight: pd.DataFrame | None,
    exactness: dict[str, float],
    from_parent: pd.DataFrame | None = None,
    earlier: Sequence[str] = (),
    by_stage: pd.DataFrame | None = None,
    only_stage: str = "",
    stages: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Claim]:
    """Check the claims on held-out text, or on dev text where the corpus has no held-out set.

    Args:
        changes: table of `Report.changes()`.
        original_weight: table of `measure.routing.original_weight_by_language`; None for a baseline, which has no
            original expert.
        exactness: `start_difference` (max |Δlogit| of upcycled against base, judged by `largest_logit`; see
            `model.rounding`) and `base_difference` (after training,
            adapter off, against the base before).
        from_parent: for a further language group, the same table from the parent run's model to this one.
        earlier: languages of the groups before it.
        by_stage: mean weight of expert 0 by stage (see `expert_tables`); the last two are compared.
        only_stage: `stage1` or `stage2` for a run of one stage: only what that stage is for is claimed.
        stages: by step, what it found; for those that trained, whether they diverged.
    """
    dataset = main_test_set(changes["dataset"])
    changes = changes[changes["dataset"] == dataset]
    expanded, original = changes[changes["role"] == "expanded"], changes[changes["role"] == "original"]
    claims = [
        *_beginning(exactness),
        *_stable(stages or {}),
        _exact(
            "base_untouched",
            "After training, with the adapter off, the model is the base, bit for bit (largest difference of a logit).",
            exactness["base_difference"],
        ),
        _gain(expanded),
        _kept("retention", "no original language", "", original),
        *([] if original_weight is None else _weights(original_weight[original_weight["dataset"] == dataset])),
        *_earlier_groups(from_parent, earlier, dataset),
        *([_gains(expanded)] if only_stage else []),
        *_review(by_stage, dataset),
    ]
    return [claim for claim in claims if not only_stage or claim.name in _OF_STAGE[only_stage]]


def diverged(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, by step, where and why a training diverged (see `method.training.divergence`); usually nothing."""
    return {step: found["diverged"] for step, found in stages.items() if found.get("diverged")}


def _stable(stages: Mapping[str, Mapping[str, Any]]) -> list[Claim]:
    """Return the claim that no training diverged for good, where any stage recorded whether it did."""
    if not any("diverged" in found for found in stages.values()):  # nothing trained, or by an earlier version
        return []
    number = sum(it["recovered"] is None for it in diverged(stages).values())
    text = "No training diverged: none had a loss that stayed above where it began (stages that did)."
    return [Claim("training_stable", text, number, 0.0, number == 0)]


def _beginning(exactness: dict[str, float]) -> list[Claim]:
    """Return the claims about the model that training began with, if any."""
    claims = []
    if "start_difference" in exactness:
        text = (
            "Before training the model computes what the base computes, up to rounding (largest difference of a logit)."
        )
        limit = exactness.get("start_tolerance", logit_tolerance(exactness.get("largest_logit")))
        claims.append(_exact("starts_equal", text, exactness["start_difference"], limit))
    if "parent_difference" in exactness:
        text = (
            "With the parent's last stage selected the model is the parent's, bit for bit (largest difference of a "
            "logit)."
        )
        claims.append(_exact("parent_untouched", text, exactness["parent_difference"]))
    return claims


def _exact(name: str, text: str, difference: float, limit: float = 0.0) -> Claim:
    return Claim(name, text, difference, limit, difference <= limit, is_exact=True)


def _gain(expanded: pd.DataFrame) -> Claim:
    gain = -float(expanded["change_percent"].max())
    text = (
        f"Bits per byte of every expanded language fall clearly, and by at least {MIN_GAIN_PERCENT:g} % (smallest "
        "fall, %)."
    )
    is_clear = all(one.verdict() == BETTER for one in _each(expanded))
    return Claim("gain", text, gain, MIN_GAIN_PERCENT, gain >= MIN_GAIN_PERCENT and is_clear)


def _kept(name: str, languages: str, since: str, rows: pd.DataFrame) -> Claim:
    """Return the claim that `languages` were kept, `since` a model that is not the base."""
    text = (
        f"Bits per byte of {languages} rise by {MAX_FORGETTING_PERCENT:g} % or more{since}, nor does an interval reach "
        "that far (largest rise, %)."
    )
    holds = all(one.high < MAX_FORGETTING_PERCENT for one in _each(rows))
    return Claim(name, text, float(rows["change_percent"].max()), MAX_FORGETTING_PERCENT, holds)


def _weights(weights: pd.DataFrame) -> list[Claim]:
    """Return the claims about where the router sends the languages."""
    original, expanded = (weights[weights["role"] == role]["original_weight"] for role in ("original", "expanded"))
    least, distance = float(original.min()), float(original.min() - expanded.max())
    kept = f"Mean weight of the original expert is at least {MIN_ORIGINAL_WEIGHT:g} on every original language."
    apart = f"That weight is at least {MIN_SEPARATION:g} lower on every expanded language (smallest distance)."
    return [
        Claim("original_to_original", kept, least, MIN_ORIGINAL_WEIGHT, least >= MIN_ORIGINAL_WEIGHT),
        Claim("languages_separated", apart, distance, MIN_SEPARATION, distance >= MIN_SEPARATION),
    ]


def _earlier_groups(from_parent: pd.DataFrame | None, earlier: Sequence[str], dataset: str) -> list[Claim]:
    """Return the claim that earlier language groups were kept, where there are any."""
    if from_parent is None or not earlier:
        return []
    rows = from_parent[(from_parent["dataset"] == dataset) & from_parent["language"].isin(earlier)]
    return [_kept("earlier_groups_kept", "no language of an earlier group", " from the parent's model", rows)]


def _gains(expanded: pd.DataFrame) -> Claim:
    """Return the claim of a stage 1 however short: that something was learned."""
    highest = max(one.high if one.has_interval else math.inf for one in _each(expanded))
    text = "Every expanded language gains: the interval of its change is below zero (highest upper end, %)."
    return Claim("gains", text, highest, 0.0, highest < 0)


def _review(by_stage: pd.DataFrame | None, dataset: str) -> list[Claim]:
    """Return the claim that the last stage sent original languages back to expert 0, where there were two stages."""
    if by_stage is None or by_stage["stage"].nunique() < 2:
        return []
    rows = by_stage[(by_stage["dataset"] == dataset) & (by_stage["role"] == "original")]
    *_, before, after = dict.fromkeys(by_stage["stage"])
    weights = rows.pivot(index="language", columns="stage", values="original_weight")
    rise = float((weights[after] - weights[before]).min())
    return [
        Claim(
            "originals_return",
            f"The review raises the weight of the original expert by {MIN_RETURN:g} or more on every original language "
            "(smallest rise).",
            rise,
            MIN_RETURN,
            rise >= MIN_RETURN,
        )
    ]


def as_records(claims: list[Claim]) -> list[dict[str, Any]]:
    """Return claims as plain dictionaries for `results.json`."""
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in one.items()}
        for one in map(asdict, claims)
    ]


def _each(changes: pd.DataFrame) -> list[Difference]:
    return [change_of(row) for row in changes.to_dict("records")]
