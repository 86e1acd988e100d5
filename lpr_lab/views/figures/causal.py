"""Figure of what layers do to languages: the change in bits when a layer alone is switched to one expert."""

from typing import TYPE_CHECKING

from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme
from lpr_lab.views.names import ROLES, expert_name

if TYPE_CHECKING:
    import plotly.graph_objects as go

_BLUE_TO_ORANGE = [(0, "rgba(31,127,196,.65)"), (0.5, "rgba(128,134,149,.10)"), (1, "rgba(224,112,27,.65)")]
"""Half transparent, so that figures in the cells stay readable on light and dark ground."""


def causal_finding(table: Table, expert: int = 0) -> str:
    """Return one sentence: for each kind of language the layer whose switch costs most, and whether it is clear."""
    rows = table[table["expert"] == expert]
    parts = []
    for role in (role for role in ROLES if role in set(rows["role"])):
        most = rows.loc[rows[rows["role"] == role]["change_bits"].idxmax()]
        clear = "" if most["ci_low"] > 0 else ", which may be chance"
        parts.append(
            f"{most['change_bits']:+.3f} bits per token on {language_name(str(most['language']))} in layer "
            f"{int(most['layer'])}{clear}"
        )
    return f"With {expert_name(expert)} in one layer alone, the text gets dearest by {' and '.join(parts)}"


def causal_by_layer(table: Table, expert: int = 0, template: str = "lpr") -> "go.Figure":
    """Draw the change in bits per token by layer (down) and language (across) when that layer has only one expert.

    Orange: the text gets dearer, so what the layer did otherwise helped; blue: it gets cheaper. A cell whose 95 %
    interval contains 0 has its number in brackets.

    Args:
        table: `causal_by_language`, one data set.
        expert: the one that layers are switched to.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    rows = table[table["expert"] == expert]
    codes = list(dict.fromkeys(code for role in ROLES for code in rows[rows["role"] == role]["language"]))
    pivots = {
        name: rows.pivot_table(index="layer", columns="language", values=name, sort=True)[codes]
        for name in ("change_bits", "ci_low", "ci_high")
    }
    values = pivots["change_bits"].to_numpy()
    low, high = pivots["ci_low"].to_numpy(), pivots["ci_high"].to_numpy()
    limit = float(abs(values).max()) or 1.0
    layers = pivots["change_bits"].index
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=[language_name(code) for code in codes],
            y=[str(layer) for layer in layers],
            zmin=-limit,
            zmax=limit,
            colorscale=_BLUE_TO_ORANGE,
            xgap=2,
            ygap=1,
            text=[
                [_number(*cell) for cell in zip(*of_layer, strict=True)]
                for of_layer in zip(values, low, high, strict=True)
            ],
            texttemplate="%{text}" if values.size <= 200 else None,
            customdata=[list(zip(*of_layer, strict=True)) for of_layer in zip(low, high, strict=True)],
            hovertemplate="%{x}, layer %{y}: %{z:+.4f} bits per token, 95 % interval %{customdata[0]:+.4f} to "
            "%{customdata[1]:+.4f}<extra></extra>",
            colorbar={
                "title": {"text": "bits per token", "side": "right", "font": {"size": 12}},
                "tickfont": {"size": 11},
                "thickness": 10,
                "outlinewidth": 0,
            },
        )
    )
    figure.update_layout(
        template=template,
        title=causal_finding(table, expert),
        height=110 + 18 * len(layers),
        xaxis={"side": "top", "showgrid": False},
        yaxis={"autorange": "reversed", "title": "layer", "showgrid": False, "type": "category", "dtick": 5},
    )
    return figure


def _number(value: float, low: float, high: float) -> str:
    said = f"{value:+.2f}"
    return f"({said})" if low <= 0 <= high else said
