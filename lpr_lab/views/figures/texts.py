"""Figures of texts and tokenizers: how many tokens a language takes, and in which scripts it is written."""

from typing import TYPE_CHECKING

from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme
from lpr_lab.views.names import ROLES
from lpr_lab.views.numbers import percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

MIN_SHARE = 0.001
"""A script that no language has more of is not drawn."""

_SCRIPT_COLOURS = theme.EXPERT_COLOURS[2:]
"""Not blue and orange, which mean original and expanded."""

MEASURES = {
    "premium": "tokens for the same content",
    "tokens_per_word": "tokens per word",
    "tokens_per_character": "tokens per character",
    "tokens_per_byte": "tokens per UTF-8 byte",
}


def fertility(table: Table, measure: str = "premium", template: str = "lpr") -> "go.Figure":
    """Draw how many tokens each language takes, a bar per language.

    Args:
        table: columns language, role and `measure`, one row per language: one split.
        measure: one of `MEASURES`; languages without it are left out.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    figure = go.Figure()
    rows = table[table[measure].notna()]
    for role, title in ROLES.items():
        part = rows[rows["role"] == role]
        if part.empty:
            continue
        figure.add_bar(
            y=[language_name(code) for code in part["language"]],
            x=part[measure],
            orientation="h",
            name=title,
            marker={"color": theme.ROLE_COLOURS[role], "pattern": {"shape": "" if role == "original" else "/"}},
            text=[f"{value:.2f}" for value in part[measure]],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}: %{{x:.3f}} {MEASURES[measure]}<extra></extra>",
        )
    figure.update_layout(
        template=template,
        title=_fertility_finding(rows, measure),
        height=150 + 34 * len(rows),
        bargap=0.35,
        xaxis={"title": _axis(rows, measure), "rangemode": "tozero", "zeroline": True},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    return figure


def _axis(rows: Table, measure: str) -> str:
    if measure != "premium" or rows.empty:
        return MEASURES[measure]
    return f"{MEASURES[measure]}, {language_name(rows['language'].iloc[0])} = 1"


def _fertility_finding(rows: Table, measure: str) -> str:
    if rows.empty:
        return f"{MEASURES[measure].capitalize()}: not measured"
    least, most = (rows.loc[place] for place in (rows[measure].idxmin(), rows[measure].idxmax()))
    if measure == "premium":
        name, first = (language_name(code) for code in (most["language"], rows["language"].iloc[0]))
        return f"{name} takes {most[measure]:.1f} times the tokens of {first} for the same content"
    named = ((language_name(row["language"]), row[measure]) for row in (least, most))
    return f"{MEASURES[measure].capitalize()}: " + ", ".join(f"{name} {value:.2f}" for name, value in named)


def script_mix(table: Table, template: str = "lpr") -> "go.Figure":
    """Draw the share of letters in each script, one bar per language.

    Args:
        table: columns language, script, share; one split.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    figure = go.Figure()
    languages = list(dict.fromkeys(table["language"]))
    table = table[table.groupby("script")["share"].transform("max") >= MIN_SHARE]
    scripts = list(table.groupby("script", sort=False)["share"].sum().sort_values(ascending=False).index)
    for number, script in enumerate(scripts):
        shares = table[table["script"] == script].set_index("language")["share"].reindex(languages).fillna(0.0)
        colour, pattern = _SCRIPT_COLOURS[number % len(_SCRIPT_COLOURS)], ("", "/", ".", "x", "-")[number % 5]
        figure.add_bar(
            y=[language_name(code) for code in languages],
            x=100 * shares,
            orientation="h",
            name=script,
            marker={"color": colour, "pattern": {"shape": pattern}},
            hovertemplate=f"%{{y}}: %{{x:.1f}}% {script}<extra></extra>",
        )
    figure.update_layout(
        template=template,
        title=_script_finding(table),
        height=150 + 34 * len(languages),
        barmode="stack",
        bargap=0.35,
        xaxis={"title": "share of letters, %", "range": [0, 100]},
        yaxis={"autorange": "reversed", "showgrid": False},
    )
    return figure


def _script_finding(table: Table) -> str:
    largest = table.loc[table.groupby("language", sort=False)["share"].idxmax()]
    mixed = largest.loc[largest["share"].idxmin()]
    name = language_name(mixed["language"])
    return f"Most mixed is {name}: {percent(mixed['share'])} of its letters are {mixed['script']}"


def starts(table: Table, rounding: float, template: str = "lpr") -> "go.Figure":
    """Draw how far each start of an upcycled model is from its base, on a logarithmic axis.

    Args:
        table: columns expert_init, router_init, top_k, max_difference, same_prediction; the chosen start first.
        rounding: the largest difference that counts as none.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    names = [f"{row.expert_init}, {row.router_init}, top-{row.top_k}" for row in table.itertuples()]
    figure = go.Figure()
    is_equal = table["max_difference"] < rounding
    for equal, title, colour in ((True, "equal up to rounding", theme.ORIGINAL), (False, "another model", theme.NEW)):
        part = table[is_equal == equal]
        if part.empty:
            continue
        figure.add_scatter(
            x=part["max_difference"].clip(lower=rounding * 1e-4),
            y=[names[place] for place in part.index],
            mode="markers",
            name=title,
            marker={"color": colour, "size": 12, "symbol": "circle" if equal else "triangle-right"},
            customdata=100 * part["same_prediction"],
            hovertemplate="%{y}: at most %{x:.2g}; likeliest token the same at %{customdata:.0f}%<extra></extra>",
        )
    figure.add_vline(x=rounding, line={"dash": "dot", "width": 1.5})
    figure.update_layout(
        template=template,
        title=_starts_finding(table),
        height=150 + 34 * len(table),
        xaxis={"type": "log", "title": "largest difference of a logit from the base's", "exponentformat": "power"},
        yaxis={"categoryarray": names[::-1], "categoryorder": "array", "showgrid": False},
    )
    return figure


def _starts_finding(table: Table) -> str:
    worst = table.groupby("expert_init", sort=False)["max_difference"].max()
    return "Largest change of a logit: " + ", ".join(f"{how} {value:.2g}" for how, value in worst.items())
