"""Figures of one segment in many languages: by layer how unlike, and how similar, each is to the reference language."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme

if TYPE_CHECKING:
    import plotly.graph_objects as go


def divergence_by_layer(table: Table, roles: Mapping[str, str], template: str = "lpr") -> "go.Figure":
    """Draw by layer the divergence of each language's routing from the reference's, in bits.

    Filled marks are above what 95 % of random deals of the same tokens give, open ones are not; the dotted lines are
    that bound. Solid lines are original languages, dashed ones expanded languages.

    Args:
        table: `LanguageComparison.to_frame`.
        roles: language -> `original` or `expanded`; those without are grey.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    figure = go.Figure()
    others = _others(table)
    for place, code in enumerate(others):
        rows = table[(table["language"] == code) & table["divergence_bits"].notna()]
        symbol = theme.SYMBOLS[place % len(theme.SYMBOLS)]
        is_clear = (rows["divergence_bits"] > rows["chance_high_bits"]).tolist()
        figure.add_scatter(
            x=rows["layer"],
            y=rows["divergence_bits"],
            name=language_name(code),
            mode="lines+markers",
            marker={"size": 7, "symbol": [symbol if clear else f"{symbol}-open" for clear in is_clear]},
            line=_line(roles.get(code)),
            customdata=rows[["chance_bits", "chance_high_bits", "halves_bits"]].to_numpy(),
            hovertemplate=f"{language_name(code)}, layer %{{x}}: %{{y:.3f}} bits; by chance %{{customdata[0]:.3f}}, in "
            "95 % of deals below %{customdata[1]:.3f}; its own halves %{customdata[2]:.3f}<extra></extra>",
        )
    for place, code in enumerate(others):
        rows = table[(table["language"] == code) & table["chance_high_bits"].notna()]
        figure.add_scatter(
            x=rows["layer"],
            y=rows["chance_high_bits"],
            name="by chance, 95 % of deals below",
            legendgroup="chance",
            showlegend=place == 0,
            mode="lines",
            line={"color": theme.GREY, "width": 1.5, "dash": "dot"},
            hovertemplate=f"{language_name(code)}, layer %{{x}}: 95 % of deals below %{{y:.3f}} bits<extra></extra>",
        )
    y = {"title": f"divergence from {_reference(table)}, bits", "rangemode": "tozero"}
    return _laid_out(figure, table, template, divergence_finding(table), y)


def similarity_by_layer(table: Table, roles: Mapping[str, str], template: str = "lpr") -> "go.Figure":
    """Draw by layer the mean cosine of each language's tokens with those of the reference.

    The dotted line is the mean cosine of two different tokens of the reference's own text. Arguments are those of
    `divergence_by_layer`.
    """
    import plotly.graph_objects as go

    theme.register()
    figure = go.Figure()
    for place, code in enumerate(_others(table)):
        rows = table[table["language"] == code]
        figure.add_scatter(
            x=rows["layer"],
            y=rows["similarity"],
            name=language_name(code),
            mode="lines+markers",
            marker={"size": 7, "symbol": theme.SYMBOLS[place % len(theme.SYMBOLS)]},
            line=_line(roles.get(code)),
            hovertemplate=f"{language_name(code)}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    own = table[(table["language"] == table["reference"]) & table["similarity"].notna()]
    figure.add_scatter(
        x=own["layer"],
        y=own["similarity"],
        name=f"within {_reference(table)}",
        mode="lines",
        line={"color": theme.GREY, "width": 1.5, "dash": "dot"},
        hovertemplate=f"Two tokens of {_reference(table)}, layer %{{x}}: %{{y:.3f}}<extra></extra>",
    )
    return _laid_out(
        figure, table, template, similarity_finding(table), {"title": f"mean cosine with {_reference(table)}"}
    )


def divergence_finding(table: Table) -> str:
    """Return one sentence: the language and the layer of the largest divergence, and what chance gives there."""
    rows = table[table["language"] != table["reference"]]
    if rows["divergence_bits"].isna().all():
        return "No layer has a router"
    most = rows.loc[rows["divergence_bits"].idxmax()]
    clear = "" if most["divergence_bits"] > most["chance_high_bits"] else ", which may be chance"
    return (
        f"Routed least like {_reference(table)}: {language_name(str(most['language']))} in layer {int(most['layer'])}, "
        f"{most['divergence_bits']:.2f} bits{clear}"
    )


def similarity_finding(table: Table) -> str:
    """Return one sentence: which languages are most and least like the reference, in the mean over layers."""
    rows = table[table["language"] != table["reference"]]
    means = rows.groupby("language", sort=False)["similarity"].mean().sort_values()
    least, most = means.index[0], means.index[-1]
    said = f"Most like {_reference(table)}: {language_name(str(most))} ({_cosine(means[most])} in the mean over layers)"
    return said if most == least else f"{said}; least: {language_name(str(least))} ({_cosine(means[least])})"


def _cosine(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _laid_out(figure: "go.Figure", table: Table, template: str, title: str, y: dict[str, Any]) -> "go.Figure":
    every = max(1, int(table["layer"].max()) // 10)  # layers are whole; plotly would label halves of few
    figure.update_layout(
        template=template,
        title=title,
        height=400,
        xaxis={"title": "layer", "showgrid": False, "zeroline": False, "dtick": every},
        yaxis=y,
    )
    return figure


def _others(table: Table) -> list[str]:
    return list(dict.fromkeys(table[table["language"] != table["reference"]]["language"]))


def _reference(table: Table) -> str:
    return language_name(str(table["reference"].iloc[0]))


def _line(role: str | None) -> dict[str, Any]:
    colour = theme.GREY if role is None else theme.ROLE_COLOURS[role]
    return {"color": colour, "width": 2, "dash": "dash" if role == "expanded" else "solid"}
