"""Pairs of continuations: what they are, how a run keeps them, and what people preferred."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import regex

from lpr_lab.dashboard.retention_data import BASE, Side, stages_of
from lpr_lab.dashboard.view import View
from lpr_lab.errors import LprError
from lpr_lab.experiments.runs import Run
from lpr_lab.experiments.sample_texts import PROMPTS

EXPANDED = "expanded"
NAMES = (BASE, EXPANDED)
PREFERENCES = "preferences"
EXACT = 1e-4
"""Largest difference of a logit for which "base" is called exact."""
RUN = "run:"
"""Before the id of another run, in the pickers of who writes."""
FIRST = "Once upon a time, in a small village"


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
    return {pair_id(record): record for record in run.generations() if record.get("prompt")}


def choose_prompt(languages: Sequence[str], language: str) -> tuple[str, str]:
    """Return (language, prompt) to start from: the language asked for, else the first with a prompt of ours.

    A language of the run that we wrote no prompt in starts empty.
    """
    if language in languages:
        return language, PROMPTS.get(language, "")
    for code in (language, *languages):
        if code in PROMPTS:
            return code, PROMPTS[code]
    return language, FIRST


def split_at_fork(mine: str, other: str) -> tuple[str, str]:
    """Return (what both say, what only this side says), cut between whole characters."""
    size = 0
    for one, two in zip(regex.findall(r"\X", mine), regex.findall(r"\X", other), strict=False):
        if one != two:
            break
        size += len(one)
    return mine[:size], mine[size:]


def name_of(side: Side, run: Run) -> str:
    """Return what a side is called in records: `base`, `expanded`, a stage; with the run's id where it is another."""
    stage = side.stage or EXPANDED
    return stage if side.run.id == run.id or stage == BASE else f"{side.run.id}: {stage}"


def comparable(run: Run, runs: Iterable[Run]) -> list[Run]:
    """Return the other runs whose model can write beside this one's: with weights, and on the same base."""
    base = run.config.get("base")
    found = []
    for other in runs:
        try:
            if other.problem is None and other.id != run.id and other.has_checkpoint:
                if other.config.get("base") == base and stages_of(other):
                    found.append(other)
        except LprError:
            continue  # a run that cannot be read is no choice; the page Runs says why
    return found


def choices_in(view: View) -> tuple[str, str]:
    """Return who an address puts on the left and on the right, as the pickers say it.

    As on the page Retention, `stage` is what is looked at (right) and `run2` and `stage2` what it is compared with
    (left). `run2` as the name of a stage stands for the other run.
    """
    other = f"{RUN}{view.run2}" if view.run2 else ""
    right = other if view.stage == "run2" else view.stage
    left = other if view.stage2 == "run2" or (not view.stage2 and view.stage != "run2") else view.stage2
    return left or BASE, right or EXPANDED


def address_of(left: str, right: str) -> dict[str, str]:
    """Return the part of an address that says who is on either side; `choices_in` reads it again."""
    other = next((name.removeprefix(RUN) for name in (left, right) if name.startswith(RUN)), "")
    called = ["run2" if name.startswith(RUN) else name for name in (left, right)]
    if called == ["run2", EXPANDED] or (called[0] == BASE and not other):
        called[0] = ""
    return {"run2": other, "stage2": called[0], "stage": "" if called[1] == EXPANDED else called[1]}


def speaker(choice: str, run: Run, others: Iterable[Run], default: str) -> Side:
    """Return who writes on one side, from what its picker says; what there is not is the default."""
    if choice.startswith(RUN):
        other = next((one for one in others if f"{RUN}{one.id}" == choice), None)
        return Side(other, "") if other is not None else Side(run, default)
    return Side(run, choice if choice in (BASE, EXPANDED, *stages_of(run)[:-1]) else default)


def choice_of(side: Side, run: Run) -> str:
    """Return what the picker says for a side."""
    return f"{RUN}{side.run.id}" if side.run.id != run.id else side.stage or EXPANDED


def exactness(run: Run) -> float | None:
    """Return by how much a logit of "the adapter off" differed from the base when the run checked it; None if never."""
    try:
        stored = (run.results or {}).get("exactness") or {}
    except LprError:
        return None
    return _number(stored.get("base_difference"), float)


def tokens_per_second(records: Iterable[dict[str, Any]]) -> float | None:
    """Return how many tokens per second each side got when a pair was last measured, or None."""
    for record in reversed(list(records)):
        pair = Pair.from_record(record)
        tokens = max(pair.left.tokens or 0, pair.right.tokens or 0)
        if tokens and pair.seconds:
            return tokens / pair.seconds
    return None


# ------------------------------------------------------------------------------------------------ preferences


def vote(pair: Pair, choice: str, pair_name: str, blind: bool) -> dict[str, Any]:
    """Return a judgement as a run keeps it; left and right as the reader saw them."""
    (left, _), (right, _) = pair.shown
    when = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    who = {"pair": pair_name, "language": pair.language, "left": left, "right": right}
    return {**who, "choice": choice, "blind": blind, "time": when}


def revealed(pair: Pair) -> Pair:
    """Return the pair with the names on it; the sides stay where the reader saw them."""
    return replace(pair, hidden=False)
