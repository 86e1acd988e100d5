"""One segment in many languages beside that of a reference language: routing and similarity, layer by layer.

Letters: n languages, L layers that have a router, A all decoder layers. No torch here: the dashboard reads this.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lpr_lab.errors import one_of
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.text.languages import language_name

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "language reference layer n_tokens divergence_bits chance_bits chance_high_bits halves_bits similarity".split()
)


def choose_reference(languages: Sequence[str], original: Collection[str] = (), wanted: str | None = None) -> str:
    """Return the language that others are compared with: the wanted one, else English, the first original, the first.

    Raises:
        UsageError: the wanted one is not among the languages.

    >>> choose_reference(["el", "es", "tr"], original=["es"])
    'es'
    """
    if wanted is not None:
        one_of("reference", wanted, languages)
        return wanted
    candidates = ["en", *(code for code in languages if code in original), *languages]
    return next(code for code in candidates if code in languages)


class Summary(NamedTuple):
    """A language in numbers, means over layers: divergence over those with a router, similarity over all.

    Attributes:
        language: its code.
        num_tokens: text tokens of the segment.
        divergence: from the reference, in bits.
        chance: of the same tokens dealt at random, in bits.
        halves: between the two halves of this text, in bits.
        similarity: mean cosine with the reference's tokens.
        above_chance: layers whose divergence is above 95 % of such deals.
        most: layer of the largest divergence; None where no layer has a router.
        most_bits: that divergence.
    """

    language: str
    num_tokens: int
    divergence: float
    chance: float
    halves: float
    similarity: float
    above_chance: int
    most: int | None
    most_bits: float


@dataclass(kw_only=True)
class LanguageComparison:
    """The same segment in several languages through one model, each compared with the reference language.

    Attributes:
        reference: code of the language that the others are compared with.
        stage: of the model, such as `G1 review`.
        traces: language -> the routing of its text, in the order given.
        layers: decoder layer index of each layer with a router, int [L].
        all_layers: of every decoder layer, int [A].
        divergence: Jensen-Shannon divergence of the mean weights on experts from the reference's, in bits, [n, L]; 0 in
            the row of the reference itself.
        chance: mean of it over deals of the same tokens to both texts at random, [n, L]; NaN for the reference.
        chance_high: what 95 % of these deals stay below, [n, L].
        halves: divergence between the first and the second half of the language's own text, [n, L].
        similarity: mean cosine over all pairs of a token of this text and one of the reference's, of MLP inputs,
            [n, A]; in the row of the reference, over pairs of two different tokens of its own.
        shuffles: how many deals.
        seed: of them.
    """

    reference: str
    stage: str
    traces: dict[str, RoutingTrace]
    layers: np.ndarray
    all_layers: np.ndarray
    divergence: np.ndarray
    chance: np.ndarray
    chance_high: np.ndarray
    halves: np.ndarray
    similarity: np.ndarray
    shuffles: int
    seed: int

    @property
    def languages(self) -> list[str]:
        """All of them, the reference among them, in the order given."""
        return list(self.traces)

    @property
    def others(self) -> list[str]:
        """All but the reference."""
        return [code for code in self.traces if code != self.reference]

    def num_tokens(self, language: str) -> int:
        """Text tokens of the segment in a language."""
        return int(self.traces[language].is_text.sum())

    def summary(self, language: str) -> Summary:
        """Return a language in numbers."""
        row = self.languages.index(language)
        bits = self.divergence[row]
        most = int(bits.argmax()) if len(bits) else None
        return Summary(
            language=language,
            num_tokens=self.num_tokens(language),
            divergence=_mean(bits),
            chance=_mean(self.chance[row]),
            halves=_mean(self.halves[row]),
            similarity=_mean(self.similarity[row]),
            above_chance=int((bits > self.chance_high[row]).sum()),
            most=None if most is None else int(self.layers[most]),
            most_bits=float("nan") if most is None else float(bits[most]),
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per language and decoder layer, the reference's too; NaN where a layer has no router.

        Columns: language, reference, layer, n_tokens, divergence_bits, chance_bits, chance_high_bits, halves_bits,
        similarity; see the attributes.
        """
        import pandas as pd

        routed = {int(layer): place for place, layer in enumerate(self.layers)}
        rows = []
        for row, code in enumerate(self.languages):
            for place, layer in enumerate(self.all_layers.tolist()):
                at = routed.get(layer)
                tables = (self.divergence, self.chance, self.chance_high, self.halves)
                bits = [float("nan") if at is None else float(table[row, at]) for table in tables]
                similarity = float(self.similarity[row, place])
                rows.append([code, self.reference, layer, self.num_tokens(code), *bits, similarity])
        return pd.DataFrame(rows, columns=COLUMNS)

    def to_plain(self) -> dict[str, Any]:
        """Return the comparison as values that JSON has: null where there is no number; without the traces."""
        tables = ("divergence", "chance", "chance_high", "halves", "similarity")
        return {
            "reference": self.reference,
            "stage": self.stage,
            "texts": {code: trace.text for code, trace in self.traces.items()},
            "n_tokens": {code: self.num_tokens(code) for code in self.languages},
            "layers": self.layers.tolist(),
            "all_layers": self.all_layers.tolist(),
            **{name: _by_language(self.languages, getattr(self, name)) for name in tables},
            "shuffles": self.shuffles,
            "seed": self.seed,
        }


def finding_in_words(found: LanguageComparison) -> str:
    """Return which language is routed least and which most like the reference, with what chance alone gives."""
    if not len(found.layers):
        return "This model has no router, so only similarity is compared."
    reference = language_name(found.reference)
    ranked = sorted((found.summary(code) for code in found.others), key=lambda one: -one.divergence)
    said = [f"{language_name(ranked[0].language)} is routed least like {reference}: {_bits(ranked[0])}"]
    if ranked[0].most is not None:
        said[0] += f", most in layer {ranked[0].most} ({ranked[0].most_bits:.2f})"
    if len(ranked) > 1:
        said.append(f"{language_name(ranked[-1].language)} most like it: {_bits(ranked[-1])}")
    else:
        said[0] = said[0].replace("is routed least like", "is routed unlike")
    return f"{'; '.join(said)}."


def _bits(one: Summary) -> str:
    chance = "" if np.isnan(one.chance) else f" (by chance {one.chance:.2f})"
    return f"{one.divergence:.2f} bits in the mean over layers{chance}"


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _by_language(languages: Sequence[str], table: np.ndarray) -> dict[str, list[float | None]]:
    return {
        code: [None if np.isnan(value) else float(value) for value in row]
        for code, row in zip(languages, table, strict=True)
    }
