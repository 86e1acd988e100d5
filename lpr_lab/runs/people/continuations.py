"""Pairs of continuations of one prompt by two models, as runs keep them, and where the two diverge."""

import hashlib
from dataclasses import dataclass
from typing import Any

import regex

from lpr_lab.errors import LprError
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.runs.model_ref import BASE, EXPANDED, analysed_run
from lpr_lab.runs.run import Run

NAMES = (BASE, EXPANDED)
STEERED = " · "
"""Between the name of a side and what was done to its experts while it wrote."""


@dataclass(frozen=True)
class Continuation:
    """The continuation of a prompt by one model, possibly partial.

    Attributes:
        text: without the prompt.
        tokens: how many; None where it was not counted.
        seconds: spent on this one; None where it was not measured.
    """

    text: str = ""
    tokens: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two continuations of one prompt, possibly partial.

    Attributes:
        prompt, language: what was continued.
        left, right: the continuations.
        names: the models that wrote them: `base`, `expanded`, a stage, or a stage of another run; after `STEERED` what
            was done to its experts.
        diverged_at: the first token in which they differ, counted from 0; None while they agree.
        seconds: for both.
        is_running: whether they are still being written.
        swapped: whether left and right are exchanged on the page.
        hidden: whether the reader may not know yet which model wrote which.
    """

    prompt: str
    language: str
    left: Continuation = Continuation()
    right: Continuation = Continuation()
    diverged_at: int | None = None
    names: tuple[str, str] = NAMES
    seconds: float | None = None
    is_running: bool = False
    swapped: bool = False
    hidden: bool = False

    @property
    def shown(self) -> tuple[tuple[str, Continuation], tuple[str, Continuation]]:
        """(model, continuation) on the left of the page, then on the right."""
        both = ((self.names[0], self.left), (self.names[1], self.right))
        return (both[1], both[0]) if self.swapped else both

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Pair":
        """Read a pair that a run keeps; fields that are missing stay empty."""
        names = (str(record.get("left") or BASE), str(record.get("right") or EXPANDED))
        keys = NAMES if names == NAMES else ("left_text", "right_text")
        both = []
        for key in keys:
            name = key.removesuffix("_text")
            tokens, seconds = record.get(f"{name}_tokens"), record.get(f"{name}_seconds")
            both.append(Continuation(str(record.get(key) or ""), _number(tokens, int), _number(seconds, float)))
        return cls(
            str(record.get("prompt") or ""),
            str(record.get("language") or ""),
            both[0],
            both[1],
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
        for key, one in zip(NAMES if plain else ("left", "right"), (self.left, self.right), strict=True):
            record |= {key if plain else f"{key}_text": one.text}
            record |= {f"{key}_tokens": one.tokens, f"{key}_seconds": one.seconds}
        return record | {"diverged_at": self.diverged_at, "seconds": self.seconds}


def _number(value: Any, kind: Any) -> Any:
    return kind(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def pair_id(record: dict[str, Any]) -> str:
    """Return the id of a pair in addresses: 8 hex digits of prompt, settings and, unless base and expanded, models."""
    keys = ["prompt", "max_new_tokens", "temperature", "seed"]
    keys += [key for key in ("left", "right") if record.get(key)]
    settings = [str(record.get(key)) for key in keys]
    return hashlib.sha256("\n".join(settings).encode()).hexdigest()[:8]


def pairs(run: Run) -> dict[str, dict[str, Any]]:
    """Return the pairs that a run keeps by id, oldest first."""
    return {pair_id(record): record for record in run.generations.read() if record.get("prompt")}


def typed_by_reader(run: Run, record: dict[str, Any]) -> bool:
    """Whether a pair was kept from the page `/compare`, and is not one that the run itself wrote.

    Pairs kept there record how long they took; a run that compares two others writes nothing but its own pairs.
    """
    return "seconds" in record and not analysed_run(run)


def split_at_fork(mine: str, other: str) -> tuple[str, str]:
    """Return (common start, rest of `mine`), cut between whole characters."""
    size = 0
    for one, two in zip(regex.findall(r"\X", mine), regex.findall(r"\X", other), strict=False):
        if one != two:
            break
        size += len(one)
    return mine[:size], mine[size:]


@dataclass(frozen=True)
class Exactness:
    """How far a run's model with its adapter off is from the base on its own.

    Attributes:
        difference: largest of a logit.
        largest_logit: of the base; None in runs of earlier versions.
    """

    difference: float
    largest_logit: float | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the difference is rounding, or none."""
        return self.difference <= logit_tolerance(self.largest_logit)


def exactness(run: Run) -> Exactness | None:
    """Return how exactly a run's base is kept with the adapter off; None if that was not measured."""
    try:
        stored = run.results.get("exactness") or {}
    except LprError:
        return None
    difference = _number(stored.get("base_difference"), float)
    return None if difference is None else Exactness(difference, _number(stored.get("largest_logit"), float))
