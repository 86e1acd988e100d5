"""A sitting: a set of prompts continued by two models and judged blind, one after the other, by one person.

The order of the prompts and which model stands on the left of each are drawn from a seed that is drawn for the sitting
and recorded with it, so that both can be drawn again. Until the last prompt is judged, or the reader ends it, nobody
is told who is who. A sitting is written into the run, `sittings/<id>.json`, only when somebody asks for that.
"""

import random
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lpr_lab.errors import DamagedError, LprError, MissingError, UsageError
from lpr_lab.measure.preference import Tally
from lpr_lab.runs.people.continuations import Continuation, Pair
from lpr_lab.runs.people.notes import why_read_only
from lpr_lab.runs.run import Run
from lpr_lab.storage import read_json_object, write_json

if TYPE_CHECKING:
    import pandas as pd

LEFT, RIGHT, SAME = "left", "right", "same"
CHOICES = (LEFT, RIGHT, SAME)
MAX_PROMPTS = 100
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Prompt:
    """A prompt of a sitting.

    Attributes:
        text, language: what both continue; an empty language where it was not said.
        swapped: whether the second model stands on the left.
        first, second: what the two models wrote; None while they did not.
        choice: what the reader preferred, as one of `CHOICES`, by where it stood; empty before.
        time: when that was, UTC.
    """

    text: str
    language: str
    swapped: bool
    first: str | None = None
    second: str | None = None
    choice: str = ""
    time: str = ""

    @property
    def is_written(self) -> bool:
        """Whether both models wrote."""
        return self.first is not None and self.second is not None

    @property
    def preferred(self) -> int | None:
        """Which model was preferred, 0 or 1; None for neither, and before."""
        if self.choice not in (LEFT, RIGHT):
            return None
        return int((self.choice == RIGHT) != self.swapped)


@dataclass(frozen=True)
class Sitting:
    """A sitting as it stands.

    Attributes:
        id: 32 hex digits, which nobody can guess.
        models: names of the two.
        asked: who writes and how, as the page's controls said.
        seed: of the order of prompts and sides.
        prompts: in the order they are judged.
        begun: when, UTC.
        ended: whether the reader ended it before the last prompt.
    """

    id: str
    models: tuple[str, str]
    asked: dict[str, Any]
    seed: int
    prompts: tuple[Prompt, ...]
    begun: str = ""
    ended: bool = False

    @property
    def current(self) -> int | None:
        """The place of the prompt that is to be judged, from 0; None when there is none any more."""
        if self.ended:
            return None
        return next((place for place, one in enumerate(self.prompts) if not one.choice), None)

    @property
    def is_over(self) -> bool:
        """Whether who is who may be told."""
        return self.current is None

    @property
    def judged(self) -> list[Prompt]:
        """The prompts that were judged."""
        return [one for one in self.prompts if one.choice]

    @property
    def tally(self) -> Tally:
        """The count of what was preferred, with its sign test and interval; the sides are `models`, in their order."""
        chosen = [one.preferred for one in self.judged]
        return Tally(self.models, (chosen.count(0), chosen.count(1)), chosen.count(None), 0, len(chosen))

    def pair(self, place: int) -> Pair:
        """Return what both wrote to a prompt, as the page shows it: hidden while the sitting goes on."""
        one = self.prompts[place]
        left, right = (Continuation(text or "") for text in (one.first, one.second))
        return Pair(
            one.text,
            one.language,
            left,
            right,
            names=self.models,
            swapped=one.swapped,
            hidden=not self.is_over,
        )

    def with_written(self, place: int, first: str, second: str) -> "Sitting":
        """Return the sitting with what both wrote to a prompt; what was written before stays.

        Where both wrote the same text there is nothing to prefer, and nobody is asked.
        """
        one = self.prompts[place]
        if one.is_written:
            return self
        judged = {"choice": SAME, "time": _now()} if first == second else {}
        return self._with(place, replace(one, first=first, second=second, **judged))

    def with_choice(self, place: int, choice: str) -> "Sitting":
        """Return the sitting with a judgement of the prompt that is current.

        Raises:
            UsageError: no such choice, or another prompt is current: what was judged stays.
        """
        if choice not in CHOICES:
            raise UsageError(f"{choice!r} is no judgement; expected one of {', '.join(CHOICES)}.")
        if place != self.current or not self.prompts[place].is_written:
            raise UsageError("This prompt was judged already, or is not written yet.")
        return self._with(place, replace(self.prompts[place], choice=choice, time=_now()))

    def _with(self, place: int, one: Prompt) -> "Sitting":
        return replace(self, prompts=(*self.prompts[:place], one, *self.prompts[place + 1 :]))

    def to_json(self) -> dict[str, Any]:
        """Return the sitting as a run keeps it."""
        return {"schema_version": 1, **asdict(self)}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Sitting":
        """Read a sitting that a run keeps.

        Raises:
            DamagedError: it is none.
        """
        try:
            prompts = tuple(Prompt(**one) for one in facts["prompts"])
            first, second = map(str, facts["models"])
            known = {name: facts[name] for name in ("id", "asked", "seed", "begun", "ended")}
            return cls(models=(first, second), prompts=prompts, **known)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"This is no sitting as a run keeps it ({error}).") from error

    def to_frame(self) -> "pd.DataFrame":
        """Return one row for each prompt: what both wrote, who stood where, what was preferred.

        Raises:
            UsageError: it goes on, so who is who may not be told.
        """
        if not self.is_over:
            raise UsageError("This sitting goes on; who wrote what is told at its end.")
        import pandas as pd

        rows = []
        for number, one in enumerate(self.prompts, start=1):
            sides = self.models[::-1] if one.swapped else self.models
            who = one.preferred
            rows.append(
                {
                    "number": number,
                    "prompt": one.text,
                    "language": one.language,
                    "left": sides[0],
                    "right": sides[1],
                    "choice": one.choice,
                    "preferred": "" if who is None else self.models[who],
                    "time": one.time,
                    **{
                        f"written by {name}": text
                        for name, text in zip(self.models, (one.first, one.second), strict=True)
                    },
                }
            )
        return pd.DataFrame(rows)


