"""Figure of a logit lens: in which language the best guesses of each layer are, by base and expanded model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lpr_lab.text.languages import language_name
from lpr_lab.views import Table, theme

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PATTERNS = ("", "/", "x", "-", "+", ".")
"""Kinds of one colour take them in this order."""
_MOST_KINDS = 8
"""That many bars of one layer can be told apart; the rest are `others`."""


def guesses_by_layer(table: Table, roles: Mapping[str, str], template: str = "lpr") -> "go.Figure":
    """Draw how the best guesses of every layer divide over languages: the base beside the expanded model, layers down.

    Blue are original languages, orange expanded ones, grey what cannot be said to be of one language.

    Args:
        table: of `LogitLens.languages_by_layer`.
        roles: language code to `original` or `expanded`.
        template: `lpr` or `lpr_dark`.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    theme.register()
    rows = table.assign(kind=[_kind(*pair) for pair in zip(table["language"], table["script"], strict=True)])
    role_of = {_kind(code, ""): roles.get(code, "") for code in set(table["language"]) if code}
    weights = rows.groupby("kind")["share"].sum()
    kept = list(weights.sort_values(ascending=False).index[:_MOST_KINDS])
    rows["kind"] = rows["kind"].where(rows["kind"].isin(kept), "others")
    order = ["original", "expanded", ""]
    kinds = sorted(set(rows["kind"]), key=lambda kind: (kind == "others", order.index(role_of.get(kind, "")), kind))
    figure = make_subplots(cols=2, shared_yaxes=True, subplot_titles=["base", "expanded"], horizontal_spacing=0.03)
    used: dict[str, int] = {}
    for kind in kinds:
        role = role_of.get(kind, "")
        pattern = _PATTERNS[used.get(role, 0) % len(_PATTERNS)]
        used[role] = used.get(role, 0) + 1
        colour = theme.ROLE_COLOURS.get(role, theme.GREY)
        for column, model in enumerate(("base", "expanded"), 1):
            mine = rows[(rows["model"] == model) & (rows["kind"] == kind)].groupby("layer")["share"].sum()
            bar = go.Bar(
                y=[str(layer) for layer in mine.index],
                x=100 * mine.to_numpy(),
                name=f"{kind}, base" if model == "base" else kind,  # a report has the numbers as a table, by name
                legendgroup=kind,
                showlegend=model == "expanded",
                orientation="h",
                marker={"color": colour, "pattern": {"shape": pattern, "fgopacity": 0.6}},
                hovertemplate=f"{model}, layer %{{y}}: %{{x:.0f}}% {kind}<extra></extra>",
            )
            figure.add_trace(bar, row=1, col=column)
    layers = [str(layer) for layer in sorted(set(rows["layer"]))]
    figure.update_layout(
        template=template,
        title=guesses_finding(table),
        barmode="stack",
        bargap=0.15,
        height=240 + 18 * len(layers),
        margin={"b": 130},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
    )
    figure.update_xaxes(range=[0, 100], title="best guesses, %", showgrid=False)
    figure.update_yaxes(type="category", categoryarray=layers, autorange="reversed", showgrid=False, dtick=5)
    figure.update_yaxes(title="layer", col=1)
    return figure


def guesses_finding(table: Table) -> str:
    """Return one sentence: what most guesses of the middle layer are of, by either model."""
    layers = sorted(set(table["layer"]))
    middle = layers[len(layers) // 2]
    parts = []
    for model in ("base", "expanded"):
        rows = table[(table["model"] == model) & (table["layer"] == middle)]
        most = rows.loc[rows["share"].idxmax()]
        parts.append(f"{model} {most['share']:.0%} {_kind(str(most['language']), str(most['script']))}")
    return f"Best guesses halfway, in layer {middle}: {', '.join(parts)}"


def _kind(language: str, script: str) -> str:
    return language_name(language) if language else f"{script} script" if script else "no whole letter"
