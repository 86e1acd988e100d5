"""The token strip: a text as its tokens, each showing which experts did the work; one renderer for app and notebooks.

The HTML carries the whole trace, so that choosing a token, a layer or a colouring never asks Python again. In reading
mode the text is one paragraph of inline pieces that differ in background only: anything more (padding, borders,
direction changes) would break the joining of Arabic letters and the order of mixed directions. Every piece of text goes
through `html.escape`; the script below writes text with `textContent` only.
"""

import base64
import html
import json
import unicodedata
import uuid
from functools import cache
from typing import Any

import numpy as np

from lpr_lab.errors import LprError
from lpr_lab.measure.trace import RoutingChange, RoutingTrace
from lpr_lab.text.graphemes import Run, clusters, runs
from lpr_lab.text.languages import get_language
from lpr_lab.views import theme
from lpr_lab.views.html.layers import render_grid, render_profile
from lpr_lab.views.numbers import percent
from lpr_lab.views.static import read_static

MAX_TOKENS = 2048
"""Tokens drawn at once; what is beyond is announced, not hidden."""

LONG = 250
"""From this many tokens on, the token panel and the layers stay in sight while the text scrolls."""

MODES = ("reading", "tokens")
COLOURINGS = {
    "original": "Original weight",
    "expert": "Chosen expert",
    "gain": "Change in bits",
    "surprise": "Surprise",
    "change": "What moved",
}
_SCRIPTS = ("token_strip.js", "token_looks.js", "token_grid.js", "token_events.js")

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


def render_token_strip(
    trace: RoutingTrace,
    *,
    layer: int | None = None,
    expert: int | None = None,
    token: int | None = None,
    mode: str = "reading",
    colour: str = "original",
    change: RoutingChange | None = None,
    change_from: str = "",
    linked: bool = True,
    standalone: bool = False,
) -> str:
    """Return the strip as HTML.

    Args:
        trace: what to draw; at most `MAX_TOKENS` tokens of it.
        layer: decoder layer shown first; None, or a layer without a router, for the mean over all.
        expert: with a layer, the expert whose tokens are picked out at first; the others step back.
        token: index of the token that is selected at first.
        mode: `reading` (the text) or `tokens` (one chip per token, in sequence order).
        colour: what colour says: weight on the `original` expert, the chosen `expert`, the `gain` in bits over the
            base, the `surprise` in bits, or the `change` from another trace.
        change: how this trace differs from another one of the same text, for that last colouring.
        change_from: what it differs from, such as `G1 expand`.
        linked: choices are announced, so that the page's address follows; not for a second strip on a page.
        standalone: bring style and script along, for notebooks and files; the app has them once per page.
    """
    if not trace.num_tokens:
        return '<p class="lpr-note">There is no token to show: the text is empty.</p>'
    shown = min(trace.num_tokens, MAX_TOKENS)
    pieces = trace.token_bytes[:shown]
    language = get_language(trace.language) if trace.language else None
    payload = _payload(trace, shown, change)
    payload["from"] = change_from
    shows = choices_in(trace, layer, expert, token, mode, colour, changed=change is not None)
    state = {
        "layer": "all" if shows["layer"] is None else str(shows["layer"]),
        **{name: "" if shows[name] is None else str(shows[name]) for name in ("expert", "token")},
        "mode": shows["mode"],
        "colour": shows["colour"],
        "linked": "yes" if linked else "no",
    }
    attributes = " ".join(f'data-{name}="{html.escape(value)}"' for name, value in state.items())
    direction = language.direction if language else "auto"
    code = f' lang="{html.escape(language.code)}"' if language else ""
    classes = ["lpr-strip"] + ["lpr-alone"] * standalone + ["lpr-long"] * (shown > LONG)
    parts = [
        f'<section class="{" ".join(classes)}" aria-label="Token view" {attributes} '
        f'data-trace="{html.escape(json.dumps(payload, ensure_ascii=False))}">',
        _toolbar(trace, change is not None, state),
        '<p class="lpr-legend"></p><p class="lpr-picked" hidden></p>',
        f'<p class="lpr-text" role="listbox" aria-orientation="horizontal" dir="{direction}"{code} '
        'aria-label="Tokens in sequence order. Arrow keys move, up and down change the layer, Enter pins.">',
        _reading(trace, pieces, reverse=direction == "rtl"),
        '</p><div class="lpr-chips" role="listbox" dir="ltr" aria-label="Tokens, earlier to later" hidden></div>',
        _cap_notice(trace, shown),
        '<div class="lpr-foot"><div class="lpr-token"></div>',
        render_profile(trace) if len(trace.layers) else "",
        "</div>",
        render_grid(trace, change, change_from) if len(trace.layers) else "",
        '<p class="lpr-live" role="status"></p></section>',
    ]
    return ("<style>" + style() + "</style>" if standalone else "") + "".join(parts) + (_loader() if standalone else "")


