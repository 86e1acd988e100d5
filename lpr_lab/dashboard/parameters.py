"""Validation of parameters: every number, list and text that pages and endpoints take, declared once.

A bad value is refused with the value and what was expected; nothing is rounded, cut or replaced without a word.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lpr_lab.errors import UsageError, did_you_mean
from lpr_lab.runs.people.own_texts import MAX_CHARACTERS
from lpr_lab.text.unicode import check_text

MAX_PER_LAYER, MAX_LAYERS = 99, 512
_SHOWN = 40
"""Characters of a refused value."""


@dataclass(frozen=True)
class Number:
    """A number with a range.

    Attributes:
        name: as the reader knows it.
        low, high: both allowed.
        unit: what it counts, for the message.
        is_whole: whether it has no fraction.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    is_whole: bool = True

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        kind = "a whole number" if self.is_whole else "a number"
        unit = f" {self.unit}" if self.unit else ""
        return f"{kind} from {self._written(self.low)} to {self._written(self.high)}{unit}"

    def read(self, value: Any) -> Any:
        """Return the value as an int (or a float).

        Raises:
            UsageError: it is no number, no whole one, or out of range; text is no number.
        """
        if not self._fits(value):
            raise UsageError(f"{self.name} is {shown(value)}; expected {self.expected}.")
        return int(value) if self.is_whole else float(value)

    def _fits(self, value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool) or not self.low <= value <= self.high:
            return False
        return not self.is_whole or value == math.floor(value)

    def read_text(self, text: str) -> Any:
        """Return what an address or a form says as text; see `read`."""
        try:
            value = float(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            value = math.nan
        if not self._fits(value):
            raise UsageError(f"{self.name} is {shown(text)}; expected {self.expected}.")
        return self.read(value)

    def _written(self, value: float) -> str:
        return f"{int(value):,}" if value == int(value) else f"{value:g}"


@dataclass(frozen=True)
class Text:
    """A text with a largest length, in characters."""

    name: str
    most: int
    may_be_empty: bool = False

    def read(self, value: Any) -> str:
        """Return the text.

        Raises:
            UsageError: it is no text, empty, or too long, with how long it is; nothing of it is cut.
        """
        if not isinstance(value, str):
            raise UsageError(f"{self.name} is {shown(value)}; expected text.")
        if not self.may_be_empty and not value.strip():
            raise UsageError(f"{self.name} is empty; type some text.")
        if len(value) > self.most:
            raise UsageError(
                f"{self.name} has {len(value):,} characters; at most {self.most:,} are taken. Nothing was cut: shorten "
                f"it by {len(value) - self.most:,}."
            )
        return check_text(value, self.name)


@dataclass(frozen=True)
class Choice:
    """One of a few names."""

    name: str
    names: tuple[str, ...]

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        return " or ".join(filter(None, [", ".join(name or "nothing" for name in self.names[:-1]), self.names[-1]]))

    def read(self, value: Any) -> str:
        """Return the name.

        Raises:
            UsageError: it is none of them.
        """
        if not isinstance(value, str) or value not in self.names:
            hint = did_you_mean(value, self.names) if isinstance(value, str) else ""
            raise UsageError(f"{self.name} is {shown(value)}; expected {self.expected}.{hint}")
        return value


@dataclass(frozen=True)
class Numbers:
    """A list of numbers of one kind."""

    name: str
    each: Number
    most: int

    def read(self, value: Any) -> tuple[Any, ...]:
        """Return the numbers.

        Raises:
            UsageError: it is no list, too long, or one of its values is refused, which is named by its place.
        """
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise UsageError(f"{self.name} is {shown(value)}; expected a list of numbers.")
        if len(value) > self.most:
            raise UsageError(f"{self.name} has {len(value):,} numbers; at most {self.most:,} are taken.")
        return tuple(
            Number(f"Number {place} of {self.name[:1].lower()}{self.name[1:]}", *_range(self.each)).read(one)
            for place, one in enumerate(value, 1)
        )


def _range(number: Number) -> tuple[float, float, str, bool]:
    return number.low, number.high, number.unit, number.is_whole


def shown(value: Any) -> str:
    """Return a refused value as it is quoted: text in quotes, nothing as `nothing`, long ones shortened.

    >>> shown(None), shown("x"), shown(True), shown(float("nan"))
    ('nothing', '“x”', 'true', 'nan')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = value.encode("utf-8", "backslashreplace").decode()
        return f"“{text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}”"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return f"a number of {int(math.log10(abs(value))) + 1} digits"
    text = f"{value:,}" if isinstance(value, int) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


# ------------------------------------------------------------------------------------------------ what there is

SEED = Number("Seed", 0, 2**32 - 1)
NEW_TOKENS = Number("New tokens", 1, 256, "tokens for each side")
TEMPERATURE = Number("Temperature", 0, 2, is_whole=False)
PROMPT = Text("The prompt", 2000)
TRACED = Text("The text", MAX_CHARACTERS)
TOP_K = Number("Top-k", 2, MAX_PER_LAYER, "experts at work on a token")
STAGE_TOKENS = Number("Tokens of stage 1", 1, 10**12)
BUDGET = Number("New experts in all", 1, MAX_PER_LAYER * MAX_LAYERS)
SIMILARITY = Numbers("Similarity", Number("Similarity", 1e-9, 1e9, is_whole=False), MAX_LAYERS)
LAYER = Number("Layer", -1, MAX_LAYERS - 1)
RUN = Text("The run id", 81, may_be_empty=True)
LANGUAGE = Text("The language", 35, may_be_empty=True)
PER_LAYER = Number("New experts of a layer", 0, MAX_PER_LAYER)

WAY = Choice("What to do", ("force", "ban"))
STEERING = Choice("What to do with the expert", ("", "force", "ban", "scale"))
STRENGTH = Number("Strength", 0.1, 10, is_whole=False)
LAYERS = Text("Layers", 200, may_be_empty=True)
AFTER = Number("Written tokens before it begins", 0, NEW_TOKENS.high)
_ANY = 10**9 - 1
"""What a run really has is known only to its page."""
EXPERT = Number("Expert", 0, _ANY)
ADDRESS: dict[str, Number] = {
    "seed": SEED,
    "topk": TOP_K,
    "tokens": STAGE_TOKENS,
    "budget": BUDGET,
    "layer": Number("Layer", 0, _ANY),
    "expert": EXPERT,
    "tok": Number("Token", 0, _ANY),
    "doc": Number("Document", 0, _ANY),
}
"""The numbers of addresses, by key."""


def budget_of(layers: int) -> Number:
    """Return the range of a budget of new experts for so many layers."""
    return Number(BUDGET.name, 1, MAX_PER_LAYER * layers, f"over {layers} layers")
