"""Preference votes between two continuations: counts, and a sign test.

The exact two-sided sign test: ties and "both bad" say nothing about which is better and are left out; if the n that
remain were fair coin tosses, p is the probability of a split at least as uneven as the one seen. The exact interval of
the share that one side wins leaves one half out where p is below 0.05, so both say the same.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

from lpr_lab.measure.significance import direction, share_interval

CHOICES = ("left", "right", "tie", "both bad")


def sign_test(first: int, second: int) -> float:
    """Return the exact two-sided p of a split under chance; 1 when there is nothing to go by.

    >>> sign_test(9, 1), sign_test(0, 0)
    (0.021484375, 1.0)
    """
    total = first + second
    tail = sum(comb(total, k) for k in range(min(first, second) + 1)) / 2**total
    return min(1.0, 2 * tail)


@dataclass(frozen=True)
class Tally:
    """Judgements of pairs from the same two sides, whichever stood on the left.

    Attributes:
        sides: names of the two, in alphabetical order.
        wins: how often each was preferred.
        ties, both_bad: how often neither was.
        blind: how many of all judgements were made without knowing the sides.
    """

    sides: tuple[str, str]
    wins: tuple[int, int]
    ties: int
    both_bad: int
    blind: int

    @property
    def decided(self) -> int:
        """The n of the test."""
        return sum(self.wins)

    @property
    def p(self) -> float:
        """The exact two-sided p."""
        return sign_test(*self.wins)

    def win_share(self, side: int) -> tuple[float, float]:
        """Return the exact 95 % interval of the share of decided judgements that one of the sides (0, 1) wins."""
        return share_interval(self.wins[side], self.decided)

    @property
    def preferred(self) -> str | None:
        """The side that is clearly preferred (the interval of its share of wins is above one half), or None."""
        low, high = self.win_share(0)
        return {1: self.sides[0], -1: self.sides[1], 0: None}[direction(low - 0.5, high - 0.5)]


def tally(records: Iterable[Mapping[str, Any]], same_text: Container[str] = ()) -> list[Tally]:
    """Count stored judgements, one tally per two sides; of several judgements of one pair only the first counts.

    What is judged again is judged by someone who knows the sides.

    Args:
        records: each with `pair` (id), `left` and `right` (names), `choice` (one of `CHOICES`) and `blind`; oldest
            first.
        same_text: ids of pairs whose two texts are the same: whatever was chosen, they are ties.
    """
    first: dict[tuple[str, ...], Mapping[str, Any]] = {}
    for record in records:
        sides = sorted((str(record.get("left", "")), str(record.get("right", ""))))
        if record.get("choice") in CHOICES and all(sides) and sides[0] != sides[1]:
            pair = str(record.get("pair", ""))
            first.setdefault((*sides, pair), {**record, "choice": "tie"} if pair in same_text else record)
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for (one, two, _), record in first.items():
        grouped.setdefault((one, two), []).append(record)
    return [_count(sides, group) for sides, group in grouped.items()]


def _count(sides: tuple[str, str], records: list[Mapping[str, Any]]) -> Tally:
    choices = [str(record["choice"]) for record in records]
    chosen = [record[record["choice"]] for record in records if record["choice"] in ("left", "right")]
    return Tally(
        sides,
        (chosen.count(sides[0]), chosen.count(sides[1])),
        choices.count("tie"),
        choices.count("both bad"),
        sum(1 for record in records if record.get("blind")),
    )
