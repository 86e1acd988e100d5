"""The measured similarity of languages in each layer, as plain arrays: what `allocate` divides a budget by.

No torch here: plans are made and drawn from a table that was measured elsewhere.

Letters: L decoder layers, n languages, the original ones first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lpr_lab.errors import DamagedError, UsageError, one_of

if TYPE_CHECKING:
    import pandas as pd

STATES = ("mlp_input", "attention_output")
CURVES = ("similarity", "expanded_to_original", "between_expanded")


@dataclass(frozen=True, eq=False, kw_only=True)
class SimilarityTable:
    """Mean cosine over all pairs of tokens of two languages, for every layer and every two languages.

    Attributes:
        original: languages the model is good at; after a first expansion, also those it has learned since.
        expanded: languages it is to learn now.
        pairs: float64 [L, n, n], symmetric, in the order of `languages`. On the diagonal, the mean over all pairs of
            two different tokens of one language: tokens of the same documents, so it is a little higher than two
            samples of documents of that language would give.
        num_tokens: tokens measured, per language.
        expert_parameters: parameters of one new expert, per layer; what a budget in parameters is spent on.
        state: which vectors were compared, one of `STATES`.
    """

    original: tuple[str, ...]
    expanded: tuple[str, ...]
    pairs: np.ndarray
    num_tokens: tuple[int, ...]
    expert_parameters: tuple[int, ...]
    state: str

    @property
    def languages(self) -> tuple[str, ...]:
        """Original languages first, then the expanded ones."""
        return (*self.original, *self.expanded)

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layer indices."""
        return tuple(range(len(self.pairs)))

    @property
    def expanded_to_original(self) -> np.ndarray:
        """S_new&old: mean over every pair of an expanded and an original language, [L]."""
        split = len(self.original)
        return self.pairs[:, :split, split:].mean(axis=(1, 2))

    @property
    def between_expanded(self) -> np.ndarray | None:
        """S_new&new: mean over every two expanded languages, [L]; None when there is only one."""
        split = len(self.original)
        rows, columns = np.triu_indices(len(self.expanded), k=1)
        return self.pairs[:, split + rows, split + columns].mean(axis=1) if len(rows) else None

    @property
    def similarity(self) -> np.ndarray:
        """S of the allocation rule, [L]: the plain mean of the two above, or the first where there is no second.

        LayerMoE gives both averages the same weight, however many pairs each is made of (its main figure).
        """
        between = self.between_expanded
        return self.expanded_to_original if between is None else (self.expanded_to_original + between) / 2

    def most_similar_layers(
        self, k: int, by: str = "expanded_to_original", among: Iterable[int] | None = None
    ) -> tuple[int, ...]:
        """Return the k layers where languages are most alike, in decoder order: there a linear router errs most.

        LayerMoE puts its routing classifiers there (7 of 24 layers). Of equal layers the earlier one is taken.

        Args:
            k: how many.
            by: `expanded_to_original`, `between_expanded` or `similarity`.
            among: choose from these layers, such as those that get new experts; from all when None.

        Raises:
            UsageError: more layers than there are, or no such curve.
        """
        one_of("by", by, CURVES)
        candidates = sorted(self.layers if among is None else set(among))
        if not 0 <= k <= len(candidates):
            raise UsageError(f"Asked for the {k} most similar layers; there are {len(candidates)} to choose from.")
        curve = getattr(self, by)
        if curve is None:
            raise UsageError("With one expanded language there is no similarity between expanded ones.")
        return tuple(sorted(sorted(candidates, key=lambda layer: -curve[layer])[:k]))

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per layer and two languages (each pair once): layer, language_a, language_b, similarity.

        Also `roles`: `original`, `expanded` or `mixed`, and `within` for a language with itself.
        """
        import pandas as pd

        codes, split = self.languages, len(self.original)
        rows = []
        for layer in self.layers:
            for a, b in zip(*np.triu_indices(len(codes)), strict=True):
                roles = "mixed" if a < split <= b else "original" if b < split else "expanded"
                roles = "within" if a == b else roles
                rows.append([layer, codes[a], codes[b], roles, float(self.pairs[layer, a, b])])
        return pd.DataFrame(rows, columns=["layer", "language_a", "language_b", "roles", "similarity"])

    def curves(self) -> "pd.DataFrame":
        """Return one row per layer: layer, similarity, expanded_to_original, between_expanded (empty where None)."""
        import pandas as pd

        values = {name: getattr(self, name) for name in CURVES}
        return pd.DataFrame({"layer": self.layers, **values})

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values from which `from_json` makes the same table."""
        return {
            "original": list(self.original),
            "expanded": list(self.expanded),
            "state": self.state,
            "num_tokens": list(self.num_tokens),
            "expert_parameters": list(self.expert_parameters),
            "pairs": self.pairs.tolist(),
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "SimilarityTable":
        """Rebuild a table from `to_json`.

        Raises:
            DamagedError: something is missing, or the pieces do not fit together.
        """
        try:
            table = SimilarityTable(
                original=tuple(values["original"]),
                expanded=tuple(values["expanded"]),
                pairs=np.array(values["pairs"], dtype=np.float64),
                num_tokens=tuple(values["num_tokens"]),
                expert_parameters=tuple(values["expert_parameters"]),
                state=values["state"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"This is no similarity table ({error!r}); measure it again.") from error
        n = len(table.languages)
        if table.pairs.shape != (len(table.expert_parameters), n, n) or len(table.num_tokens) != n:
            raise DamagedError(
                f"The similarity table is damaged: {n} languages, but numbers of shape {table.pairs.shape}."
            )
        return table
