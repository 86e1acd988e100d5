"""A logit lens as HTML: tokens down, layers across, in every cell what that layer would say comes next.

The HTML carries the guesses of both models, so that walking over cells and looking at one never asks Python. The script
draws the cells and writes text with `textContent` only.
"""

import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from lpr_lab.measure.guesses.lens import MODELS, Guesses, LogitLens, finding_in_words
from lpr_lab.text.languages import LANGUAGES
from lpr_lab.views.html.templates import render
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.names import ROLES

MAX_TOKENS = 128
"""Tokens drawn; what is beyond is announced, not hidden."""

_SCRIPT_CODES = {language.script: language.flores[4:] for language in LANGUAGES.values()} | {
    "Han": "Hani",
    "Hiragana": "Hira",
    "Katakana": "Kana",
}
"""ISO 15924, which is short enough for a cell."""


@dataclass(frozen=True)
class GuessChoice:
    """What a grid shows at first: whose guesses, and the layer and token of the chosen cell if there is one."""

    model: str = "expanded"
    layer: int | None = None
    token: int | None = None


def render_guesses(
    lens: LogitLens,
    roles: Mapping[str, str],
    choice: GuessChoice | None = None,
    *,
    note: str = "",
    query: str = "",
) -> Markup:
    """Return the grid; at most `MAX_TOKENS` of its tokens are drawn.

    Args:
        lens: the guesses.
        roles: language code to `original` or `expanded`, which colour and underline say.
        choice: whose guesses are shown, and the cell that is chosen.
        note: what has to be said of the languages, such as why some are not told apart.
        query: of the address that shows it again; empty where something else on the page sets the address.
    """
    choice = choice or GuessChoice()
    shown = min(lens.num_tokens, MAX_TOKENS)
    return render(
        "views/html/guesses.html.j2",
        data=json.dumps(_data(lens, roles, shown), ensure_ascii=False),
        model=choice.model,
        cell="" if choice.layer is None or choice.token is None else f"{choice.layer}.{choice.token}",
        query=query,
        said=finding_in_words(lens, choice.model),
        group=uuid.uuid4().hex[:8],
        note=note,
        examples=[(code, role) for role in ROLES if (code := _first(roles, role))],
        num_shown=shown,
        num_left_out=lens.num_tokens - shown,
    )


def _first(roles: Mapping[str, str], role: str) -> str:
    return next((code for code, own in roles.items() if own == role), "")


def _data(lens: LogitLens, roles: Mapping[str, str], shown: int) -> dict[str, Any]:
    """Return what the script draws from: by model, arrays [tokens, layers, ...]; guesses as places in `words`."""
    ids = np.array(list(lens.vocabulary))
    return {
        "layers": lens.layers.tolist(),
        "tokens": [chip_label(piece) for piece in lens.token_bytes[: shown + 1]],
        "shown": shown,
        "top": int(lens.expanded.token_ids.shape[2]),
        "words": [_word(lens, token_id, roles) for token_id in lens.vocabulary],
        "new": _pack(lens.new_weight[:, :shown].T, "<f4"),
        "models": {
            name: _guesses(lens.guesses[name], ids, shown) | {"said": finding_in_words(lens, name)} for name in MODELS
        },
        "follows": [int(token_id) for token_id in lens.token_ids[1 : shown + 1]],
        "ids": ids.tolist(),
    }


def _guesses(found: Guesses, ids: np.ndarray, shown: int) -> dict[str, str]:
    places = np.searchsorted(ids, found.token_ids[:, :shown])
    packed = {
        "words": _pack(places.transpose(1, 0, 2), "<i4"),
        "probs": _pack(found.probs[:, :shown].transpose(1, 0, 2), "<f4"),
    }
    for name, kind in (("next_prob", "<f4"), ("next_rank", "<i4"), ("final_prob", "<f4"), ("final_rank", "<i4")):
        packed[name] = _pack(getattr(found, name)[:, :shown].T, kind)
    return packed


def _word(lens: LogitLens, token_id: int, roles: Mapping[str, str]) -> list[str]:
    """Return label, mark, the mark in words, and role of a guessed token."""
    code, script = lens.language_of(token_id), lens.script_of(token_id)
    mark = code or _SCRIPT_CODES.get(script, script)
    return [chip_label(lens.vocabulary[token_id]), mark, lens.kind_of(token_id), roles.get(code, "")]


def _pack(values: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()
