"""The routing of one text, per token and layer, as plain arrays that can be stored, drawn and compared.

Letters: L layers that have a router, T tokens, K chosen experts per token. No torch here: the dashboard reads traces.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lpr_lab.errors import UsageError, one_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(kw_only=True)
class RoutingTrace:
    """Routing of one text through one expanded model: a record of all that is drawn of it, hence its many fields.

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
        router_probs: router probabilities over all experts, before the choice, float [L, T, E]; 0 beyond a layer's own
            experts. None in traces of before they were kept.
        model: what was traced: base name, run id, stage, top_k and the like.
        stages: the same text at earlier stages of the same model, by stage name, oldest first.
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
    router_probs: np.ndarray | None = None
    model: dict[str, Any] = field(default_factory=dict)
    stages: "dict[str, RoutingTrace]" = field(default_factory=dict)

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

    @property
    def stage(self) -> str:
        """Name of the stage that was traced, such as `G1 review`; empty in traces of before stages had names."""
        return str(self.model.get("stage", ""))

    @property
    def stage_names(self) -> list[str]:
        """The stages this trace holds, oldest first, its own last."""
        return [*self.stages, self.stage]

    def at(self, stage: str) -> "RoutingTrace":
        """Return the trace of one of `stage_names`.

        Raises:
            UsageError: it holds no such stage, with the closest one.
        """
        if stage == self.stage:
            return self
        one_of("stage of this trace", stage, self.stage_names)
        return self.stages[stage]

    @property
    def first_choice(self) -> np.ndarray:
        """The expert of the largest weight, int [L, T]: where a token is said to go."""
        return self.expert_ids[:, :, 0]

    def reached_original(self) -> np.ndarray:
        """Share of text tokens whose first choice is expert 0, layer by layer, float [L]."""
        return (self.first_choice[:, self.is_text] == 0).mean(axis=1)

    def first_share(self) -> np.ndarray:
        """Share of text tokens whose first choice each expert is, float [L, max experts]; rows sum to 1."""
        experts = np.arange(int(self.num_experts.max(initial=0)))
        return (self.first_choice[:, self.is_text, None] == experts).mean(axis=1)

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

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per layer and token: what the token strip draws, as a table.

        Columns: layer, position, token, and for every choice its expert and weight (`expert_1` is the best); then
        original_weight, and of the token (so the same in every layer) log_prob and base_log_prob, NaN where unknown.
        """
        import pandas as pd

        layers, choices = len(self.layers), self.expert_ids.shape[2]
        columns: dict[str, Any] = {
            "layer": np.repeat(self.layers, self.num_tokens),
            "position": np.tile(np.arange(self.num_tokens), layers),
            "token": self.tokens * layers,
        }
        for choice in range(choices):
            columns[f"expert_{choice + 1}"] = self.expert_ids[:, :, choice].ravel()
            columns[f"weight_{choice + 1}"] = self.expert_weights[:, :, choice].ravel()
        columns["original_weight"] = self.original_weight.ravel()
        for name, values in (("log_prob", self.log_prob), ("base_log_prob", self.base_log_prob)):
            columns[name] = np.tile(np.full(self.num_tokens, np.nan) if values is None else values, layers)
        return pd.DataFrame(columns)

    def to_plain(self) -> dict[str, Any]:
        """Return the trace as values that JSON has, weights rounded to four digits.

        Returns:
            tokens (text, or the bytes of a lone piece), bytes (hexadecimal; None for special tokens), layers, experts
            [layer][token][choice], weights alike, original_weight [layer][token], log_prob and base_log_prob [token],
            None where a token has none.
        """

        def numbers(values: np.ndarray | None) -> Any:
            return None if values is None else [None if not np.isfinite(one) else one for one in values.tolist()]

        return {
            "tokens": self.tokens,
            "bytes": [None if piece is None else piece.hex() for piece in self.token_bytes],
            "layers": self.layers.tolist(),
            "experts": self.expert_ids.tolist(),
            "weights": self.expert_weights.round(4).tolist(),
            "original_weight": self.original_weight.round(4).tolist(),
            "log_prob": numbers(self.log_prob),
            "base_log_prob": numbers(self.base_log_prob),
        }


@dataclass(frozen=True)
class RoutingChange:
    """How the first choices of one text differ between two traces, over the layers that both have.

    Attributes:
        layers: decoder layer indices, int [L].
        to_original: bool [L, T], first choice was a new expert and is now expert 0.
        to_new: bool [L, T], the other way round.
        among_new: bool [L, T], from one new expert to another; counted within one model only, because the new experts
            of two models have nothing to do with each other.
        shift: change of the original expert's weight, float [L, T], in [-1, 1].
        is_text: bool [T], False on special tokens.
    """

    layers: np.ndarray
    to_original: np.ndarray
    to_new: np.ndarray
    among_new: np.ndarray
    shift: np.ndarray
    is_text: np.ndarray

    @property
    def moved(self) -> np.ndarray:
        """Bool [L, T]: the first choice is another one; never on special tokens."""
        return (self.to_original | self.to_new | self.among_new) & self.is_text

    def counts(self) -> dict[str, int]:
        """Return how many (layer, text token) choices there are, how many moved, and which way."""
        text = self.is_text
        ways = {"to_original": self.to_original, "to_new": self.to_new, "among_new": self.among_new}
        return {
            "choices": int(len(self.layers) * text.sum()),
            "moved": int(self.moved.sum()),
            **{name: int(way[:, text].sum()) for name, way in ways.items()},
        }


def routing_change(before: RoutingTrace, after: RoutingTrace, *, same_model: bool) -> RoutingChange:
    """Compare two traces of one text.

    Args:
        before: the trace to compare with.
        after: the trace that is looked at.
        same_model: two stages of one model, whose new experts are the same ones.

    Raises:
        UsageError: their tokens differ, or no layer has a router in both.
    """
    if before.token_ids != after.token_ids or before.text != after.text:
        raise UsageError("These are traces of two texts, or of one text in other tokens; compare traces of one text.")
    common = [layer for layer in after.layers.tolist() if layer in before.layers.tolist()]
    if not common:
        raise UsageError("No layer has a router in both traces, so there is nothing to compare.")
    old, new = (trace.layers.tolist() for trace in (before, after))
    rows_old, rows_new = [old.index(layer) for layer in common], [new.index(layer) for layer in common]
    first_old, first_new = before.first_choice[rows_old], after.first_choice[rows_new]
    return RoutingChange(
        layers=np.array(common),
        to_original=(first_old != 0) & (first_new == 0),
        to_new=(first_old == 0) & (first_new != 0),
        among_new=(first_old != first_new) & (first_old != 0) & (first_new != 0) & same_model,
        shift=after.original_weight[rows_new] - before.original_weight[rows_old],
        is_text=after.is_text,
    )


def _show(piece: bytes | None) -> str:
    if piece is None:
        return ""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "⟨" + piece.hex(" ").upper() + "⟩"


def layers_in(text: str, known: Sequence[int]) -> list[int]:
    """Read a choice of layers such as `all`, `7` or `0-5, 12`.

    Raises:
        ValueError: what cannot be read, in a sentence.

    >>> layers_in("0-2, 5", known=range(8))
    [0, 1, 2, 5]
    """
    wanted: set[int] = set()
    if text.strip().lower() in ("", "all"):
        return list(known)
    for part in text.replace(";", ",").split(","):
        low, _, high = (piece.strip() for piece in part.replace("–", "-").partition("-"))
        if not low.isdecimal() or (high and not high.isdecimal()):
            raise ValueError(f"Layers “{text[:60]}” cannot be read; write all, or numbers and ranges such as 0-5, 12.")
        first, last = int(low), int(high or low)
        if first > last or last > 10_000:
            raise ValueError(f"The layers “{part.strip()[:20]}” are no range.")
        wanted |= set(range(first, last + 1))
    missing = sorted(wanted - set(known))
    if missing:
        raise ValueError(f"Layer {missing[0]} has no router; those that have one are {spans(list(known))}.")
    return sorted(wanted)


def spans(numbers: Sequence[int]) -> str:
    """Return rising numbers for people: `0-5, 12`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