def choices_in(
    trace: RoutingTrace,
    layer: int | None = None,
    expert: int | None = None,
    token: int | None = None,
    mode: str = "",
    colour: str = "",
    *,
    changed: bool = False,
) -> dict[str, Any]:
    """Return what a strip of this trace shows when asked for these: what it does not have is left out.

    Args:
        trace: what is drawn.
        layer: see `render_token_strip`, as for the next four.
        expert: of that layer.
        token: its index.
        mode: reading or tokens.
        colour: one of `COLOURINGS`.
        changed: whether it is drawn beside another trace.
    """
    row = trace.layers.tolist().index(layer) if layer in trace.layers else None
    return {
        "layer": None if row is None else layer,
        "expert": expert if expert is not None and row is not None and expert < trace.num_experts[row] else None,
        "token": token if token is not None and 0 <= token < min(trace.num_tokens, MAX_TOKENS) else None,
        "mode": mode if mode in MODES else MODES[0],
        "colour": colour if colour in colourings_of(trace, changed) else "original",
    }


def colourings_of(trace: RoutingTrace, changed: bool = False) -> dict[str, str]:
    """Return the colourings that there are numbers for, by name."""
    known = {
        "gain": trace.log_prob is not None and trace.base_log_prob is not None,
        "surprise": trace.log_prob is not None,
        "change": changed,
    }
    return {name: title for name, title in COLOURINGS.items() if known.get(name, len(trace.layers) > 0)}


def show_token_strip(trace: RoutingTrace, **options: Any) -> None:
    """Show the strip below a notebook cell; takes the options of `render_token_strip`."""
    try:
        from IPython.display import HTML, display
    except ImportError as error:
        raise LprError("show_token_strip needs a notebook; elsewhere use render_token_strip(trace).") from error
    display(HTML(render_token_strip(trace, standalone=True, **options)))


@cache
def style() -> str:
    """Return the strip's CSS with its colours, usable outside the app; dark follows the notebook, else the system."""
    return theme.notebook_colours() + strip_css()


@cache
def strip_css() -> str:
    """Return the strip's rules alone, for pages that set the colour variables themselves."""
    return read_static("token_strip.css")


@cache
def script() -> str:
    """Return the strip's JavaScript: it defines `lprTokenStrip(section)`, which draws one, and listens for all of them.

    It may be run several times on a page; the first time counts.
    """
    return "\n".join(read_static(name) for name in _SCRIPTS)


def _loader() -> str:
    new = "document.querySelectorAll('.lpr-strip:not([data-lpr-ready])')"
    return f"<script>{script()}\n{new}.forEach(window.lprTokenStrip);</script>"


# ------------------------------------------------------------------------------------------------- reading mode


def _reading(trace: RoutingTrace, pieces: list[bytes | None], reverse: bool) -> str:
    weight = trace.original_weight.mean(axis=0) if len(trace.layers) else np.ones(trace.num_tokens)
    placed: set[int] = set()
    out = []
    for run in runs(pieces):
        options = [index for index in run.tokens if index not in placed]
        placed.update(options)
        out.append(_draw(run, options, weight, len(pieces), reverse))
    return "".join(out)


