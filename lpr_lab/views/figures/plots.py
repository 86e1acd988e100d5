"""Tidy tables to figures. Each title says the finding; colour never says anything alone.

Blue is the original expert and the original languages, orange the new experts and the expanded languages. A circle is
the base model, a triangle the expanded one, pointing where it clearly went; a diamond where it did not clearly go.
"""

from typing import TYPE_CHECKING, Any

from lpr_lab.errors import UsageError
from lpr_lab.measure.significance import UNCLEAR, direction, mean_change, verdict
from lpr_lab.text.languages import language_name
from lpr_lab.views import theme
from lpr_lab.views.numbers import change as change_text
from lpr_lab.views.numbers import interval, percent

if TYPE_CHECKING:
    import plotly.graph_objects as go

Table = Any
"""A `pandas.DataFrame`; the type pandas declares for itself is lost at the first filter."""

ROLES = {"original": "Original languages", "expanded": "Expanded languages"}
ROLE_COLOURS = {"original": theme.ORIGINAL, "expanded": theme.NEW}
GREY = "#7d8695"
"""A contrast of 3:1 or more on both grounds."""

MAX_POINTS = 2000
"""Per curve; more are thinned evenly."""


def datasets(table: Table) -> list[str]:
    """Return the data sets of a table, held-out text first."""
    return sorted(map(str, dict.fromkeys(table["dataset"])), key=lambda name: name != "heldout")


def dataset_name(name: str) -> str:
    """Return what a data set is called for people."""
    return {"dev": "Dev text, same genre as training", "heldout": "Held-out text, another genre"}.get(name, name)


def retention_finding(change: Table) -> str:
    """Return one sentence: mean change of bits per byte on both kinds of languages, with the range."""
    parts = []
    for role in ("expanded", "original"):
        rows = change[change["role"] == role]
        if rows.empty:
            continue
        mean = mean_change(rows.to_dict("records"))
        span = ""
        if len(rows) > 1:
            low, high = rows["change_percent"].min(), rows["change_percent"].max()
            span = f" ({change_text(low)} to {change_text(high)})"
        if mean.direction:
            more = "fewer" if mean.direction < 0 else "more"
            parts.append(f"{role} languages need {abs(mean.value):.1f}% {more} bits{span}")
        else:
            parts.append(f"{role} languages show {UNCLEAR} on average{span or f' ({change_text(mean.value)})'}")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] if text else "Nothing was measured"


def retention(change: Table, template: str = "lpr", before: str = "base", after: str = "expanded") -> "go.Figure":
    """Draw bits per byte of the base (circle) and the expanded model (triangle) per language, one data set at a time.

    Args:
        change: columns language, role, before, after, change_percent, ci_low, ci_high; one row per language.
        template: `lpr` or `lpr_dark`.
        before: what the circle is: `base`, `expanded`, or a stage such as `G1 review`.
        after: what the triangle is.

    Raises:
        UsageError: rows of several data sets, which must not share an axis.
    """
    import plotly.graph_objects as go

    theme.register()
    if "dataset" in change and change["dataset"].nunique() > 1:
        raise UsageError("retention() draws one data set at a time; filter the table by its `dataset` column first.")
    figure = go.Figure()
    ticks: dict[float, str] = {}
    y = 0.0
    for role, title in ROLES.items():
        rows = change[change["role"] == role]
        if rows.empty:
            continue
        figure.add_annotation(
            x=0, xref="paper", y=y, text=f"<b>{title}</b>", showarrow=False, xanchor="left", font={"size": 12}
        )
        places = [y + 1 + index for index in range(len(rows))]
        ticks |= {place: language_name(code) for place, code in zip(places, rows["language"], strict=True)}
        _dumbbells(figure, rows, places, role, (before, after))
        y = places[-1] + 1.35
    low, high = change[["before", "after"]].min().min(), change[["before", "after"]].max().max()
    margin = 0.08 * (high - low) or 0.1
    figure.update_layout(
        template=template,
        title=retention_finding(change),
        height=int(130 + 34 * y),
        margin={"r": 56},
        xaxis={
            "title": "bits per byte, lower is better",
            "range": [low - margin, high + margin],
            "zeroline": False,
        },
        yaxis={
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "range": [y - 0.6, -0.6],
            "showgrid": False,
            "zeroline": False,
        },
    )
    return figure


