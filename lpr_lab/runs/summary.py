"""A finished run summarised in five sentences, for terminals and notebooks; and the facts that a list of runs has."""

from collections.abc import Mapping, Sequence
from typing import Any

from lpr_lab.errors import LprError
from lpr_lab.measure.significance import ADAPTATION, UNCLEAR, change_of
from lpr_lab.runs.claims import diverged
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import get_language
from lpr_lab.text.splits import main_test_set

_DATASETS = {"heldout": "held-out text", "dev": "text like that of training"}


def summary_lines(results: Mapping[str, Any], seconds: Mapping[str, float]) -> list[str]:
    """Return what `results.json` of an expansion or a baseline says, in words, and how long that took.

    The held-out set is quoted where there is one. Changes are those of bits per byte: below zero is better.

    Args:
        results: `run.results`.
        seconds: `run.phases.seconds`.

    Raises:
        KeyError: these are the results of something else.
    """
    dataset = main_test_set(row["dataset"] for row in results["change"])
    change = [row for row in results["change"] if row["dataset"] == dataset]
    weights = [row for row in (results.get("routing") or {}).get("original_weight") or () if row["dataset"] == dataset]
    known, taught = (_list([_name(code) for code in results[role]]) for role in ("original", "expanded"))
    return [
        f"{results['base']}, which knew {known}, was taught {taught} in {_duration(seconds)}"
        f" (recipe {results['recipe']}).",
        f"Taught, in bits per byte of {_DATASETS.get(dataset, dataset)}: {_changes(change, 'expanded')}.",
        f"Known before, in the same: {_changes(change, 'original')}.{_caveat(change)}",
        *_expert_0(weights),
        *divergence_lines(results),
        _claims(results["claims"]),
    ]


def divergence_lines(results: Mapping[str, Any]) -> list[str]:
    """Return, in words, which trainings diverged, where and why; usually nothing."""
    lines = []
    for step, it in diverged(results.get("stages") or {}).items():
        end = f"It had come back by step {it['recovered']}." if it["recovered"] else "It did not come back."
        lines.append(f"The training of {step.replace('_', ' ')} diverged at step {it['step']}: {it['why']}. {end}")
    return lines


def claim_lines(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what other runs than expansions found: each claim, whether it holds, and what was measured."""
    return [
        f"{'Holds' if it['holds'] else 'Not so'}: {it['text']} Measured: {_short(it['measured'])}." for it in claims
    ]


def _short(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g}"


def _name(code: str) -> str:
    try:
        return get_language(code).name
    except LprError:
        return code


def _list(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "no language"


def _duration(seconds: Mapping[str, float]) -> str:
    total = sum(seconds.values())
    return f"{total / 60:.0f} minutes" if total >= 90 else f"{total:.0f} seconds"


def _changes(rows: Sequence[Mapping[str, Any]], role: str) -> str:
    return ", ".join(
        f"{_name(row['language'])} {row['before']:.3f} → {row['after']:.3f} ({_change(row)})"
        for row in rows
        if row["role"] == role
    )


def _caveat(rows: Sequence[Mapping[str, Any]]) -> str:
    fell = any(change_of(row).value < 0 for row in rows if row["role"] == "original")
    return f" {ADAPTATION}" if fell else ""


def _change(row: Mapping[str, Any]) -> str:
    found = change_of(row)
    verdict = "" if found.direction else f", {UNCLEAR}"
    if not found.has_interval:
        return f"{_percent(found.value)}{verdict}: no interval"
    return f"{_percent(found.value)}{verdict}, 95 % interval {_percent(found.low)} to {_percent(found.high)}"


def _percent(value: float) -> str:
    return f"{value:+.1f} %".replace("-", "−")


def _weights(rows: Sequence[Mapping[str, Any]], role: str) -> str:
    return ", ".join(f"{_name(row['language'])} {row['original_weight']:.2f}" for row in rows if row["role"] == role)


def _expert_0(weights: Sequence[Mapping[str, Any]]) -> list[str]:
    if not weights:  # a baseline, which has no original expert
        return []
    return [f"Weight of the original expert there: {_weights(weights, 'original')}; {_weights(weights, 'expanded')}."]


def _claims(claims: Sequence[Mapping[str, Any]]) -> str:
    broken = [claim["name"].replace("_", " ") for claim in claims if not claim["holds"]]
    held = f"{len(claims) - len(broken)} of the {len(claims)} things the method promises hold"
    return f"{held}; not: {', '.join(broken)}." if broken else f"All {len(claims)} things the method promises hold."


def run_facts(run: Run) -> dict[str, Any]:
    """Return what a list of runs says of one, as plain values; of one that cannot be read, its id and the problem."""
    if run.problem is not None:
        return {"id": run.id, "problem": run.problem}
    try:
        source = {**run.config, **{key: value for key, value in run.results.items() if value}}
    except LprError as error:
        return {"id": run.id, "problem": str(error)}
    return {
        "id": run.id,
        "title": run.title,
        "kind": run.kind,
        "state": run.status.state,
        "created": run.created,
        "base": source.get("base"),
        "original": source.get("original") or [],
        "expanded": source.get("expanded") or [],
        "parents": list(run.parents),
        "has_weights": run.paths.has_checkpoint,
    }
