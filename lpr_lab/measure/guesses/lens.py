"""What every layer's state says comes next, read with the model's own head: of a base model and of its expansion.

Letters: L decoder layers, T tokens, K guesses that are kept of each state, best first. A place is that of the token
that was read last, so what is guessed there is the token after it. No torch here: the dashboard reads this.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lpr_lab.measure.guesses.token_languages import TokenLanguages, kind_without_script, script_of_token
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.text.graphemes import text_spans
from lpr_lab.text.languages import language_name

if TYPE_CHECKING:
    import pandas as pd

MODELS = ("base", "expanded")
FORMAT = 1
"""Of `LogitLens.to_dict`."""


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """What the states of one model say comes next.

    Attributes:
        token_ids: the likeliest next tokens, best first, int [L, T, K].
        probs: their probabilities, float [L, T, K].
        next_prob: of the token that really follows, float [L, T]; NaN at the last place, where none does.
        next_rank: its rank among all tokens, 1 for the likeliest, int [L, T]; 0 at the last place.
        final_prob: of what the last layer, so the model itself, guesses there, float [L, T].
        final_rank: its rank, int [L, T].
    """

    token_ids: np.ndarray
    probs: np.ndarray
    next_prob: np.ndarray
    next_rank: np.ndarray
    final_prob: np.ndarray
    final_rank: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """Vocabulary id of the best guess, int [L, T]."""
        return self.token_ids[:, :, 0]


@dataclass(frozen=True, kw_only=True)
class LogitLens:
    """The guesses of all layers at all places of one text, by base and expanded model, beside the routing.

    Attributes:
        text: as given.
        language: ISO 639-1 code, or None when it was not said.
        stage: of the expanded model, such as `G1 review`.
        token_ids: vocabulary ids, length T; the separator before the text is the first.
        token_bytes: the UTF-8 bytes each token stands for; None for special tokens.
        layers: decoder layer indices, all of them, int [L].
        guesses: of `base` and of `expanded`.
        new_weight: weight of the new experts in each layer on the token that was read, float [L, T], in [0, 1]; NaN in
            layers without a router.
        vocabulary: the bytes of every token that was guessed.
        token_languages: by what tokens are said to be of a language.
        model: what was looked at: base name and the like.
    """

    text: str
    language: str | None
    stage: str
    token_ids: list[int]
    token_bytes: list[bytes | None]
    layers: np.ndarray
    guesses: Mapping[str, Guesses]
    new_weight: np.ndarray
    vocabulary: Mapping[int, bytes | None]
    token_languages: TokenLanguages = field(default_factory=TokenLanguages)
    model: dict[str, Any] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """T, the separator included."""
        return len(self.token_ids)

    @property
    def base(self) -> Guesses:
        """Of the base model."""
        return self.guesses["base"]

    @property
    def expanded(self) -> Guesses:
        """Of the expanded model."""
        return self.guesses["expanded"]

    def spelled(self, token_id: int) -> str:
        """Return a guessed token as text for quick looks; a lone piece of a character shows as its bytes."""
        return _spelled(self.vocabulary[token_id])

    def language_of(self, token_id: int) -> str:
        """Return the code of the one language that a guessed token is of, or an empty text."""
        return self.token_languages.of(token_id, self.vocabulary[token_id])

    def script_of(self, token_id: int) -> str:
        """Return the script of a guessed token's letters, or an empty text."""
        return script_of_token(self.vocabulary[token_id])

    def kind_of(self, token_id: int) -> str:
        """Return in words what a guessed token is of: its language, else its script, else what it is instead."""
        code, script = self.language_of(token_id), self.script_of(token_id)
        if code:
            return language_name(code)
        return f"{script} script" if script else kind_without_script(self.vocabulary[token_id])

    def is_for(self, trace: RoutingTrace) -> bool:
        """Whether this is of what a trace shows: its text, in its tokens, at its stage."""
        return (self.text, self.token_ids, self.stage) == (trace.text, trace.token_ids, trace.stage)

    def languages_by_layer(self) -> "pd.DataFrame":
        """Return how the best guesses of a layer divide over languages, one row per model, layer and kind.

        Columns: model, layer, language (its code, empty where it is not known), script (empty where the guess has no
        letter, or letters of several), share of the places. Shares of a layer add up to 1.
        """
        import pandas as pd

        rows = []
        for name in MODELS:
            for row, layer in enumerate(self.layers.tolist()):
                ids, counts = np.unique(self.guesses[name].best[row], return_counts=True)
                for token_id, count in zip(ids.tolist(), counts.tolist(), strict=True):
                    kind = (self.language_of(token_id), self.script_of(token_id))
                    rows.append([name, layer, *kind, count / self.num_tokens])
        table = pd.DataFrame(rows, columns=["model", "layer", "language", "script", "share"])
        keys = ["model", "layer", "language", "script"]
        return table.groupby(keys, sort=False, as_index=False).agg({"share": "sum"})

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per model, layer and place.

        Columns: model, layer, token (place), text (of the token read), guess, guess_id, guess_language, guess_script,
        probability, next (the token that really follows), next_probability, next_rank, final_probability and
        final_rank (of what the last layer guesses), and new_weight.
        """
        import pandas as pd

        layers, number = len(self.layers), self.num_tokens
        names = [_spelled(piece) for piece in self.token_bytes]
        tables = []
        for name in MODELS:
            found = self.guesses[name]
            ids = found.best.ravel().tolist()
            columns: dict[str, Any] = {
                "model": name,
                "layer": np.repeat(self.layers, number),
                "token": np.tile(np.arange(number), layers),
                "text": names * layers,
                "guess": [self.spelled(one) for one in ids],
                "guess_id": ids,
                "guess_language": [self.language_of(one) for one in ids],
                "guess_script": [self.script_of(one) for one in ids],
                "probability": found.probs[:, :, 0].ravel(),
                "next": [*names[1:], ""] * layers,
            }
            for key in ("next_prob", "next_rank", "final_prob", "final_rank"):
                columns[key.replace("prob", "probability")] = getattr(found, key).ravel()
            tables.append(pd.DataFrame(columns | {"new_weight": self.new_weight.ravel()}))
        return pd.concat(tables, ignore_index=True)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it: numbers to six decimals, null where there is none, bytes in hex."""
        vocabulary = {
            str(token_id): {
                "bytes": _hex(piece),
                "language": self.language_of(token_id),
                "script": self.script_of(token_id),
            }
            for token_id, piece in self.vocabulary.items()
        }
        return {
            "format": FORMAT,
            **{name: getattr(self, name) for name in ("text", "language", "stage", "token_ids", "model")},
            "token_bytes": [_hex(piece) for piece in self.token_bytes],
            "layers": self.layers.tolist(),
            "new_weight": _numbers(self.new_weight),
            "languages": list(self.token_languages.languages),
            "vocabulary": vocabulary,
            "guesses": {
                name: {key: _numbers(array) for key, array in vars(self.guesses[name]).items()} for name in MODELS
            },
        }


