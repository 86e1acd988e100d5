"""The claims on several bases side by side, and over bases that differ by the seed they were trained from.

However many seeds its arms have, a verdict on one base is about that base. Small worlds of several seeds are a sample
of bases: over them a number is the mean of what each world gave, and its interval is Student's t over the worlds, which
holds what differs between them and what each is uncertain of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lpr_lab.runs.scorecard.claims import CLAIMS
from lpr_lab.runs.scorecard.effects import Effect, Sample, combined
from lpr_lab.runs.scorecard.parts import EXACT, MIN_SEEDS, Part
from lpr_lab.runs.scorecard.table import effect_json
from lpr_lab.runs.scorecard.verdict import UNDECIDED, Decided, decide, decide_with_premise, of_all

Card = Mapping[str, Any]
"""A scorecard as JSON, see `table`."""
_NUMBERS = ("value", "low", "high", "seeds", "verdict", "why")
_NOTHING = {"value": None, "low": None, "high": None, "seeds": 0, "verdict": UNDECIDED, "why": "not in this scorecard"}


def compare_bases(cards: Mapping[str, Card], worlds: Sequence[str] = ()) -> dict[str, Any]:
    """Return every claim and every part of it with what each base says of it, JSON-able.

    Args:
        cards: scorecards by base, in the order in which they are shown.
        worlds: those of the bases that differ by their seed alone; a world counts where a number has at least
            `MIN_SEEDS` seeds in it.

    Returns:
        `bases`, `worlds`, and `claims`: per claim `number`, `claim`, `bases` (the verdict of each), `over_worlds` (a
        verdict, or None without worlds), and `parts`, of which each has `text`, `above`, `below`, `bases` (value, low,
        high, seeds, verdict and why of each), and `over_worlds` (the same with `worlds` in place of seeds, or None).
    """
    parts_of = {base: _parts(card) for base, card in cards.items()}
    of_worlds = [(cards[world], parts_of[world]) for world in worlds]
    claims = []
    for claim in CLAIMS:
        verdicts = {base: _row(card, claim.number)["verdict"] for base, card in cards.items()}
        rows = [
            {
                "text": part.text,
                "above": part.above,
                "below": part.below,
                "bases": {base: parts.get(part, _NOTHING) for base, parts in parts_of.items()},
                "over_worlds": _over_worlds(part, of_worlds) if worlds else None,
            }
            for part in claim.parts
        ]
        own = [verdicts[world] for world in worlds] if claim.kind == EXACT else [_verdict(row) for row in rows]
        over = of_all(own) if worlds else None
        facts = {"number": claim.number, "claim": claim.text, "kind": claim.kind}
        claims.append({**facts, "bases": verdicts, "over_worlds": over, "parts": rows})
    return {"bases": list(cards), "worlds": list(worlds), "claims": claims}


def _row(card: Card, number: int) -> Mapping[str, Any]:
    return next((row for row in card["claims"] if row["number"] == number), {"verdict": UNDECIDED, "parts": ()})


def _parts(card: Card) -> dict[Part, dict[str, Any]]:
    """Return what a scorecard says of each part, without those that it does not have."""
    found = {(row["number"], part["text"]): part for row in card["claims"] for part in row["parts"]}
    known = {part: (claim.number, part.text) for claim in CLAIMS for part in claim.parts}
    return {part: {name: found[place][name] for name in _NUMBERS} for part, place in known.items() if place in found}


def _verdict(row: Mapping[str, Any]) -> str:
    return str(row["over_worlds"]["verdict"]) if row["over_worlds"] else UNDECIDED


def _over_worlds(part: Part, worlds: Sequence[tuple[Card, Mapping[Part, Any]]]) -> dict[str, Any]:
    """Return the mean of a part over worlds, with its interval and its verdict."""
    layers = min(int(card.get("layers") or 0) for card, _ in worlds)

    def decided(one: Part) -> Decided:
        found = (parts.get(one, _NOTHING) for _, parts in worlds)
        values = [of["value"] for of in found if of["value"] is not None and of["seeds"] >= MIN_SEEDS]
        samples = {number: Sample(value) for number, value in enumerate(values)}
        effect = combined(samples) if samples else Effect(problem="no world has a number for it")
        return decide(one, effect, layers, of="worlds")

    of = decide_with_premise(part, decided)
    numbers = effect_json(of.effect)
    ends = {name: numbers[name] for name in ("value", "low", "high")}
    return {**ends, "worlds": of.effect.seeds, "verdict": of.verdict, "why": of.why}