def begin(models: tuple[str, str], prompts: Sequence[tuple[str, str]], asked: dict[str, Any]) -> Sitting:
    """Return a new sitting, its order and sides drawn.

    Args:
        models: names of the two; the one that `asked` calls left comes first.
        prompts: (text, language code or empty).
        asked: who writes and how, JSON-able.

    Raises:
        UsageError: no prompt or too many, or twice the same model.
    """
    unique = list(dict.fromkeys(prompts))
    if not 1 <= len(unique) <= MAX_PROMPTS:
        raise UsageError(f"{len(unique)} prompts were chosen; a sitting takes 1 to {MAX_PROMPTS}.")
    if models[0] == models[1]:
        raise UsageError(f"Both sides are {models[0]}; choose two that differ.")
    seed = secrets.randbits(32)
    ordered, swaps = drawn(seed, len(unique))
    made = tuple(Prompt(*unique[place], swapped) for place, swapped in zip(ordered, swaps, strict=True))
    return Sitting(secrets.token_hex(16), models, dict(asked), seed, made, _now())


def drawn(seed: int, number: int) -> tuple[list[int], list[bool]]:
    """Return the order of so many prompts, and for each in that order whether its sides are swapped.

    Sides are balanced: of two prompts one is swapped, in random order, so that a liking for one side cancels out.
    """
    rng = random.Random(seed)
    ordered = list(range(number))
    rng.shuffle(ordered)
    first = rng.random() < 0.5
    swaps = [(place % 2 == 0) == first for place in range(number)]
    rng.shuffle(swaps)
    return ordered, swaps


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def is_sitting_id(text: str) -> bool:
    """Whether a text is the id of a sitting."""
    return _ID.fullmatch(text) is not None


def keep_sitting(run: Run, sitting: Sitting) -> None:
    """Write a sitting into the run, over and done or not.

    Raises:
        UsageError: the run is read only.
        LprError: the disk refuses.
    """
    if reason := why_read_only(run):
        raise UsageError(reason)
    folder = run.path / "sittings"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{sitting.id}.json", sitting.to_json())


def kept_sitting(run: Run, sitting_id: str) -> Sitting | None:
    """Return a sitting that the run keeps, or None.

    Raises:
        DamagedError: its file cannot be read.
    """
    path = run.path / "sittings" / f"{sitting_id}.json"
    if not is_sitting_id(sitting_id) or not path.is_file():
        return None
    return Sitting.from_json(read_json_object(path))


def kept_sittings(run: Run) -> list[Sitting]:
    """Return the sittings that the run keeps, the newest first; damaged ones are left out."""
    found = []
    for path in sorted((run.path / "sittings").glob("*.json")):
        try:
            found.append(Sitting.from_json(read_json_object(path)))
        except LprError:
            continue
    return sorted(found, key=lambda one: one.begun, reverse=True)


def delete_sitting(run: Run, sitting_id: str) -> None:
    """Delete a sitting that the run keeps.

    Raises:
        UsageError: the run is read only.
        MissingError: it keeps none of that id.
    """
    if reason := why_read_only(run):
        raise UsageError(reason)
    if not is_sitting_id(sitting_id) or not (path := run.path / "sittings" / f"{sitting_id}.json").is_file():
        raise MissingError(f"Run {run.id} keeps no such sitting; somebody may have deleted it.")
    path.unlink()
