"""Select and order runs by any of their settings and by the numbers of their results.

A value has a dotted name: a setting's own (`learning_rate`, `stage1.tokens`), or its place in `results.json` after
`results.` (`results.summary.heldout.expanded.mean_change_percent`); besides, `run.created` and `run.title`. What a run
did not record it does not have: no condition holds for it, and it comes last whichever way round.

Conditions are written one after the other with semicolons between them, `seed=1;seed=2;learning_rate>=0.001`. Two
values of one name are either or; different names, and bounds, must all hold.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.compare.differences import flatten
from lpr_lab.runs.formats import dotted
from lpr_lab.runs.run import Run
from lpr_lab.storage import file_stamp

RESULTS = "results."
CREATED, TITLE = "run.created", "run.title"
NOTHING = "none"
"""The text of a setting that was recorded as nothing."""
_CONDITION = re.compile(r"(?P<name>[^=<>;]+)(?P<sign>>=|<=|=)(?P<text>[^;]*)")
_HELD = 4096
"""Runs whose values are kept in memory."""

Sign = Literal["=", ">=", "<="]


@dataclass(frozen=True)
class Value:
    """A value of a run.

    Attributes:
        text: as comparisons show it.
        number: the same as a number; None where it is none.
    """

    text: str
    number: float | None = None

    @property
    def place(self) -> tuple[int, float, str]:
        """What it is ordered by: numbers first, then texts."""
        return (0, self.number, "") if self.number is not None else (1, 0.0, self.text.casefold())


@dataclass(frozen=True)
class Condition:
    """One condition on a value.

    Attributes:
        name: dotted, see the module.
        sign: `=` compares texts, the others numbers.
        text: what it is compared with.
    """

    name: str
    sign: Sign
    text: str

    def __str__(self) -> str:
        """Write it as `read_conditions` takes it."""
        return f"{_escaped(self.name)}{self.sign}{_escaped(self.text)}"

    def holds(self, value: Value | None) -> bool:
        """Whether it holds for a value; not for one that was not recorded."""
        if value is None:
            return False
        if self.sign == "=":
            return value.text == self.text
        if value.number is None:
            return False
        bound = float(self.text)
        return value.number >= bound if self.sign == ">=" else value.number <= bound


def values_of(run: Run) -> Mapping[str, Value]:
    """Return the values of a run by name; of one that cannot be read, none: a list must not fail for one of its lines.

    Files are read once for as long as they stay as they are.
    """
    if run.problem is not None:
        return {}
    names = ("config.yaml", "config.input.yaml", "results.json")
    return _values(run.path, tuple(file_stamp(run.path / name) for name in names))


@lru_cache(maxsize=_HELD)
def _values(path: Path, stamps: tuple[Any, ...]) -> Mapping[str, Value]:
    run = Run(path)
    found = {CREATED: Value(run.created), TITLE: Value(run.title)}
    try:
        texts = dict(flatten(run.config))
        for name, value in dotted(run.config):
            if name in texts:
                text = texts[name]
                found[name] = Value(NOTHING if text is None else text, _number(value))
        for name, value in dotted(run.results):
            if (number := _number(value)) is not None and not name.endswith("schema_version"):
                found[f"{RESULTS}{name}"] = Value(f"{number:.6g}", number)
    except (LprError, OSError):
        pass
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def read_conditions(text: str) -> list[Condition]:
    """Read conditions with semicolons between them.

    >>> [str(one) for one in read_conditions("seed=1;note=a%3Bb;lr>=0.1")]
    ['seed=1', 'note=a%3Bb', 'lr>=0.1']

    Raises:
        UsageError: one of them is none, or bounds something by what is no number.
    """
    return [_condition(part) for part in filter(None, text.split(";"))]


def _condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise UsageError(f"“{text[:80]}” is no condition; expected NAME=VALUE, NAME>=NUMBER or NAME<=NUMBER.")
    sign: Any = found["sign"]
    made = Condition(unquote(found["name"]).strip(), sign, unquote(found["text"]).strip())
    if sign != "=":
        try:
            if abs(float(made.text)) == float("inf") or float(made.text) != float(made.text):
                raise ValueError
        except ValueError:
            raise UsageError(f"“{made.text[:80]}” in “{text[:80]}” is no number; expected one after {sign}.") from None
    return made


def write_conditions(conditions: Iterable[Condition]) -> str:
    """Write conditions as `read_conditions` takes them."""
    return ";".join(map(str, conditions))


def _escaped(text: str) -> str:
    # Not `quote`: a person reads these in an address, where any script may stand.
    return re.sub(r"[%;=<>]", lambda found: f"%{ord(found[0]):02X}", text)


def select(runs: Sequence[Run], conditions: Sequence[Condition]) -> list[Run]:
    """Return the runs for which all conditions hold, in their order."""
    either: dict[str, list[Condition]] = {}
    bounds = []
    for one in conditions:
        if one.sign == "=":
            either.setdefault(one.name, []).append(one)
        else:
            bounds.append(one)
    kept = []
    for run in runs:
        values = values_of(run)
        if all(one.holds(values.get(one.name)) for one in bounds) and all(
            any(one.holds(values.get(name)) for one in ones) for name, ones in either.items()
        ):
            kept.append(run)
    return kept


def order(runs: Sequence[Run], sort: str) -> list[Run]:
    """Return the runs ordered by a value, `-` before its name for the largest first; as they are where `sort` is empty.

    Runs of equal value keep their order.
    """
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    if not name:
        return list(runs)
    having = [run for run in runs if name in values_of(run)]
    having.sort(key=lambda run: values_of(run)[name].place, reverse=descending)
    return having + [run for run in runs if name not in values_of(run)]


def names_in(runs: Iterable[Run]) -> dict[str, bool]:
    """Return the names of all values that some of these runs have, and whether the values differ between runs.

    One that only some of them recorded differs too.
    """
    seen: dict[str, set[str]] = {}
    counted: Counter[str] = Counter()
    number = 0
    for run in runs:
        number += 1
        for name, value in values_of(run).items():
            seen.setdefault(name, set()).add(value.text)
            counted[name] += 1
    return {name: len(texts) > 1 or counted[name] < number for name, texts in seen.items()}


def counts_of(runs: Iterable[Run], name: str) -> list[tuple[Value, int]]:
    """Return the values that these runs have of a name, in order, and how many runs have each."""
    found: dict[str, list[Value]] = {}
    for run in runs:
        if (value := values_of(run).get(name)) is not None:
            found.setdefault(value.text, []).append(value)
    return sorted(((ones[0], len(ones)) for ones in found.values()), key=lambda pair: pair[0].place)
