"""The scorecard as one JSON-able table, and the small file that is committed of it."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpr_lab import storage
from lpr_lab.errors import MissingError
from lpr_lab.runs.compare.costs import costs_of
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.allocations import compare_allocations
from lpr_lab.runs.scorecard.effects import Arms, Effect, NotMeasuredError, combined, effect_of, sample_of
from lpr_lab.runs.scorecard.equal_gain import REFERENCE, compare_at_equal_gain
from lpr_lab.runs.scorecard.parts import Part, Term
from lpr_lab.runs.scorecard.verdict import FAILS, HOLDS, UNDECIDED, Row

RESULTS = Path(__file__).parent / "results"
"""Committed scorecards, one file per base."""
SCHEMA_VERSION = 2
_ARM_NUMBERS = {
    "expanded": Term("", "expanded"),
    "reviewed": Term("", "reviewed"),
    "unreviewed": Term("", "unreviewed"),
    "weight_reviewed": Term("", "reviewed", measure="weight"),
    "weight_unreviewed": Term("", "unreviewed", measure="weight"),
    "weight_expanded": Term("", "expanded", measure="weight"),
    "kl_self": Term("", "original", measure="kl"),
    "choice_expanded": Term("", "expanded", measure="choice"),
    "choice_original": Term("", "original", measure="choice"),
}


def effect_json(effect: Effect) -> dict[str, Any]:
    """Return an effect JSON-able; what is not known is None."""
    return {
        "value": _number(effect.value),
        "low": _number(effect.low),
        "high": _number(effect.high),
        "seeds": effect.seeds,
        "by_seed": {str(seed): _number(value) for seed, value in effect.by_seed.items()},
    }


def row_json(row: Row, command: str) -> dict[str, Any]:
    """Return a row of the table JSON-able.

    Args:
        row: see `verdict.row_of`.
        command: that makes what the row is decided from.
    """
    claim = row.claim
    parts = [
        {
            "text": one.part.text,
            "above": one.part.above,
            "below": one.part.below,
            "arms": list(one.part.arms),
            "verdict": one.verdict,
            "why": one.why,
            **effect_json(one.effect),
        }
        for one in row.parts
    ]
    facts = {"number": claim.number, "claim": claim.text, "paper": claim.paper, "kind": claim.kind}
    return {
        **facts,
        "verdict": row.verdict,
        "why": row.why,
        "parts": parts,
        "checks": list(row.checks),
        "command": command,
    }


def arm_json(name: str, arms: Arms) -> dict[str, Any]:
    """Return what an arm gained and forgot over its seeds, also beside MoE-LPR, its cost, and its runs by seed."""
    return _of_arm(name, arms[name]) | _beside(name, arms)


def _beside(name: str, arms: Arms) -> dict[str, Any]:
    """Return by how many points an arm is above MoE-LPR, seed by seed; nothing where it taught other languages."""
    taught = [next(iter(arms[one].values())).config.get("expanded") for one in (name, REFERENCE) if arms.get(one)]
    if name == REFERENCE or len(taught) < 2 or taught[0] != taught[1]:
        return {}
    found = {}
    for role in ("expanded", "original"):
        effect = effect_of(Part("", (Term(name, role), Term(REFERENCE, role, -1.0))), arms)
        if not effect.problem:
            found[f"{role}_less_{REFERENCE}"] = _ends(effect)
    return found


def _ends(effect: Effect) -> dict[str, Any]:
    return {key: value for key, value in effect_json(effect).items() if key in ("value", "low", "high")}


def _of_arm(name: str, own: Mapping[int, Run]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, term in _ARM_NUMBERS.items():
        try:
            found[number] = _ends(combined({seed: sample_of(term, run) for seed, run in own.items()}))
        except NotMeasuredError:
            continue
    costs = costs_of(next(iter(own.values())))
    kept = ("trained_parameters", "active_parameters", "file_bytes", "tokens_per_second", "peak_memory_bytes")
    seconds = [sum(run.phases.seconds.values()) for run in own.values()]
    return {
        "arm": name,
        "seeds": len(own),
        "runs": {str(seed): run.id for seed, run in own.items()},
        **found,
        **{key: costs[key] for key in kept if key in costs},
        "seconds": round(sum(seconds) / len(seconds), 1),
    }


def equal_gain_json(arms: Arms) -> list[dict[str, Any]]:
    """Return what each method forgets where it gained what MoE-LPR did, JSON-able (see `equal_gain`)."""
    rows = compare_at_equal_gain(arms)
    return [{**row, "more": effect_json(row["more"]), "why": row["more"].problem} for row in rows]


def allocations_json(arms: Arms) -> dict[str, Any]:
    """Return which rule divides experts best, and every score of layers, JSON-able (see `allocations`)."""
    found = compare_allocations(arms)
    rules = [
        {key: effect_json(value) if isinstance(value, Effect) else value for key, value in row.items()}
        for row in found["rules"]
    ]
    return {"rules": rules, "scores": [_score_json(row) for row in found["scores"]]}


def _score_json(row: Mapping[str, Any]) -> dict[str, Any]:
    of = row["correlation"]
    ends = None if of is None else {name: _number(getattr(of, name)) for name in ("value", "low", "high")}
    return {"score": row["score"], "values": [_number(value) for value in row["values"]], "correlation": ends}


def count_verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many claims hold, fail and cannot be decided."""
    return {word: sum(row["verdict"] == word for row in rows) for word in (HOLDS, FAILS, UNDECIDED)}


def save(card: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Write a scorecard as the committed one of its base; returns the file."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(str(card['base']))}.json"
    storage.write_json(path, dict(card))
    return path


def read_saved(base: str, folder: Path | None = None) -> dict[str, Any]:
    """Return the committed scorecard of a base.

    Raises:
        MissingError: there is none.
    """
    path = (folder or RESULTS) / f"{file_name(base)}.json"
    if not path.is_file():
        raise MissingError(
            f"There is no scorecard of {base!r}, and no run of one. Make it: lpr-lab scorecard run --base {base}"
        )
    return storage.read_json_object(path)


def saved_bases(folder: Path | None = None) -> list[str]:
    """Return the bases that have a committed scorecard."""
    return sorted(path.stem for path in (folder or RESULTS).glob("*.json"))


def file_name(base: str) -> str:
    """Return a base as the name of a file."""
    return "".join(character if character.isalnum() or character in "-._" else "-" for character in base).strip(".-")


def _number(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None
