"""The causal map of one text: by layer and token, what another expert in that layer alone would have cost.

Letters: L layers that have a router, T tokens, E most experts of a layer. No torch here: the dashboard reads maps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import regex

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.text.graphemes import text_spans

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
"""Of `CausalMap.to_dict`."""
_MOST_TOKENS = 16
"""Of a word: a longer one is a sentence in a script that does not part words."""
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}'’]+")


class Cell(NamedTuple):
    """One cell of a map: in this layer all tokens were sent to this expert, and this token's bits were looked at."""

    layer: int
    expert: int
    token: int


@dataclass(frozen=True)
class NextTokens:
    """What a model expects at one place of a text, as it is and with one layer switched.

    Attributes:
        cell: the place and the switch.
        token_ids: the tokens that are likeliest in either case, by their probability as the model is.
        token_bytes: the bytes they stand for; None for special tokens.
        as_is: their probabilities as the model is, float [k].
        switched: the same with the layer switched.
        bits: of the token that really follows, as it is and switched.
    """

    cell: Cell
    token_ids: list[int]
    token_bytes: list[bytes | None]
    as_is: np.ndarray
    switched: np.ndarray
    bits: tuple[float, float]


@dataclass(kw_only=True)
class CausalMap:
    """By layer, expert and token: the change in bits when that layer alone sends every token to that expert.

    Attributes:
        text: the text as given.
        language: ISO 639-1 code, or None when it was not said.
        stage: of the model, such as `G1 review`.
        token_ids: vocabulary ids, length T; the separator before the text is the first.
        token_bytes: the UTF-8 bytes each token stands for; None for special tokens.
        layers: decoder layer index of each layer with a router, int [L].
        num_experts: experts of each of them, the original one included, int [L].
        bits: what each token costs as the model is, float [T]; NaN for the first, which nothing predicts.
        change: bits with the layer switched, minus bits as it is, float [L, E, T]. Above 0: what the layer did made
            this token likelier than the expert alone would have. NaN for the first token, for experts that a layer does
            not have, and for what was not asked for or not computed yet.
        model: what was looked at: base name and the like.
    """

    text: str
    language: str | None
    stage: str
    token_ids: list[int]
    token_bytes: list[bytes | None]
    layers: np.ndarray
    num_experts: np.ndarray
    bits: np.ndarray
    change: np.ndarray
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """T, the separator included."""
        return len(self.token_ids)

    @property
    def tokens(self) -> list[str]:
        """Each token's bytes as text for quick looks; a lone piece of a character shows as its bytes."""
        return [
            "" if piece is None else "".join(span.text for span in text_spans([piece])) for piece in self.token_bytes
        ]

    @property
    def experts(self) -> list[int]:
        """The experts that some layer was switched to, rising."""
        known = ~np.isnan(self.change[:, :, 1:])
        return [int(expert) for expert in np.flatnonzero(known.any(axis=(0, 2)))]

    def switched_to(self, expert: int) -> np.ndarray:
        """Return the change in bits for one expert, float [L, T]; NaN in layers without it.

        Raises:
            UsageError: no layer was switched to it.
        """
        if expert not in self.experts:
            known = ", ".join(map(str, self.experts)) or "none yet"
            raise UsageError(f"No layer was switched to expert {expert}; experts of this map: {known}.")
        return self.change[:, expert]

    def of_layers(self, expert: int) -> np.ndarray:
        """Return the change in bits of the whole text, layer by layer, float [L]; NaN in layers without the expert."""
        return self.switched_to(expert)[:, 1:].sum(axis=1)

    def word_at(self, token: int) -> range:
        """Return the places of the tokens of the word that a token is in: letters, marks and digits in a row.

        A token that has none of these is alone, and so is each in scripts that put no space between words.

        Raises:
            UsageError: there is no such token, or nothing predicts it.
        """
        if not 1 <= token < self.num_tokens:
            raise UsageError(f"There is no token {token} in this map; expected 1 to {self.num_tokens - 1}.")
        ends = np.cumsum([len(piece or b"") for piece in self.token_bytes]).tolist()
        starts = [0, *ends[:-1]]
        text = b"".join(piece or b"" for piece in self.token_bytes)
        for found in _WORD.finditer(text.decode(errors="surrogateescape")):
            first = len(found.string[: found.start()].encode(errors="surrogateescape"))
            last = first + len(found[0].encode(errors="surrogateescape"))
            if starts[token] < last and ends[token] > first:
                places = [one for one in range(1, self.num_tokens) if starts[one] < last and ends[one] > first]
                return range(places[0], places[-1] + 1) if len(places) <= _MOST_TOKENS else range(token, token + 1)
        return range(token, token + 1)

    def is_for(self, trace: RoutingTrace) -> bool:
        """Whether this is the map of what a trace shows: its text, in its tokens, at its stage."""
        return (self.text, self.token_ids, self.stage) == (trace.text, trace.token_ids, trace.stage)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per layer, expert and token: layer, expert, token (place), text, bits, change_bits.

        Without the first token, which nothing predicts.
        """
        import pandas as pd

        rows, names = [], self.tokens
        for row, layer in enumerate(self.layers.tolist()):
            for expert in range(int(self.num_experts[row])):
                for token in range(1, self.num_tokens):
                    change = float(self.change[row, expert, token])
                    if not np.isnan(change):
                        rows.append([layer, expert, token, names[token], float(self.bits[token]), change])
        return pd.DataFrame(rows, columns=["layer", "expert", "token", "text", "bits", "change_bits"])

    def to_dict(self) -> dict[str, Any]:
        """Return the map as JSON can hold it: numbers to six decimals, null where there is none, bytes in hex."""
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("text", "language", "stage", "token_ids", "model")},
            "token_bytes": [None if piece is None else piece.hex() for piece in self.token_bytes],
            "layers": self.layers.tolist(),
            "num_experts": self.num_experts.tolist(),
            "bits": _numbers(self.bits),
            "change": [
                [_numbers(row) for row in rows[:count]]
                for rows, count in zip(self.change, self.num_experts.tolist(), strict=True)
            ],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "CausalMap":
        """Read what `to_dict` wrote.

        Raises:
            DamagedError: it is no such record, or one of a later version.
        """
        try:
            if record["format"] != FORMAT:
                raise DamagedError(f"This causal map has format {record['format']}; this version reads {FORMAT}.")
            num_experts = np.array(record["num_experts"], int)
            shape = (len(num_experts), int(num_experts.max(initial=1)), len(record["token_ids"]))
            change = np.full(shape, np.nan)
            for row, of_experts in enumerate(record["change"]):
                change[row, : len(of_experts)] = np.array(of_experts, dtype=float)
            pieces = [None if piece is None else bytes.fromhex(piece) for piece in record["token_bytes"]]
            same = {name: record[name] for name in ("text", "language", "stage", "token_ids", "model")}
            layers, bits = np.array(record["layers"], int), np.array(record["bits"], dtype=float)
            return cls(**same, token_bytes=pieces, layers=layers, num_experts=num_experts, bits=bits, change=change)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DamagedError(f"This is not a causal map: {type(error).__name__}, {error}.") from error


@dataclass(frozen=True)
class Finding:
    """What matters most in a map, for one expert.

    Attributes:
        layer: the one whose switch changes the bits of the whole text most.
        layer_bits: by how many.
        token: place of the token that a single layer's switch changes most.
        token_layer: that layer.
        token_bits: by how many.
    """

    layer: int
    layer_bits: float
    token: int
    token_layer: int
    token_bits: float


def finding(causal: CausalMap, expert: int) -> Finding | None:
    """Return what matters most where layers are switched to one expert; None while nothing is computed."""
    if expert not in causal.experts:
        return None
    change = causal.switched_to(expert)[:, 1:]
    totals = np.nansum(change, axis=1)
    layer = int(np.abs(totals).argmax())
    row, column = np.unravel_index(int(np.nanargmax(np.abs(change))), change.shape)
    return Finding(
        int(causal.layers[layer]),
        float(totals[layer]),
        int(column) + 1,
        int(causal.layers[row]),
        float(change[row, column]),
    )


def finding_in_words(causal: CausalMap, expert: int) -> str:
    """Return that as a sentence."""
    found = finding(causal, expert)
    if found is None:
        return "Nothing is computed yet."
    total = float(np.nansum(causal.bits[1:]))
    name = f"“{causal.tokens[found.token].strip() or 'white space'}”"
    place = causal.word_at(found.token)
    if len(place) > 1:
        name += f" of the word “{_text_of(causal, place)}”"
    return (
        f"Layer {found.layer} matters most: with {_expert_in_words(expert)} there the text costs "
        f"{_more_or_less(found.layer_bits)} ({total:.1f} as it is). "
        f"The largest change of one token is {name} (token {found.token + 1}), "
        f"{_more_or_less(found.token_bits)} by layer {found.token_layer} alone."
    )


def word_in_words(causal: CausalMap, cell: Cell, most: int = 3) -> str:
    """Return in a sentence which layers matter most to the word that a cell's token is in, for the cell's expert."""
    place = causal.word_at(cell.token)
    bits = causal.switched_to(cell.expert)[:, place.start : place.stop].sum(axis=1)
    text = _text_of(causal, place)
    order = [row for row in np.argsort(-np.abs(bits), kind="stable") if not np.isnan(bits[row])][:most]
    layers = [f"layer {causal.layers[row]} ({bits[row]:+.2f} bits)".replace("-", "−") for row in order]
    what = f"the word “{text}”" if len(place) > 1 else f"“{text}”"
    then = f", then {' and '.join(layers[1:])}" if layers[1:] else ""
    where = f"Sent to {_expert_in_words(cell.expert)} in one layer alone"
    return f"{where}, {what} changes most by {layers[0]}{then}."


def _expert_in_words(expert: int) -> str:
    return "the original expert" if expert == 0 else f"expert {expert}"


def _text_of(causal: CausalMap, place: range) -> str:
    pieces = [causal.token_bytes[token] for token in place]
    return "".join(span.text for span in text_spans(pieces)).strip()


def _more_or_less(bits: float) -> str:
    return f"{abs(bits):.2f} bits {'more' if bits >= 0 else 'fewer'}"


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]
