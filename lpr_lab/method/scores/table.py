"""A score per layer, as plain numbers: what `allocate` divides a budget in proportion to.

No torch here: plans are made and drawn from scores that were measured elsewhere. Letters: L decoder layers.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lpr_lab.errors import DamagedError, UsageError

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("neurons", "gradient", "predicted_gain")
"""What `measure_layer_scores` measures."""


@dataclass(frozen=True, kw_only=True)
class LayerScores:
    """How much a new expert is worth in each layer; a layer of twice the score gets twice the experts.

    Attributes:
        kind: what was measured, one of `KINDS` or a name of your own.
        values: length L, any finite numbers. 0 and below is a layer that profits from no expert: it gets one only where
            `min_new` says so or all others are full.
        expert_parameters: parameters of one new expert, per layer; what a budget in parameters is spent on. Empty where
            they are not known.
        original: languages the model is good at.
        expanded: languages it is to learn.
        tokens_per_language: text that was asked for.
    """

    kind: str
    values: tuple[float, ...]
    expert_parameters: tuple[int, ...] = ()
    original: tuple[str, ...] = ()
    expanded: tuple[str, ...] = ()
    tokens_per_language: int = 0

    def __post_init__(self) -> None:
        wrong = [f"layer {layer}: {value}" for layer, value in enumerate(self.values) if not math.isfinite(value)]
        if wrong or max(self.values, default=0.0) <= 0:
            raise UsageError(
                f"Scores of kind {self.kind!r} divide a budget in proportion, so each is a finite number and one at "
                f"least above 0; got {', '.join(wrong) or list(self.values)}. Measure more text, or give the "
                "allocation as a list."
            )

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per layer: layer, kind, score, and share of the sum of all scores above 0."""
        import pandas as pd

        total = sum(max(value, 0.0) for value in self.values)
        shares = [max(value, 0.0) / total for value in self.values]
        return pd.DataFrame(
            {"layer": range(len(self.values)), "kind": self.kind, "score": self.values, "share": shares}
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values from which `from_json` makes the same scores."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "LayerScores":
        """Rebuild scores from `to_json`.

        Raises:
            DamagedError: something is missing or of another kind.
        """
        given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
        try:
            return LayerScores(**given)
        except (TypeError, UsageError) as error:
            raise DamagedError(f"These are no scores of layers ({error}); measure them again.") from error
