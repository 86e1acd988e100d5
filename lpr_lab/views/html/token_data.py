"""What the script of the token strip draws from: a trace's arrays and facts of its tokens, packed as JSON."""

import base64
import unicodedata
from typing import Any

import numpy as np

from lpr_lab.measure.trace import RoutingChange, RoutingTrace
from lpr_lab.text.graphemes import clusters, text_spans

_NAMES = {
    " ": "·",
    "\n": "⏎",
    "\r": "␍",
    "\t": "→",
    "\u200b": "ZWSP",
    "\u200c": "ZWNJ",
    "\u200d": "ZWJ",
    "\u00a0": "NBSP",
}


def strip_data(trace: RoutingTrace, shown: int, change: RoutingChange | None = None) -> dict[str, Any]:
    """Return what the script draws from: arrays as base64 of [L, T, ...], shares as 16-bit numbers.

    Args:
        trace: the numbers.
        shown: how many of its tokens.
        change: how they differ from another trace.
    """
    weights = np.clip(trace.expert_weights[:, :shown], 0, 1)
    names = ["as it is", "changed"] if trace.model.get("changed") else ["base", "expanded"]
    names = list(trace.model.get("compared") or names)
    return {
        "layers": [int(layer) for layer in trace.layers],
        "experts": [int(count) for count in trace.num_experts],
        "k": int(trace.expert_ids.shape[2]) if len(trace.layers) else 0,
        "ids": _pack(trace.expert_ids[:, :shown], np.uint8),
        "weights": _pack(np.round(weights * 65535), "<u2"),
        "probs": _probabilities(trace, shown),
        "bits": _bits(trace.base_log_prob, trace.log_prob, shown),
        "surprise": trace.log_prob is not None and [_surprise(value) for value in trace.log_prob[:shown]],
        "names": names,
        "change": _change(trace, change, shown),
        "tokens": _token_facts(trace, shown),
    }


def _pack(values: np.ndarray, kind: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()


def _probabilities(trace: RoutingTrace, shown: int) -> str | None:
    """Return router probabilities, unless the weights say it all: every expert chosen, and no classifier in front."""
    if trace.router_probs is None or not len(trace.layers):
        return None
    probs = np.clip(trace.router_probs[:, :shown], 0, 1)
    weights = np.zeros_like(probs)
    rows, columns = np.indices(probs.shape[:2])
    for slot in range(trace.expert_ids.shape[2]):  # one by one: an expert may stand in two slots, once with weight 0
        weights[rows, columns, trace.expert_ids[:, :shown, slot]] += trace.expert_weights[:, :shown, slot]
    same = (trace.num_experts <= trace.expert_ids.shape[2]).all() and np.abs(weights - probs).max(initial=0) < 2e-3
    return None if same else _pack(np.round(probs * 65535), "<u2")


def _surprise(log_prob: float) -> float | None:
    return None if np.isnan(log_prob) else round(-float(log_prob) / float(np.log(2)), 3)


def _bits(before: np.ndarray | None, after: np.ndarray | None, shown: int) -> list[list[float | None]] | None:
    if before is None or after is None:
        return None
    return [[_surprise(value) for value in values[:shown]] for values in (before, after)]


def _change(trace: RoutingTrace, change: RoutingChange | None, shown: int) -> dict[str, Any] | None:
    """Return the shift of the original weight, as 16 bits from -1 to 1, and which choices moved, layer by layer."""
    if change is None:
        return None
    return {
        "rows": [change.layers.tolist().index(layer) if layer in change.layers else -1 for layer in trace.layers],
        "shift": _pack(np.round((np.clip(change.shift[:, :shown], -1, 1) + 1) * 32767), "<u2"),
        "moved": _pack(change.moved[:, :shown], np.uint8),
    }


def _token_facts(trace: RoutingTrace, shown: int) -> list[list[Any]]:
    """Return per token: chip label, whole character(s), bytes in hex, vocabulary id, part, parts."""
    pieces = trace.token_bytes[:shown]
    whole: dict[int, list[str]] = {index: [] for index in range(shown)}
    part: dict[int, tuple[int, int]] = {}
    for cluster in clusters(pieces):
        for order, index in enumerate(cluster.tokens):
            whole[index].append(cluster.text)
            if len(cluster.tokens) > 1:
                part.setdefault(index, (order + 1, len(cluster.tokens)))
    facts = []
    for index, piece in enumerate(pieces):
        data = "" if piece is None else piece.hex(" ").upper()
        facts.append(
            [chip_label(piece), "".join(whole[index]), data, int(trace.token_ids[index]), *part.get(index, (1, 1))]
        )
    return facts


def chip_label(piece: bytes | None) -> str:
    """Return what a chip shows: text with white space and invisible characters named; lone bytes as `⟨E0 A6⟩`.

    Without the brackets they would be letters.
    """
    if piece is None:
        return "◆"
    if not piece:
        return "∅"
    out = []
    for span in text_spans([piece]):
        out.append(span.text if span.kind == "invalid" else "".join(map(_name, span.text)))
    return " ".join(out) if len(out) > 1 else out[0]


def _name(character: str) -> str:
    if character in _NAMES:
        return _NAMES[character]
    if unicodedata.category(character) in ("Cc", "Cf"):
        return f"U+{ord(character):04X}"
    return character
