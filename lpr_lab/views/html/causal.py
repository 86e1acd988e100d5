"""A causal map as HTML: tokens down, layers across, and beside one cell what the model expects there both ways.

The HTML carries the numbers of all experts, so that choosing an expert or walking over cells never asks Python again.
The script draws the cells and writes text with `textContent` only.
"""

import base64
import json
import uuid
from typing import Any

import numpy as np
from markupsafe import Markup

from lpr_lab.measure.causal.causal_map import CausalMap, Cell, NextTokens, finding_in_words, word_in_words
from lpr_lab.views.html.templates import render
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.names import expert_name
from lpr_lab.views.numbers import percent

MAX_TOKENS = 512
"""Tokens drawn; what is beyond is announced, not hidden."""
MAX_ROWS = 20_000
"""Of a table that is offered as a file; a longer one would weigh more than the page."""
_LEAST_LIMIT = 0.05
"""Bits that are drawn as strong as colour gets, at least: what is less everywhere looks like nothing, as it is."""


def render_causal(causal: CausalMap, expert: int = 0, cell: Cell | None = None, *, query: str = "") -> Markup:
    """Return the map.

    Args:
        causal: whole or in part; at most `MAX_TOKENS` of its tokens are drawn.
        expert: the one shown first, where the map has it.
        cell: the one that is chosen.
        query: of the address that shows it again; empty where something else on the page sets the address.
    """
    if not causal.experts:
        return Markup("")
    expert = expert if expert in causal.experts else causal.experts[0]
    shown = min(causal.num_tokens, MAX_TOKENS)
    small = len(causal.layers) * causal.num_tokens * len(causal.experts) <= MAX_ROWS
    return render(
        "views/html/causal.html.j2",
        data=json.dumps(_data(causal, shown), ensure_ascii=False),
        expert=expert,
        cell=f"{cell.layer}.{cell.token}" if cell is not None else "",
        query=query,
        said=finding_in_words(causal, expert),
        experts={number: expert_name(number) for number in causal.experts},
        group=uuid.uuid4().hex[:8],
        num_shown=shown - 1,
        num_left_out=causal.num_tokens - shown,
        csv=_file(causal.to_frame().to_csv(index=False)) if small else "",
        json=_file(json.dumps(causal.to_dict(), ensure_ascii=False)) if small else "",
    )


def render_next_tokens(causal: CausalMap, found: NextTokens) -> Markup:
    """Return the likeliest next tokens at one place, as it is and with the layer switched."""
    cell = found.cell
    rows = [
        {
            "label": chip_label(piece),
            "is_next": token_id == causal.token_ids[cell.token],
            "as_is": percent(float(before)),
            "switched": percent(float(after)),
            "shares": (float(before), float(after)),
        }
        for token_id, piece, before, after in zip(
            found.token_ids, found.token_bytes, found.as_is, found.switched, strict=True
        )
    ]
    return render(
        "views/html/next_tokens.html.j2",
        cell=cell,
        expert=expert_name(cell.expert),
        token=chip_label(causal.token_bytes[cell.token]),
        bits=found.bits,
        change=found.bits[1] - found.bits[0],
        of_word=word_in_words(causal, cell) if cell.expert in causal.experts else "",
        rows=rows,
        is_among=any(row["is_next"] for row in rows),
    )


def _data(causal: CausalMap, shown: int) -> dict[str, Any]:
    """Return what the script draws from: by expert the changes [tokens, layers] as 32-bit numbers, and their limit."""
    experts = {}
    for expert in causal.experts:
        change = causal.switched_to(expert)[:, 1:]
        known = np.abs(change[~np.isnan(change)])
        experts[expert] = {
            "change": _pack(change[:, : shown - 1].T),
            "total": _pack(causal.of_layers(expert)),
            "limit": max(float(np.quantile(known, 0.99)), _LEAST_LIMIT),
            "said": finding_in_words(causal, expert),
            "name": expert_name(expert),
        }
    return {
        "layers": causal.layers.tolist(),
        "tokens": [chip_label(piece) for piece in causal.token_bytes[1:shown]],
        "bits": _pack(causal.bits[1:shown]),
        "experts": experts,
    }


def _pack(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype("<f4").tobytes()).decode()


def _file(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
