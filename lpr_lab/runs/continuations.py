"""Pairs of continuations as runs keep them: who said what to which prompt, and where the two part."""

import hashlib
from dataclasses import dataclass
from typing import Any

import regex

from lpr_lab.errors import LprError
from lpr_lab.model.rounding import logit_tolerance
from lpr_lab.runs.model_ref import BASE, EXPANDED, looked_at
from lpr_lab.runs.run import Run

NAMES = (BASE, EXPANDED)


@dataclass(frozen=True)
class Said:
    """What one side said, as far as it is.

    Attributes:
        text: without the prompt.
        tokens: how many; None where it was not counted.
        seconds: spent on this side; None where it was not measured.
    """

    text: str = ""
    tokens: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two continuations of one prompt, as far as they are.

    Attributes:
        prompt, language: what was continued.
        left, right: what was said.
        names: who said it: `base`, `expanded`, a stage, or a stage of another run.
        diverged_at: the first token in which they differ, counted from 0; None while they agree.
        seconds: for both.
        is_running: whether they are still being written.
        swapped: whether they are shown with their sides exchanged.
        hidden: whether the reader may not know yet who said what.
    """

    prompt: str
    language: str
    left: Said
    right: Said
    diverged_at: int | None = None
    names: tuple[str, str] = NAMES
    seconds: float | None = None
    is_running: bool = False
    swapped: bool = False
    hidden: bool = False

    @property
    def shown(self) -> tuple[tuple[str, Said], tuple[str, Said]]:
        """(name, what it said) on the left of the page, then on the right."""
        both = ((self.names[0], self.left), (self.names[1], self.right))
        return (both[1], both[0]) if self.swapped else both

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Pair":
        """Read a pair that a run keeps; what is not there is left out."""
        names = (str(record.get("left") or BASE), str(record.get("right") or EXPANDED))
        keys = NAMES if names == NAMES else ("left_text", "right_text")
        sides = []
        for key in keys:
            name = key.removesuffix("_text")
            tokens, seconds = record.get(f"{name}_tokens"), record.get(f"{name}_seconds")
            sides.append(Said(str(record.get(key) or ""), _number(tokens, int), _number(seconds, float)))
        return cls(
            str(record.get("prompt") or ""),
            str(record.get("language") or ""),
            sides[0],
            sides[1],
            _number(record.get("diverged_at"), int),
            names,
            _number(record.get("seconds"), float),
        )

    def to_record(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return the pair as a run keeps it, with the settings it was made with."""
        record = {"language": self.language, "prompt": self.prompt, **settings}
        plain = self.names == NAMES
        if not plain:
            record |= {"left": self.names[0], "right": self.names[1]}
        for key, side in zip(NAMES if plain else ("left", "right"), (self.left, self.right), strict=True):
            record |= {key if plain else f"{key}_text": side.text}
            record |= {f"{key}_tokens": side.tokens, f"{key}_seconds": side.seconds}
        return record | {"diverged_at": self.diverged_at, "seconds": self.seconds}


def _number(value: Any, kind: Any) -> Any:
    return kind(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def pair_id(record: dict[str, Any]) -> str:
    """Return the name of a pair in addresses: 8 hex digits of prompt, settings and, if not base and expanded, sides."""
    keys = ["prompt", "max_new_tokens", "temperature", "seed"]
    keys += [key for key in ("left", "right") if record.get(key)]
    settings = [str(record.get(key)) for key in keys]
    return hashlib.sha256("\n".join(settings).encode()).hexdigest()[:8]


def pairs(run: Run) -> dict[str, dict[str, Any]]:
    """Return the pairs that a run keeps by id, oldest first."""
    return {pair_id(record): record for record in run.generations.read() if record.get("prompt")}


def typed_by_reader(run: Run, record: dict[str, Any]) -> bool:
    """Whether a pair was kept from the page `/compare`, and is not one that the run itself wrote.

    What was kept there says how long it took; a run that compares two others writes nothing but its own pairs.
    """
    return "seconds" in record and not looked_at(run)


def split_at_fork(mine: str, other: str) -> tuple[str, str]:
    """Return (what both say, what only this side says), cut between whole characters."""
    size = 0
    for one, two in zip(regex.findall(r"\X", mine), regex.findall(r"\X", other), strict=False):
        if one != two:
            break
        size += len(one)
    return mine[:size], mine[size:]


@dataclass(frozen=True)
class Exactness:
    """What a run found when it compared "the adapter off" with the base on its own.

    Attributes:
        difference: the largest of a logit.
        largest_logit: of the base; None in runs of earlier versions.
    """

    difference: float
    largest_logit: float | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the difference is rounding, or none."""
        return self.difference <= logit_tolerance(self.largest_logit)


def exactness(run: Run) -> Exactness | None:
    """Return what a run found of its own base with the adapter off; None if it never looked."""
    try:
        stored = run.results.get("exactness") or {}
    except LprError:
        return None
    difference = _number(stored.get("base_difference"), float)
    return None if difference is None else Exactness(difference, _number(stored.get("largest_logit"), float))
