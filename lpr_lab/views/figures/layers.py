"""Figures with one place per layer: the weight of the original expert, and the new experts that a plan gives.

Blue is the original expert and the original languages, orange the new experts and the expanded languages.
"""

from typing import TYPE_CHECKING

from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme
from lpr_lab.views.names import ROLES
from lpr_lab.views.numbers import percent
from lpr_lab.wording import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ORANGE_TO_BLUE = [(0, "rgba(224,112,27,.55)"), (0.5, "rgba(128,134,149,.12)"), (1, "rgba(31,127,196,.55)")]
"""Half transparent, as tints in the token strip: figures in the cells stay readable on light and dark ground."""


def load_heatmap(load: Table, template: str = "lpr") -> "go.Figure":
    """Draw the mean weight of the original expert per layer (down) and language (across), in per cent.

    All orange is all on the new experts, all blue all on the original one, as in the token strip.

    Args:
        load: columns language, role, layer, expert, mass; one data set.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go

    theme.register()
    rows = load[load["expert"] == 0]
    table = rows.pivot_table(index="layer", columns="language", values="mass", sort=True)
    codes = _by_role(rows)
    table = table[codes]
    values = 100 * table.to_numpy()
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=[language_name(code) for code in codes],
            y=[str(layer) for layer in table.index],
            zmin=0,
            zmax=100,
            colorscale=_ORANGE_TO_BLUE,
            xgap=2,
            ygap=1,
            texttemplate="%{z:.0f}" if values.size <= 200 else None,
            hovertemplate="%{x}, layer %{y}: %{z:.1f}%<extra></extra>",
            colorbar={
                "title": {"text": "original expert, %", "side": "right", "font": {"size": 12}},
                "tickfont": {"size": 11},
                "thickness": 10,
                "outlinewidth": 0,
                "tickvals": [0, 50, 100],
            },
        )
    )
    boundary = sum(1 for code in codes if _role_of(rows, code) == "original") - 0.5
    if -0.5 < boundary < len(codes) - 0.5:
        figure.add_vline(x=boundary, line={"color": theme.GREY, "width": 3})
    figure.update_layout(
        template=template,
        title=_load_finding(rows),
        height=110 + 18 * len(table),
        xaxis={"side": "top", "showgrid": False},
        yaxis={"autorange": "reversed", "title": "layer", "showgrid": False, "type": "category", "dtick": 5},
    )
    return figure


def layer_profile(load: Table, template: str = "lpr") -> "go.Figure":
    """Draw the mean weight of the original expert over depth, one line per language, solid for original ones."""
    import plotly.graph_objects as go

    theme.register()
    rows = load[load["expert"] == 0]
    figure = go.Figure()
    add_weight_lines(figure, rows.sort_values("layer", kind="stable"), "layer", "mass", "layer %{x}", size=7)
    figure.update_layout(template=template, title=_load_finding(rows), xaxis={"title": "layer", "showgrid": False})
    return figure


def add_weight_lines(figure: "go.Figure", rows: Table, x: str, y: str, where: str, *, size: int) -> None:
    """Add the weight of the original expert, one line per language, solid for original ones, and the axis of it.

    `y` is the column of weights, shares of 1; `where` is what a place along `x` is called, with plotly's `%{x}`.
    """
    for role in ROLES:
        for position, code in enumerate(_of_role(rows, role)):
            line, name = rows[rows["language"] == code], language_name(code)
            figure.add_scatter(
                x=line[x],
                y=100 * line[y],
                mode="lines+markers",
                name=name,
                line={"color": theme.ROLE_COLOURS[role], "width": 2, "dash": "solid" if role == "original" else "dash"},
                marker={"symbol": theme.SYMBOLS[position % len(theme.SYMBOLS)], "size": size},
                hovertemplate=f"{name}, {where}: %{{y:.1f}}%<extra></extra>",
            )
    figure.update_layout(height=380, yaxis={"title": "weight on the original expert, %", "range": [-3, 103]})


def planned_experts(layers: Table, template: str = "lpr") -> "go.Figure":
    """Draw how alike languages are over depth, and beneath it how many new experts each layer gets.

    Args:
        layers: columns layer, similarity, expanded_to_original, between_expanded (may be empty), new_experts,
            classifier; one row per layer.
        template: `lpr` or `lpr_dark`.
    """
    from plotly.subplots import make_subplots

    theme.register()
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.62, 0.38], vertical_spacing=0.06)
    for column, name, colour, dash, symbol in (
        ("expanded_to_original", "expanded to original", theme.ORIGINAL, "dash", "circle"),
        ("between_expanded", "between expanded", theme.NEW, "dot", "square"),
        ("similarity", "mean of both: what the rule reads", theme.GREY, "solid", "diamond"),
    ):
        if layers[column].notna().any():
            figure.add_scatter(
                x=layers["layer"],
                y=layers[column],
                mode="lines+markers",
                name=name,
                line={"color": colour, "width": 3 if dash == "solid" else 1.5, "dash": dash},
                marker={"symbol": symbol, "size": 6},
                hovertemplate=f"layer %{{x}}, {name}: %{{y:.3f}}<extra></extra>",
                row=1,
                col=1,
            )
    figure.add_bar(
        x=layers["layer"],
        y=layers["new_experts"],
        name="new experts",
        marker={"color": theme.NEW},
        text=layers["new_experts"],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="layer %{x}: %{y} new experts<extra></extra>",
        row=2,
        col=1,
    )
    chosen = layers[layers["classifier"]]
    figure.add_scatter(
        x=chosen["layer"],
        y=[-0.12 * layers["new_experts"].max()] * len(chosen),
        mode="markers",
        name="routing classifier",
        marker={"symbol": "triangle-up", "size": 10, "color": theme.ORIGINAL},
        hovertemplate="layer %{x}: routing classifier<extra></extra>",
        row=2,
        col=1,
    )
    figure.update_layout(template=template, title=_plan_finding(layers), height=520, bargap=0.25, xaxis2_title="layer")
    figure.update_xaxes(showgrid=False, zeroline=False)
    figure.update_yaxes(title="mean cosine", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title="new experts", showgrid=False, tickformat="d", row=2, col=1)
    return figure


def _load_finding(rows: Table) -> str:
    parts = []
    for role, title in ROLES.items():
        part = rows[rows["role"] == role]
        if not part.empty:
            parts.append(f"{title}: {percent(part['mass'].mean())} on the original expert")
    return "; ".join(parts)


def _plan_finding(layers: Table) -> str:
    low, high = (layers.loc[place] for place in (layers["similarity"].idxmin(), layers["similarity"].idxmax()))
    own = counted(low["new_experts"], "new expert")
    return (
        f"Least alike in layer {low['layer']} ({low['similarity']:.2f}), which gets {own}; "
        f"most alike in layer {high['layer']} ({high['similarity']:.2f}), which gets {high['new_experts']}"
    )


def _of_role(rows: Table, role: str) -> list[str]:
    return list(dict.fromkeys(rows[rows["role"] == role]["language"]))


def _by_role(rows: Table) -> list[str]:
    return _of_role(rows, "original") + _of_role(rows, "expanded")


def _role_of(rows: Table, code: str) -> str:
    return str(rows[rows["language"] == code]["role"].iloc[0])