def _dumbbells(figure: Any, rows: Table, places: list[float], role: str, called: tuple[str, str]) -> None:
    colour, first = ROLE_COLOURS[role], not figure.data
    names = [f"{name} model" if name in ("base", "expanded") else name for name in called]
    line_x, line_y = [], []
    for place, row in zip(places, rows.itertuples(), strict=True):
        line_x += [row.before, row.after, None]
        line_y += [place, place, None]
        figure.add_annotation(
            x=max(row.before, row.after),
            y=place,
            text=change_text(row.change_percent),
            showarrow=False,
            xanchor="left",
            xshift=12,
            hovertext=f"{verdict(row.ci_low, row.ci_high)}, 95% interval {interval(row.ci_low, row.ci_high)}",
            font={"size": 12},
        )
    figure.add_scatter(
        x=line_x, y=line_y, mode="lines", line={"color": colour, "width": 2}, hoverinfo="skip", showlegend=False
    )
    named = [language_name(code) for code in rows["language"]]
    hover = "%{customdata}: %{x:.3f} bits per byte"
    figure.add_scatter(
        x=rows["before"],
        y=places,
        mode="markers",
        name=names[0],
        showlegend=first,
        customdata=named,
        hovertemplate=f"{hover}<extra>{called[0]}</extra>",
        marker={"symbol": "circle", "size": 11, "color": GREY},
    )
    # An arrow only where the change is clear.
    signs = [direction(low, high) for low, high in zip(rows["ci_low"], rows["ci_high"], strict=True)]
    figure.add_scatter(
        x=rows["after"],
        y=places,
        mode="markers",
        name=f"{names[1]} on {ROLES[role].lower()}",
        customdata=named,
        hovertemplate=f"{hover}<extra>{called[1]}</extra>",
        marker={
            "symbol": [{-1: "triangle-left", 1: "triangle-right", 0: "diamond"}[sign] for sign in signs],
            "size": 15,
            "color": colour,
        },
    )


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
        figure.add_vline(x=boundary, line={"color": GREY, "width": 3})
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
                line={"color": ROLE_COLOURS[role], "width": 2, "dash": "solid" if role == "original" else "dash"},
                marker={"symbol": SYMBOLS[position % len(SYMBOLS)], "size": size},
                hovertemplate=f"{name}, {where}: %{{y:.1f}}%<extra></extra>",
            )
    figure.update_layout(height=380, yaxis={"title": "weight on the original expert, %", "range": [-3, 103]})


_ORANGE_TO_BLUE = [(0, "rgba(224,112,27,.55)"), (0.5, "rgba(128,134,149,.12)"), (1, "rgba(31,127,196,.55)")]
"""Half transparent, as tints in the token strip: figures in the cells stay readable on light and dark ground."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")


def training_curves(metrics: Table, name: str = "lm_loss", template: str = "lpr") -> "go.Figure":
    """Draw one number over tokens, a panel per stage: every recorded point, and a running mean through those points.

    Args:
        metrics: columns step, tokens, stage, name, value.
        name: which number, one of `metric_names(metrics)`.
        template: `lpr` or `lpr_dark`.
    """
    from plotly.subplots import make_subplots

    theme.register()
    rows = metrics[(metrics["name"] == name) & metrics["value"].notna()]
    stages = list(dict.fromkeys(rows["stage"]))
    if not stages:
        raise UsageError(f"No {name!r} was recorded; there are {', '.join(metric_names(metrics)) or 'no numbers yet'}.")
    titles = [stage.replace("_", " ") for stage in stages]
    figure = make_subplots(rows=1, cols=len(stages), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    finding = []
    for column, stage in enumerate(stages, start=1):
        part = rows[rows["stage"] == stage].sort_values("step")
        part = part.iloc[:: max(1, len(part) // MAX_POINTS)]
        smooth = part["value"].rolling(max(3, len(part) // 10), center=True, min_periods=1).mean()
        common = {"x": part["tokens"], "row": 1, "col": column, "showlegend": False}
        hover = f"{name} %{{y:.4g}} after %{{x:,}} tokens<extra></extra>"
        figure.add_scatter(
            **common,
            y=part["value"],
            mode="markers",
            marker={"size": 4, "color": GREY, "opacity": 0.6},
            hovertemplate=hover,
        )
        figure.add_scatter(**common, y=smooth, mode="lines", line={"color": theme.NEW, "width": 2.5}, hoverinfo="skip")
        figure.update_xaxes(title="tokens", zeroline=False, row=1, col=column)
        finding.append(f"{stage.replace('_', ' ')} {part['value'].iloc[0]:.3g} → {part['value'].iloc[-1]:.3g}")
    figure.update_layout(template=template, title=f"{name}: {', '.join(finding)}", height=320)
    figure.update_yaxes(title=name, col=1)
    figure.update_annotations(font_size=13)
    return figure


def plan(layers: Table, template: str = "lpr") -> "go.Figure":
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
        ("similarity", "mean of both: what the rule reads", GREY, "solid", "diamond"),
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


def metric_names(metrics: Table) -> list[str]:
    """Return the names of the recorded numbers, losses first."""
    names = list(dict.fromkeys(metrics["name"]))
    return sorted(names, key=lambda name: (name != "lm_loss", "loss" not in name, name in ("seconds", "lr"), name))


def take_title(figure: "go.Figure") -> str:
    """Remove the title from a figure and return it, for pages that set it as a heading that can wrap."""
    title = figure.layout.title.text or ""
    figure.update_layout(title=None, margin={"t": 40})
    return title


def _load_finding(rows: Table) -> str:
    parts = []
    for role, title in ROLES.items():
        part = rows[rows["role"] == role]
        if not part.empty:
            parts.append(f"{title}: {percent(part['mass'].mean())} on the original expert")
    return "; ".join(parts)


def _plan_finding(layers: Table) -> str:
    low, high = (layers.loc[place] for place in (layers["similarity"].idxmin(), layers["similarity"].idxmax()))
    return (
        f"Least alike in layer {low['layer']} ({low['similarity']:.2f}), which gets {low['new_experts']} new experts; "
        f"most alike in layer {high['layer']} ({high['similarity']:.2f}), which gets {high['new_experts']}"
    )


def _of_role(rows: Table, role: str) -> list[str]:
    return list(dict.fromkeys(rows[rows["role"] == role]["language"]))


def _by_role(rows: Table) -> list[str]:
    return _of_role(rows, "original") + _of_role(rows, "expanded")


def _role_of(rows: Table, code: str) -> str:
    return str(rows[rows["language"] == code]["role"].iloc[0])
