"""A text cut into what can be coloured: one piece per character that tokens share, its tokens, tints and labels.

Pieces differ in background only: anything more (padding, borders, direction changes) would break the joining of Arabic
letters and the order of mixed directions.
"""

from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.text.graphemes import TextSpan, text_spans
from lpr_lab.views.numbers import percent

_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n\r"}
"""Control characters, which HTML would drop, as their pictures; line breaks and tabs stay."""


class Option(NamedTuple):
    """A token as something to choose."""

    index: int
    label: str
    text: Markup
    """What it shows; empty where an earlier token shows the character."""


class Piece(NamedTuple):
    """A stretch of text that one token makes, or several together."""

    kind: str
    """Classes."""
    tokens: str
    style: str
    text: Markup
    options: list[Option]
    """Those of its tokens that no earlier piece offers."""
    is_shared: bool


def visible(text: str) -> str:
    """Return a text with control characters as their pictures."""
    return text.translate(_PICTURES)


def pieces_of(trace: RoutingTrace, shown: int, *, reverse: bool) -> list[Piece]:
    """Return the text of the first tokens in pieces.

    Args:
        trace: gives each token its tint: its mean weight on the original expert.
        shown: how many tokens.
        reverse: whether the text runs from right to left.
    """
    weight = trace.original_weight.mean(axis=0) if len(trace.layers) else np.ones(trace.num_tokens)
    placed: set[int] = set()
    pieces = []
    for span in text_spans(trace.token_bytes[:shown]):
        new = [index for index in span.tokens if index not in placed]
        placed.update(new)
        pieces.append(_piece(span, new, weight, shown, reverse))
    return pieces


def _piece(span: TextSpan, new: list[int], weight: np.ndarray, total: int, reverse: bool) -> Piece:
    text = escape(visible(span.text))
    if "\r" in text:  # as it is, it would be read as a line feed
        text = text.replace("\r", Markup("&#13;"))
    kind = "special" if span.kind == "special" else "newline" if span.text and not span.text.strip("\r\n") else ""
    is_shared = len(span.tokens) > 1
    if is_shared:
        tone, style = "lpr-shared", segment_style([float(weight[index]) for index in span.tokens], reverse)
    else:
        tone, alpha = _tone(weight[span.tokens[0]])
        style = f"--a:{alpha}"
    options = [
        Option(index, _label(index, span.text, weight[index], total), text if index == new[0] else Markup())
        for index in new
    ]
    classes = f"{tone} lpr-{kind}" if kind else tone
    return Piece(classes, " ".join(map(str, span.tokens)), style, text, options, is_shared)


def _label(index: int, text: str, weight: float, total: int) -> str:
    said = text.strip() or ("special token" if not text else "white space")
    return f"token {index + 1} of {total}, {said}, original expert {percent(weight)} over all layers"


def _tone(weight: float) -> tuple[str, float]:
    """Return the class (mostly original, or mostly new) and how strong the tint is, from 0.03 at a half to 0.17."""
    return ("lpr-o" if weight >= 0.5 else "lpr-n"), round(0.03 + 0.14 * abs(2 * float(weight) - 1), 3)


def segment_style(weights: list[float], reverse: bool) -> str:
    """Return the style of a character made by several tokens: one underline segment each, in reading order."""
    count = len(weights)
    tone, alpha = _tone(sum(weights) / count)
    colour = "original" if tone == "lpr-o" else "new"
    images, positions = [], []
    for index, weight in enumerate(weights):
        tone = "original" if weight >= 0.5 else "new"
        place = (count - 1 - index if reverse else index) / max(count - 1, 1)
        images.append(f"var(--lpr-line-{tone})")
        positions.append(f"{100 * place:.1f}% 100%")
    line = f"calc({100 / count:.2f}% - 1px) 3px"
    return (
        f"--tone:var(--lpr-{colour});--a:{alpha};background-image:{','.join(images)},var(--lpr-wash);"
        f"background-size:{','.join([line] * count)},calc(100% - 1px) 100%;"
        f"background-position:{','.join(positions)},{'100%' if reverse else '0'} 0"
    )
