"""Whether the scorecard can see: the same arm twice, a planted difference, and labels that mean nothing.

All three are computed on the tables that the claims are decided from, by the same code, and stand above the claims. An
instrument that finds something where there is nothing, or nothing where something was planted, decides no claim.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.effects import Arms, Effect, NotMeasuredError, Sample, _bits, combined
from lpr_lab.runs.scorecard.parts import Term

FIRST, AGAIN, OTHER = "moe_lpr", "moe_lpr again", "full_replay"
PAIR = FIRST, AGAIN
"""The arm that is compared with itself."""
PLANTED_PERCENT = 1.0
ROLES = ("expanded", "original")


@dataclass(frozen=True)
class Check:
    """One check of the instrument: what was done, what came out, and whether that is as it must be.

    Attributes:
        name: short.
        text: what was done and what has to come out.
        effect: the difference that was found, in points.
        passes: None where it could not be done, and `why` says why.
        why: empty, or why not.
    """

    name: str
    text: str
    effect: Effect
    passes: bool | None
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it JSON-able."""
        from lpr_lab.runs.scorecard.table import effect_json

        return {
            "name": self.name,
            "text": self.text,
            "passes": self.passes,
            "why": self.why,
            **effect_json(self.effect),
        }


def check_instrument(arms: Arms) -> list[Check]:
    """Return the checks on the runs that there are, for both kinds of languages."""
    return [check for role in ROLES for check in (_again(arms, role), _planted(arms, role))] + [_shuffled(arms)]


def _again(arms: Arms, role: str) -> Check:
    name, text = f"A/A, {role}", f"{FIRST} against itself with other seeds ({role} languages): the interval covers 0."
    return _checked(name, text, arms, PAIR, role, lambda found: found.low <= 0 <= found.high)


def _planted(arms: Arms, role: str) -> Check:
    text = (
        f"The other seeds of {FIRST} with every document made {PLANTED_PERCENT:g} % dearer ({role} languages): found "
        "as worse."
    )
    name = f"planted {PLANTED_PERCENT:g} %, {role}"
    return _checked(name, text, arms, PAIR, role, lambda found: found.low > 0, dearer=PLANTED_PERCENT)


def _checked(
    name: str, text: str, arms: Arms, pair: tuple[str, str], role: str, passes: Any, dearer: float = 0.0
) -> Check:
    samples, why = _differences(arms, pair, role, dearer)
    found = combined(samples, _ids(arms, pair, samples)) if samples else Effect(problem=why)
    if len(samples) < 2:
        return Check(name, text, found, None, why or "fewer than two seeds")
    return Check(name, text, found, bool(passes(found)))


def _shuffled(arms: Arms) -> Check:
    """Swap the labels of two arms within seeds in every way: a difference must be found no oftener than by chance."""
    name = "shuffled labels"
    text = (
        f"{FIRST} and {OTHER} with their labels swapped within seeds, in every way but the true one and its mirror "
        "image: the interval covers 0 in at least 90 % of them."
    )
    samples, why = _differences(arms, (FIRST, OTHER), "original", 0.0)
    if len(samples) < 4:  # with three, one seed of three is swapped: hardly shuffled
        return Check(name, text, Effect(problem=why), None, why or "fewer than four seeds")
    covered = []
    for signs in product((1, -1), repeat=len(samples)):
        if abs(sum(signs)) == len(signs):
            continue
        found = combined({seed: _times(sign, one) for sign, (seed, one) in zip(signs, samples.items(), strict=True)})
        covered.append(found.low <= 0 <= found.high)
    share = float(np.mean(covered))
    effect = Effect(
        100 * share,
        by_seed={seed: one.value for seed, one in samples.items()},
        runs=_ids(arms, (FIRST, OTHER), samples),
    )
    return Check(name, text, effect, share >= 0.9)


def _times(sign: int, sample: Sample) -> Sample:
    assert sample.resamples is not None
    return replace(sample, value=sign * sample.value, resamples=sign * sample.resamples)


def _differences(arms: Arms, pair: tuple[str, str], role: str, dearer: float) -> tuple[dict[int, Sample], str]:
    """Return by seed how far the second arm is above the first, made dearer by so many per cent; or why not."""
    missing = [arm for arm in pair if not arms.get(arm)]
    if missing:
        return {}, f"not run: {', '.join(missing)}"
    found = {}
    try:
        for seed in sorted({*arms[pair[0]]} & {*arms[pair[1]]}):
            one, other = (_bits(arms[arm][seed], Term(arm, role)) for arm in pair)
            assert one.resamples is not None and other.resamples is not None
            # (1 + change) · 1.01 - 1 of every document's bits is the same of their sum.
            value = other.value + dearer * (1 + other.value / 100) - one.value
            resamples = other.resamples + dearer * (1 + other.resamples / 100) - one.resamples
            found[seed] = Sample(value, resamples, one.documents)
    except NotMeasuredError as error:
        return {}, str(error)
    return found, ""


def _ids(arms: Arms, pair: tuple[str, str], samples: Mapping[int, Sample]) -> tuple[str, ...]:
    runs: list[Run] = [arms[arm][seed] for arm in pair for seed in samples]
    return tuple(run.id for run in runs)
