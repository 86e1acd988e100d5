"""What a claim is made of: parts, each one number with an interval, and the range that it has to lie in."""

from dataclasses import dataclass

ABOUT_EQUAL = 1.0
"""Points within which two arms count as equal, where a paper says "the same"; ours, the papers name none."""
EXACT, ORDER = "exact", "order"
MIN_SEEDS = 3
"""From which on a claim about training is decided: with fewer an interval over seeds says next to nothing."""
MIN_LAYERS = 12
"""Of a base on which layers can be said to differ: five layers have no middle third."""


@dataclass(frozen=True)
class Term:
    """A number of one arm, which is added to others with a weight.

    Attributes:
        arm: see `experiments.scorecard.plan.ARMS`.
        role: languages: `expanded`, `original` (all of the base's), `reviewed` and `unreviewed` (the two parts of
            these), `earlier` (of the first group, after a second).
        weight: what it is multiplied by.
        stage: empty for the final model.
        measure: `bits`, the change of bits per byte from the base in per cent; `weight`, the mean weight of expert 0;
            `hump`, the similarity of the middle third of the layers less that of the others; `classifier`, the accuracy
            of routing classifiers; `kl`, the distance from the base on its own samples, in per cent of what these cost
            it, over all languages whatever the role; `choice`, the change of the share of right continuations, in
            points.
    """

    arm: str
    role: str
    weight: float = 1.0
    stage: str = ""
    measure: str = "bits"


@dataclass(frozen=True)
class Part:
    """One number of a claim and the range in which it has to lie; its interval decides.

    Attributes:
        text: what is said, in a sentence.
        terms: summed up.
        above, below: the ends of the range, exclusive; None where there is none.
        min_layers: of a base on which it can be decided.
        curves: two pairs of arms instead of terms: forgetting of the first less that of the second, at equal gain.
        premise: what has to hold for this to say anything; where nothing is lost, nothing can come back.
    """

    text: str
    terms: tuple[Term, ...] = ()
    above: float | None = None
    below: float | None = None
    min_layers: int = 0
    curves: tuple[tuple[str, ...], ...] = ()
    premise: "Part | None" = None

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it needs, each once."""
        of_premise = self.premise.arms if self.premise is not None else ()
        own = [term.arm for term in self.terms] + [arm for curve in self.curves for arm in curve]
        return tuple(dict.fromkeys([*own, *of_premise]))


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        number: of the list in docs/paper_map.md.
        text: what is claimed.
        paper: the papers' own figure, in words.
        kind: `exact`, which holds for every model or not at all, or `order`, which needs training and seeds.
        parts: of an `order`; an exact claim is decided by the checks of its number.
    """

    number: int
    text: str
    paper: str
    kind: str = ORDER
    parts: tuple[Part, ...] = ()

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that it needs, each once."""
        return tuple(dict.fromkeys(arm for part in self.parts for arm in part.arms))