def finding_in_words(lens: LogitLens, name: str) -> str:
    """Return in a sentence from which layer on one model's guesses are what it says in the end, and their languages.

    Args:
        lens: the guesses.
        name: `base` or `expanded`.
    """
    found = lens.guesses[name]
    settled = (found.best[::-1] == found.best[-1]).cumprod(axis=0).sum(axis=0)
    first = lens.layers[len(lens.layers) - settled]
    said = (
        f"The {name} model settles on its own best guess in layer {int(np.median(first))}, at the median over "
        f"{lens.num_tokens} places."
    )
    middle = len(lens.layers) // 2
    return f"{said} Halfway, in layer {int(lens.layers[middle])}, {_languages_said(lens, name, middle)}."


def _languages_said(lens: LogitLens, name: str, row: int) -> str:
    """Return what the best guesses of one layer are of, the largest part first."""
    parts = Counter(map(lens.kind_of, lens.guesses[name].best[row].tolist()))
    shares = ", ".join(f"{count / lens.num_tokens:.0%} {kind}" for kind, count in parts.most_common(3))
    return f"its best guesses are {shares}"


def _spelled(piece: bytes | None) -> str:
    return "" if piece is None else "".join(span.text for span in text_spans([piece]))


def _hex(piece: bytes | None) -> str | None:
    return None if piece is None else piece.hex()


def _numbers(values: np.ndarray) -> Any:
    """Return nested lists, NaN as None."""
    if values.dtype.kind != "f":
        return values.tolist()
    rounded = values.astype(float).round(6).astype(object)
    rounded[np.isnan(values)] = None
    return rounded.tolist()
