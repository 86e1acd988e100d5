"""What experts do, layer by layer, drawn: what language tells, what changed between stages; and both in a sentence.

The load itself is drawn by `views.expert_panels`, which people can click and read aloud.
"""

from typing import TYPE_CHECKING, Any

from lpr_lab.errors import UsageError
from lpr_lab.views import theme
from lpr_lab.views.numbers import percent
from lpr_lab.views.plots import GREY, ROLE_COLOURS, ROLES, language_name

if TYPE_CHECKING:
    import plotly.graph_objects as go

Table = Any
"""A `pandas.DataFrame`; the type pandas declares for itself is lost at the first filter."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
MAX_LINES = len(SYMBOLS)


def information_finding(table: Table) -> str:
    """Return one sentence: how much of the language the expert gives away, and how much chance alone would."""
    bits, ceiling = float(table["bits"].mean()), float(table["ceiling_bits"].mean())
    said = f"The expert of a token tells {bits:.2f} of {ceiling:.2f} bits about its language, on average over layers"
    if "null_bits" not in table:
        return f"{said}; what chance alone gives was not measured"
    chance = float(table["null_bits"].mean())
    clear = int((table["bits"] > table["null_high_bits"]).sum())
    where = "in every layer" if clear == len(table) else f"in {clear} of {len(table)} layers"
    return f"{said}; chance alone gives {chance:.2f}, and it is more {where}"


def information(table: Table, template: str = "lpr") -> "go.Figure":
    """Draw mutual information of language and expert over depth, its ceiling, and what shuffled documents give.

    Args:
        table: one stage and data set; columns layer, bits, ceiling_bits, and null_bits, null_high_bits where measured.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    _refuse_several(table, "information")
    figure = go.Figure()
    layers = table["layer"]
    figure.add_scatter(
        x=layers,
        y=table["ceiling_bits"],
        mode="lines",
        name="the most there can be",
        line={"color": GREY, "width": 1.5, "dash": "dash"},
        hovertemplate="layer %{x}: at most %{y:.2f} bits<extra></extra>",
    )
    if "null_bits" in table:
        figure.add_scatter(
            x=layers,
            y=table["null_high_bits"],
            mode="lines",
            name="documents shuffled: 95 of 100 lie below",
            line={"color": GREY, "width": 1.5, "dash": "dot"},
            fill="tozeroy",
            fillcolor="rgba(125,134,149,.18)",
            hovertemplate="layer %{x}: by chance below %{y:.3f} bits<extra></extra>",
        )
    figure.add_scatter(
        x=layers,
        y=table["bits"],
        mode="lines+markers",
        name="measured",
        line={"color": theme.NEW, "width": 2.5},
        marker={"symbol": "diamond", "size": 8},
        hovertemplate="layer %{x}: %{y:.3f} bits<extra></extra>",
    )
    figure.update_layout(
        template=template,
        title=information_finding(table),
        height=340,
        xaxis={"title": "layer", "showgrid": False, "zeroline": False},
        yaxis={"title": "bits", "rangemode": "tozero"},
    )
    return figure


def agreement_finding(table: Table, number: str = "same_first") -> str:
    """Return one sentence: how many choices stayed the same between two stages, by kind of language, and the least."""
    what = "first choices" if number == "same_first" else "choices"
    parts = []
    for role in ROLES:
        rows = table[table["role"] == role]
        if not rows.empty:
            parts.append(f"{percent(rows[number].mean())} {'' if parts else f'of {what} '}on {role} languages")
    before, after = table["before"].iloc[0], table["after"].iloc[0]
    said = f"{' and '.join(parts)} are the same at {before} and at {after}"
    means = table.groupby("language")[number].mean()
    if len(means) < 2:
        return said
    return f"{said}; fewest on {language_name(str(means.idxmin()))}, {percent(means.min())}"


def agreement(table: Table, number: str = "same_first", template: str = "lpr") -> "go.Figure":
    """Draw the share of choices that two stages have in common (saturation), over depth.

    One line per language; beyond `MAX_LINES` languages one per kind of language, with the range of its languages.

    Args:
        table: one data set and one pair of stages; columns before, after, language, role, layer, same_choices,
            same_first.
        number: `same_first` for first choices, `same_choices` for all K.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    _refuse_several(table, "agreement")
    figure = go.Figure()
    each = table["language"].nunique() <= MAX_LINES
    for role, title in ROLES.items():
        rows = table[table["role"] == role]
        for place, (code, part) in enumerate(rows.groupby("language" if each else "role", sort=False)):
            spread = part.groupby("layer")[number].agg(["mean", "min", "max"])
            name = language_name(str(code)) if each else f"{title}, with their range"
            ranges = {"array": spread["max"] - spread["mean"], "arrayminus": spread["mean"] - spread["min"]}
            figure.add_scatter(
                x=spread.index,
                y=100 * spread["mean"],
                error_y=None
                if each
                else {"symmetric": False, "thickness": 1, "width": 0, **{key: 100 * v for key, v in ranges.items()}},
                mode="lines+markers",
                name=name,
                line={"color": ROLE_COLOURS[role], "width": 2, "dash": "solid" if role == "original" else "dash"},
                marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7},
                hovertemplate=f"{name}, layer %{{x}}: %{{y:.1f}}%<extra></extra>",
            )
    figure.update_layout(
        template=template,
        title=agreement_finding(table, number),
        height=340,
        xaxis={"title": "layer", "showgrid": False, "zeroline": False},
        yaxis={"title": "the same at both stages, %", "range": [-3, 103], "zeroline": False},
    )
    return figure


def _refuse_several(table: Table, name: str) -> None:
    for column in ("stage", "dataset", "before", "after"):
        if column in table and table[column].nunique() > 1:
            raise UsageError(f"{name}() draws one {column} at a time; filter the table by `{column}` first.")
