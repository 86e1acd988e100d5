"""Decides each claim: it holds, it fails, or it cannot be decided here, and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.effects import Arms, Effect, effect_of, num_layers
from lpr_lab.runs.scorecard.parts import EXACT, MIN_SEEDS, Claim, Part

HOLDS, FAILS, UNDECIDED = "holds", "fails", "not decidable here"


@dataclass(frozen=True)
class Decided:
    """A part of a claim with its number, the verdict, and why it is that; empty where the number says so itself."""

    part: Part
    effect: Effect
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Row:
    """A claim with its verdict, why, and its parts; of an exact claim `checks` in their place."""

    claim: Claim
    verdict: str
    why: str
    parts: tuple[Decided, ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()

    @property
    def runs(self) -> tuple[str, ...]:
        """Ids of all runs that it rests on."""
        of_parts = [run for decided in self.parts for run in decided.effect.runs]
        return tuple(dict.fromkeys([*of_parts, *(str(run) for check in self.checks for run in check["runs"])]))


def decide(part: Part, effect: Effect, layers: int = 0, of: str = "seeds") -> Decided:
    """Decide a part by where its interval lies: inside its range, outside of it, or over one of its ends.

    Args:
        part: what was claimed.
        effect: what was measured.
        layers: of the base; 0 where that is not known.
        of: what its interval is over, for the reader.
    """
    if effect.problem:
        return Decided(part, effect, UNDECIDED, effect.problem)
    if layers < part.min_layers:
        why = f"a base of {layers} layers; layers differ enough from {part.min_layers} on"
        return Decided(part, effect, UNDECIDED, why)
    if effect.seeds < MIN_SEEDS:
        return Decided(part, effect, UNDECIDED, f"{effect.seeds} of at least {MIN_SEEDS} {of}")
    above, below = (part.above if part.above is not None else -float("inf")), part.below
    below = float("inf") if below is None else below
    if above < effect.low and effect.high < below:
        return Decided(part, effect, HOLDS)
    if effect.high <= above or effect.low >= below:
        return Decided(part, effect, FAILS)
    return Decided(part, effect, UNDECIDED, "the interval reaches over the end of the range")


def row_of(claim: Claim, arms: Arms, checks: Sequence[Mapping[str, Any]] = ()) -> Row:
    """Return a claim with its verdict: it fails where a part of it fails, and holds where all parts do.

    Args:
        claim: of either kind.
        arms: runs by arm and seed.
        checks: of exact claims (see `exact`).
    """
    if claim.kind == EXACT:
        return _exact(claim, [check for check in checks if check["claim"] == claim.number])
    runs: list[Run] = [run for own in arms.values() for run in own.values()]
    layers = num_layers(runs)

    def decided(part: Part) -> Decided:
        return decide(part, effect_of(part, arms), layers)

    parts = tuple(decide_with_premise(part, decided) for part in claim.parts)
    verdict = of_all([one.verdict for one in parts])
    named = [one for one in parts if one.verdict == verdict]
    why = ""
    if verdict == FAILS:
        why = f"{len(named)} of {len(parts)} parts fail: " + " ".join(one.part.text for one in named)
    elif verdict == UNDECIDED:
        why = "; ".join(dict.fromkeys(f"{one.part.text} {one.why}" for one in named))
    return Row(claim, verdict, why, parts)


def decide_with_premise(part: Part, decided: Callable[[Part], Decided]) -> Decided:
    """Return a part with its verdict; where what it presupposes does not hold, it says nothing.

    Args:
        part: what was claimed.
        decided: gives the verdict of a part by itself.
    """
    found = decided(part)
    if part.premise is None or found.verdict == UNDECIDED or decided(part.premise).verdict == HOLDS:
        return found
    return Decided(part, found.effect, UNDECIDED, f"it presupposes what does not hold here: {part.premise.text}")


def _exact(claim: Claim, checks: Sequence[Mapping[str, Any]]) -> Row:
    if not checks:
        return Row(claim, UNDECIDED, "not checked: run `lpr-lab scorecard run --only " + f"{claim.number}`")
    failed = [str(check["text"]) for check in checks if not check["holds"]]
    return Row(claim, FAILS if failed else HOLDS, "; ".join(failed), checks=tuple(checks))


def of_all(verdicts: Sequence[str]) -> str:
    """Return the verdict of what has several parts: it fails where one fails, and holds where all hold."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and set(verdicts) == {HOLDS} else UNDECIDED
