"""The token strip: a text as its tokens, each showing which experts did the work; one for app and notebooks.

The HTML carries the whole trace, so that choosing a token, a layer or a colouring never asks Python again. The script
writes text with `textContent` only.
"""

import json
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

from markupsafe import Markup

from lpr_lab.errors import LprError
from lpr_lab.measure.trace import RoutingChange, RoutingTrace
from lpr_lab.text.languages import get_language
from lpr_lab.views.html.layers import render_grid, render_profile
from lpr_lab.views.html.templates import render, with_style
from lpr_lab.views.html.token_data import strip_data
from lpr_lab.views.html.token_text import pieces_of
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


@dataclass(frozen=True)
class StripChoices:
    """What a strip shows at first.

    Attributes:
        layer: decoder layer; None, or a layer without a router, for the mean over all.
        expert: with a layer, the expert whose tokens are picked out; the others step back.
        token: index of the token that is selected.
        mode: `reading` (the text) or `tokens` (one chip per token, in sequence order).
        colour: what colour says: weight on the `original` expert, the chosen `expert`, the `gain` in bits over the
            base, the `surprise` in bits, or the `change` from another trace.
    """

    layer: int | None = None
    expert: int | None = None
    token: int | None = None
    mode: str = "reading"
    colour: str = "original"

    def within(self, trace: RoutingTrace, *, changed: bool = False) -> "StripChoices":
        """Return what a strip of this trace can show of it; `changed` when it is drawn beside another trace."""
        row = trace.layers.tolist().index(self.layer) if self.layer in trace.layers else None
        expert, token = self.expert, self.token
        return StripChoices(
            None if row is None else self.layer,
            expert if expert is not None and row is not None and expert < trace.num_experts[row] else None,
            token if token is not None and 0 <= token < min(trace.num_tokens, MAX_TOKENS) else None,
            self.mode if self.mode in MODES else MODES[0],
            self.colour if self.colour in colourings_of(trace, changed) else "original",
        )


def render_token_strip(
    trace: RoutingTrace,
    choices: StripChoices = StripChoices(),
    *,
    change: RoutingChange | None = None,
    change_from: str = "",
    experts: str = "",
    linked: bool = True,
    grid: bool = True,
    standalone: bool = False,
) -> Markup:
    """Return the strip as HTML.

    Args:
        trace: what to draw; at most `MAX_TOKENS` tokens of it.
        choices: what it shows at first; what the trace does not have is left out.
        change: how this trace differs from another one of the same text, for the colouring of that name.
        change_from: what it differs from, such as `G1 expand`.
        experts: address of the page of this model's experts, where every token then leads to its own; empty for none.
        linked: choices are announced, so that the page's address follows; not for a second strip on a page.
        grid: with the table of layers and experts; without it where several strips stand under one another.
        standalone: bring style and script along, for notebooks and files; the app has them once per page.
    """
    if not trace.num_tokens:
        return Markup('<p class="lpr-note">There is no token to show: the text is empty.</p>')
    shown = min(trace.num_tokens, MAX_TOKENS)
    language = get_language(trace.language) if trace.language else None
    data = strip_data(trace, shown, change) | {"from": change_from}
    first = choices.within(trace, changed=change is not None)
    has_router = len(trace.layers) > 0
    strip = render(
        "views/html/tokens.html.j2",
        state=_attributes(first) | {"linked": "yes" if linked else "no"},
        data=json.dumps(data, ensure_ascii=False),
        experts=experts,
        colourings=colourings_of(trace, change is not None) if has_router else {},
        group=uuid.uuid4().hex[:8],
        language=language,
        pieces=pieces_of(trace, shown, reverse=language is not None and language.direction == "rtl"),
        num_shown=shown,
        num_left_out=trace.num_tokens - shown,
        profile=render_profile(trace) if has_router else "",
        grid=render_grid(trace, change, change_from) if has_router and grid else "",
        is_long=shown > LONG,
        standalone=standalone,
        plain=_in_words(trace) if standalone else "",
    )
    return with_style(strip, "token_strip.css") + _loader() if standalone else strip


def _in_words(trace: RoutingTrace) -> str:
    """Return what there is to say where neither colours nor scripts are let through."""
    where = f", {percent(trace.original_share())} of them to the original expert" if len(trace.layers) else ""
    return (
        f"{trace.num_tokens} tokens{where}. Trust this notebook to see them one by one: "
        "in JupyterLab, View › Activate Command Palette › Trust Notebook."
    )


def _attributes(choices: StripChoices) -> dict[str, str]:
    """Return what the strip shows as its attributes say it."""
    said = {name: "" if value is None else str(value) for name, value in vars(choices).items()}
    return said | {"layer": said["layer"] or "all"}


def colourings_of(trace: RoutingTrace, changed: bool = False) -> dict[str, str]:
    """Return the colourings that there are numbers for, by name."""
    known = {
        "gain": trace.log_prob is not None and trace.base_log_prob is not None,
        "surprise": trace.log_prob is not None,
        "change": changed,
    }
    return {name: title for name, title in COLOURINGS.items() if known.get(name, len(trace.layers) > 0)}


def show_token_strip(trace: RoutingTrace, choices: StripChoices = StripChoices(), **options: Any) -> None:
    """Show the strip below a notebook cell; takes the options of `render_token_strip`."""
    try:
        from IPython.display import HTML, display
    except ImportError as error:
        raise LprError("show_token_strip needs a notebook; elsewhere use render_token_strip(trace).") from error
    display(HTML(render_token_strip(trace, choices, standalone=True, **options)))


@cache
def script() -> str:
    """Return the strip's JavaScript: it defines `lprTokenStrip(section)`, which draws one, and listens for all of them.

    It may be run several times on a page; the first time counts.
    """
    return "\n".join(read_static(name) for name in _SCRIPTS)


def _loader() -> Markup:
    new = "document.querySelectorAll('.lpr-strip:not([data-lpr-ready])')"
    return Markup(f"<script>{script()}\n{new}.forEach(window.lprTokenStrip);</script>")  # noqa: S704, from our files