def _draw(run: Run, options: list[int], weight: np.ndarray, total: int, reverse: bool) -> str:
    text = html.escape(_visible(run.text)).replace("\r", "&#13;")
    kind = (
        " lpr-special" if run.kind == "special" else " lpr-newline" if run.text and not run.text.strip("\r\n") else ""
    )
    tokens = " ".join(map(str, run.tokens))
    if len(run.tokens) == 1:
        index = run.tokens[0]
        role = _option(index, run.text, weight[index], total) if options else ""
        tone, alpha = _tone(weight[index])
        return f'<span class="lpr-t {tone}{kind}" data-t="{tokens}" style="--a:{alpha}"{role}>{text}</span>'
    inner = text
    if options:
        first, *others = (
            f"<span{_option(index, run.text, weight[index], total)}>{text if index == options[0] else ''}</span>"
            for index in options
        )
        inner = first + "".join(others)
    segments = segment_style([float(weight[index]) for index in run.tokens], reverse)
    return f'<span class="lpr-t lpr-shared{kind}" data-t="{tokens}" style="{segments}">{inner}</span>'


def _option(index: int, text: str, weight: float, total: int) -> str:
    said = text.strip() or ("special token" if not text else "white space")
    label = f"token {index + 1} of {total}, {said}, original expert {percent(weight)} over all layers"
    return f' role="option" tabindex="-1" aria-selected="false" data-i="{index}" aria-label="{html.escape(label)}"'


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


def _visible(text: str) -> str:
    """Show control characters, which HTML would drop, as their pictures; line breaks and tabs stay."""
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\t\n\r" else c for c in text)


# ---------------------------------------------------------------------------------------- toolbar, table, payload


def _toolbar(trace: RoutingTrace, changed: bool, state: dict[str, str]) -> str:
    if not len(trace.layers):
        return '<p class="lpr-note">This model has no router: every token takes the one path there is.</p>'
    group = uuid.uuid4().hex[:8]
    colourings = colourings_of(trace, changed)
    return (
        '<div class="lpr-bar">'
        + _choices(group, "mode", "Show", {"reading": "Reading", "tokens": "Tokens"}, state["mode"])
        + _choices(group, "colour", "Colour", colourings, state["colour"])
        + "</div>"
    )


def _choices(group: str, name: str, title: str, options: dict[str, str], chosen: str) -> str:
    buttons = "".join(
        f'<label><input type="radio" name="{name}-{group}" data-set="{name}" value="{value}"'
        f"{' checked' if value == chosen else ''}><span>{html.escape(label)}</span></label>"
        for value, label in options.items()
    )
    return f'<fieldset class="lpr-choices"><legend class="lpr-label">{title}</legend><div>{buttons}</div></fieldset>'


def _cap_notice(trace: RoutingTrace, shown: int) -> str:
    if shown == trace.num_tokens:
        return ""
    return f'<p class="lpr-note">Showing the first {shown:,} of {trace.num_tokens:,} tokens.</p>'


def _payload(trace: RoutingTrace, shown: int, change: RoutingChange | None) -> dict[str, Any]:
    """Return what the script needs; arrays as base64 of [L, T, ...], shares as 16-bit numbers."""
    weights = np.clip(trace.expert_weights[:, :shown], 0, 1)
    names = ["as it is", "changed"] if trace.model.get("changed") else ["base", "expanded"]
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
    for run in runs([piece]):
        out.append(run.text if run.kind == "invalid" else "".join(map(_name, run.text)))
    return " ".join(out) if len(out) > 1 else out[0]


def _name(character: str) -> str:
    if character in _NAMES:
        return _NAMES[character]
    if unicodedata.category(character) in ("Cc", "Cf"):
        return f"U+{ord(character):04X}"
    return character
