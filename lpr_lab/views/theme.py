"""The look: colours, type and the plotly templates `lpr` and `lpr_dark`, shared by dashboard, notebooks and reports.

Chrome is ink on paper; colour is kept for data. Blue is the frozen original expert and whatever belongs to it, orange
is what the expansion added, in every picture and in every sentence. A second cue (solid against dashed, circle against
triangle, position) always says the same as the colour.
"""

import functools
from typing import Any

FONT = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew", '
    '"Noto Sans Bengali", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans CJK SC", "Noto Color Emoji", sans-serif'
)
MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", "Noto Sans Mono", monospace'

ORIGINAL = "#1f7fc4"
NEW = "#e0701b"
EXPERT_COLOURS = (ORIGINAL, NEW, "#38754c", "#ce6da6", "#a98c7e", "#933ee9", "#686a6d")
"""Expert 0 first. Each has a contrast of 3:1 or more on the light and on the dark surface, and any two differ by a
CIE76 distance of 15 or more for normal and for colour-blind eyes (tested). From the seventh on, experts share one."""

ROLE_COLOURS = {"original": ORIGINAL, "expanded": NEW}
GREY = "#7d8695"
"""A contrast of 3:1 or more on both grounds."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
"""Plotly's markers, in the order in which lines of one colour take them."""

LIGHT = {
    "paper": "#f7f8fa",
    "surface": "#ffffff",
    "sunken": "#eef0f4",
    "line": "#dfe3ea",
    "line-strong": "#8a93a3",
    "ink": "#12151c",
    "ink-2": "#454c59",
    "ink-3": "#5f6775",
    "original-ink": "#14609a",
    "new-ink": "#a84c08",
    "good": "#0b6e74",
    "bad": "#b02a37",
    "warn": "#7d5b00",
    "shadow": "0 1px 2px rgb(18 21 28 / .05), 0 8px 24px -16px rgb(18 21 28 / .25)",
}
DARK = {
    "paper": "#0e1116",
    "surface": "#161a21",
    "sunken": "#1e232c",
    "line": "#2b313c",
    "line-strong": "#697385",
    "ink": "#eceff4",
    "ink-2": "#bcc3cf",
    "ink-3": "#949dac",
    "original-ink": "#6db8ef",
    "new-ink": "#f79a57",
    "good": "#4cc2c4",
    "bad": "#ff8d85",
    "warn": "#e0b64c",
    "shadow": "0 1px 2px rgb(0 0 0 / .4)",
}


def expert_colour(expert: int) -> str:
    """Return the colour of an expert; all beyond the seventh share grey rather than get a hue that means nothing."""
    return EXPERT_COLOURS[min(expert, len(EXPERT_COLOURS) - 1)]


def expert_tone(expert: int) -> str:
    """Return the same as the CSS variable that holds it."""
    return f"var(--lpr-expert-{min(expert, len(EXPERT_COLOURS) - 1)})"


def css_colours(selector: str, dark: bool = False) -> str:
    """Return the CSS rule that sets the colour variables of one brightness, such as `--lpr-ink`, under `selector`."""
    return _rule(selector, DARK if dark else LIGHT)


def css_constants(selector: str = ":root") -> str:
    """Return the CSS rule for what is the same by day and night: fonts and the colours of data."""
    experts = {f"expert-{index}": colour for index, colour in enumerate(EXPERT_COLOURS)}
    return _rule(selector, {"font": FONT, "mono": MONO, "original": ORIGINAL, "new": NEW, **experts})


@functools.cache
def notebook_colours() -> str:
    """Return the CSS rules for HTML in notebooks and files of its own: dark follows the notebook, else the system."""
    undecided = "body:not([data-jp-theme-light]):not(.vscode-light)"
    return (
        css_constants()
        + css_colours(":root")
        + f"@media (prefers-color-scheme:dark){{{css_colours(undecided, dark=True)}}}"
        + css_colours('body[data-jp-theme-light="false"],body.vscode-dark', dark=True)
    )


def _rule(selector: str, values: dict[str, str]) -> str:
    return selector + "{" + "".join(f"--lpr-{name}:{value};" for name, value in values.items()) + "}\n"


SEQUENTIAL = "Cividis"
DIVERGING = "PuOr"

TOP = 84
"""Pixels above a figure: a title of one line, and the legend."""


def template(dark: bool = False) -> Any:
    """Return the plotly template: no frame, quiet grid, room for the title that says the finding."""
    import plotly.graph_objects as go

    colours = DARK if dark else LIGHT
    axis = {
        "gridcolor": colours["line"],
        "linecolor": colours["line-strong"],
        "zerolinecolor": colours["line-strong"],
        "zerolinewidth": 1.5,
        "tickfont": {"size": 12, "color": colours["ink-2"]},
        "title": {"font": {"size": 12, "color": colours["ink-3"]}, "standoff": 8},
        "automargin": True,
        "ticks": "",
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": colours["ink"]},
            "title": {
                "font": {"size": 16, "color": colours["ink"], "weight": 600},
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 12, "b": 8},
            },
            "paper_bgcolor": colours["surface"],
            "plot_bgcolor": colours["surface"],
            "colorway": list(EXPERT_COLOURS),
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"},
            "margin": {"l": 8, "r": 16, "t": TOP, "b": 40},
            "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
            "hovermode": "closest",
            "colorscale": {"sequential": SEQUENTIAL, "diverging": DIVERGING},
            "separators": ".\u202f",
        }
    )


@functools.cache
def register() -> None:
    """Make `template="lpr"` and `template="lpr_dark"` known to plotly (called by every figure function)."""
    import plotly.io as pio

    pio.templates["lpr"] = template()
    pio.templates["lpr_dark"] = template(dark=True)
