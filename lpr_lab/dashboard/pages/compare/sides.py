"""Which model writes on which side of page `/compare`, how fast it was, and the votes of readers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lpr_lab.dashboard.query import Query
from lpr_lab.errors import LprError
from lpr_lab.runs.model_ref import BASE, EXPANDED, ModelRef, stages_of
from lpr_lab.runs.people.continuations import Pair, pair_id
from lpr_lab.runs.run import Run
from lpr_lab.text.sample_texts import PROMPTS

PREFERENCES = "preferences"
REVEALED = "revealed"
RUN = "run:"
"""Before the id of another run, in the pickers of who writes."""
FIRST = "Once upon a time, in a small village"


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


def is_typed(prompt: Any, run: Run) -> bool:
    """Whether a prompt is the reader's own: neither one of ours nor one of a pair that the run keeps."""
    text = prompt.strip() if isinstance(prompt, str) else ""
    known = {*PROMPTS.values(), FIRST, *(str(record.get("prompt")) for record in run.generations.read())}
    return bool(text) and text not in {one.strip() for one in known}


def comparable(run: Run, runs: Iterable[Run]) -> list[Run]:
    """Return the other runs whose model can write beside this one's: with weights, and on the same base."""
    base = run.config.get("base")
    found = []
    for other in runs:
        try:
            if other.problem is None and other.id != run.id and other.paths.has_checkpoint:
                if other.config.get("base") == base and stages_of(other):
                    found.append(other)
        except LprError:
            continue  # a run that cannot be read is no choice; the page Runs says why
    return found


def choices_in(query: Query) -> tuple[str, str]:
    """Return who an address puts on the left and on the right, as the pickers say it.

    As on the page Retention, `stage` is what is looked at (right) and `run2` and `stage2` what it is compared with
    (left). `run2` as the name of a stage stands for the other run.
    """
    other = f"{RUN}{query.run2}" if query.run2 else ""
    right = other if query.stage == "run2" else query.stage
    left = other if query.stage2 == "run2" or (not query.stage2 and query.stage != "run2") else query.stage2
    return left or BASE, right or EXPANDED


def address_of(left: str, right: str) -> dict[str, str]:
    """Return the part of an address that says who is on either side; `choices_in` reads it again."""
    other = next((name.removeprefix(RUN) for name in (left, right) if name.startswith(RUN)), "")
    called = ["run2" if name.startswith(RUN) else name for name in (left, right)]
    if called == ["run2", EXPANDED] or (called[0] == BASE and not other):
        called[0] = ""
    return {"run2": other, "stage2": called[0], "stage": "" if called[1] == EXPANDED else called[1]}


def speaker(choice: str, run: Run, others: Iterable[Run], default: str) -> ModelRef:
    """Return who writes on one side, from what its picker says; what there is not is the default."""
    if choice.startswith(RUN):
        other = next((one for one in others if f"{RUN}{one.id}" == choice), None)
        return ModelRef(other, "") if other is not None else ModelRef(run, default)
    return ModelRef(run, choice if choice in (BASE, EXPANDED, *stages_of(run)[:-1]) else default)


def choice_of(side: ModelRef, run: Run) -> str:
    """Return what the picker says for a side."""
    return f"{RUN}{side.run.id}" if side.run.id != run.id else side.stage or EXPANDED


FAR, LONG = 4, 400
"""A prompt of so many times the characters, and more than so many, takes another time than was measured."""
MEASURED = 20
"""Pairs that are looked back on."""


@dataclass(frozen=True)
class Speed:
    """How fast pairs were generated: the slope over new tokens, and over the prompt, which is read before any of them.

    Attributes:
        per_token: seconds for a new token of both sides.
        per_character: seconds for a character of the prompt; 0 where it cannot be told from the pairs there are.
        characters: of the prompt that was measured last.
    """

    per_token: float
    per_character: float
    characters: int

    def seconds(self, tokens: int, characters: int) -> float:
        """Return how long so many new tokens after so long a prompt take."""
        return self.per_token * tokens + self.per_character * characters

    def is_far(self, characters: int) -> bool:
        """Whether a prompt is so unlike the one measured that its time would only be guessed."""
        few, many = sorted((max(characters, 1), max(self.characters, 1)))
        return not self.per_character and many > FAR * few and many > LONG


def speed_of(records: Iterable[dict[str, Any]]) -> Speed | None:
    """Return how fast the newest pairs were, or None where none was measured; long prompts are told from short ones."""
    found = []
    for record in reversed(list(records)):
        pair = Pair.from_record(record)
        tokens = max(pair.left.tokens or 0, pair.right.tokens or 0)
        if tokens and pair.seconds:
            found.append((tokens, len(pair.prompt), pair.seconds))
        if len(found) == MEASURED:
            break
    if not found:
        return None
    tokens, characters, seconds = found[0]
    # Two unknowns, from the newest pair and the one whose prompt differs most from its own.
    other = max(found, key=lambda one: abs(one[1] - characters))
    determinant = tokens * other[1] - other[0] * characters
    if abs(other[1] - characters) > LONG and determinant:
        per_token = (seconds * other[1] - other[2] * characters) / determinant
        per_character = (tokens * other[2] - other[0] * seconds) / determinant
        if per_token > 0 and per_character > 0:
            return Speed(per_token, per_character, characters)
    return Speed(seconds / tokens, 0.0, characters)


# ------------------------------------------------------------------------------------------------ preferences


def vote(pair: Pair, choice: str, pair_name: str, blind: bool) -> dict[str, Any]:
    """Return a judgement as a run keeps it; left and right as the reader saw them."""
    (left, _), (right, _) = pair.shown
    when = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    who = {"pair": pair_name, "language": pair.language, "left": left, "right": right}
    return {**who, "choice": choice, "blind": blind, "time": when}


def reveal(pair: Pair, pair_name: str) -> dict[str, Any]:
    """Return the record that a pair was revealed without a judgement; it counts for nothing, and ends judging."""
    return vote(pair, REVEALED, pair_name, blind=False)


def why_not_judged(run: Run, pair: Pair, settings: Mapping[str, Any]) -> str:
    """Return, in a sentence, why a pair cannot be judged (any more); empty where it can.

    A pair is judged once, whichever side stands on the left, in whatever window: after that its sides are known.
    """
    if pair.left.text == pair.right.text:
        return "Both wrote the same text, so there is nothing to prefer."
    turned = replace(pair, names=(pair.names[1], pair.names[0]))
    names = {pair_id(one.to_record(dict(settings))) for one in (pair, turned)}
    found = next((one for one in run.generations.read(PREFERENCES) if one.get("pair") in names), None)
    if found is None:
        return ""
    if found.get("choice") == REVEALED:
        return "This pair was revealed before it was judged; who knows the sides is not impartial."
    return "This pair was judged already; a pair is judged once."


def same_texts(kept: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the ids of the kept pairs whose two texts are the same."""
    found = {name: Pair.from_record(dict(record)) for name, record in kept.items()}
    return {name for name, pair in found.items() if pair.left.text == pair.right.text}


def revealed(pair: Pair) -> Pair:
    """Return the pair with the names on it; the sides stay where the reader saw them."""
    return replace(pair, hidden=False)
