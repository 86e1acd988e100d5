"""What routing did to one text: every token, every layer, as plain arrays that can be stored, drawn and compared.

Letters: L layers that have a router, T tokens, K chosen experts per token. No torch here: the dashboard reads traces.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(kw_only=True)
class RoutingTrace:
    """Routing of one text through one expanded model.

    Attributes:
        text: the text as given.
        language: ISO 639-1 code, or None when it was not said.
        token_ids: vocabulary ids, length T; special tokens included.
        token_bytes: the UTF-8 bytes each token stands for; None for special tokens. Joined, they are the text.
        layers: decoder layer index of each traced layer, int [L].
        num_experts: experts of each traced layer, the original one included, int [L].
        expert_ids: chosen experts, best first, int [L, T, K].
        expert_weights: their combine weights, float [L, T, K]; a token's weights sum to 1 in every layer.
        original_weight: weight of expert 0, the frozen original, float [L, T]; 0 where it was not chosen.
        log_prob: natural log-probability of each token under the expanded model, float [T]; NaN for the first.
        base_log_prob: the same under the base model.
        model: what was traced: base name, run id, top_k and the like.
    """

    text: str
    language: str | None
    token_ids: list[int]
    token_bytes: list[bytes | None]
    layers: np.ndarray
    num_experts: np.ndarray
    expert_ids: np.ndarray
    expert_weights: np.ndarray
    original_weight: np.ndarray
    log_prob: np.ndarray | None = None
    base_log_prob: np.ndarray | None = None
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """T, special tokens included."""
        return len(self.token_ids)

    @property
    def is_text(self) -> np.ndarray:
        """Bool [T]: False on special tokens, which statistics leave out."""
        return np.array([piece is not None for piece in self.token_bytes], dtype=bool)

    @property
    def tokens(self) -> list[str]:
        """Each token's bytes as text for quick looks; a lone piece of a character shows as its bytes in angle brackets.

        Views that people read draw whole characters from `token_bytes` instead.
        """
        return [_show(piece) for piece in self.token_bytes]

    def original_share(self) -> float:
        """Mean weight of expert 0 over all layers and text tokens, in [0, 1]."""
        return float(self.original_weight[:, self.is_text].mean())

    def load(self) -> np.ndarray:
        """Share of a layer's (token, choice) slots that each expert got, float [L, max experts]; rows sum to 1."""
        chosen = self.expert_ids[:, self.is_text]
        weights = self.expert_weights[:, self.is_text]
        load = np.zeros((len(self.layers), int(self.num_experts.max())))
        for row in range(len(self.layers)):
            ids = chosen[row][weights[row] > 0]
            load[row] = np.bincount(ids.ravel(), minlength=load.shape[1])
        return load / np.maximum(load.sum(axis=1, keepdims=True), 1)

    def mass(self) -> np.ndarray:
        """Mean combine weight of each expert per layer, float [L, max experts]; rows sum to 1."""
        chosen = self.expert_ids[:, self.is_text]
        weights = self.expert_weights[:, self.is_text]
        mass = np.zeros((len(self.layers), int(self.num_experts.max())))
        for row in range(len(self.layers)):
            np.add.at(mass[row], chosen[row].ravel(), weights[row].ravel())
        return mass / max(int(self.is_text.sum()), 1)


def _show(piece: bytes | None) -> str:
    if piece is None:
        return ""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "⟨" + piece.hex(" ").upper() + "⟩"
