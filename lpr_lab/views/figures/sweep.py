"""Figures of a sweep: every seed of every setting as a point, the mean beside it, one panel per metric."""

import textwrap
from typing import TYPE_CHECKING, Any

from lpr_lab.experiments.sweep.grid import SEED
from lpr_lab.views import Table, theme
from lpr_lab.wording import counted

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_SETTINGS = 40
MAX_PANELS = 4
CLEAR = ("more", "less")
_TITLE_CHARACTERS = 90
"""A line of the title; it is as long as what differs."""


def finding(differences: Table) -> str:
    """Return one sentence: what differs beyond the noise of seeds, what does not, and from how many seeds that is said.

    Args:
        differences: columns parameter, value, against, metric, seeds, verdict (see `sweep_tables.differences`).
    """
    if differences.empty:
        return "One setting only, so nothing is compared"
    seeds = int(differences["seeds"].min())
    if seeds < 2:
        return "One seed: no difference can be told from noise"
    clear = differences[differences["verdict"].isin(CLEAR)]
    said = counted(seeds, "seed")
    if clear.empty:
        return f"Nothing differs clearly over {said}"
    pairs = clear.groupby("parameter", sort=False)["metric"].agg(
        lambda names: ", ".join(dict.fromkeys(map(_words, names)))
    )
    moves = "; ".join(f"{parameter} moves {metrics}" for parameter, metrics in pairs.items())
    rest = len(differences) - len(clear)
    return (
        f"{moves} (over {said}); {rest} of {len(differences)} comparisons are unclear"
        if rest
        else f"{moves} (over {said})"
    )


def metrics_by_setting(summary: Table, metrics: list[str], differences: Table, template: str = "lpr") -> "go.Figure":
    """Draw each metric in a panel of its own: settings as rows, one open circle per seed, a bar from least to most.

    Args:
        summary: one row per point: the varied parameters first, then run_id, run_state, run_error, then the metrics.
        metrics: which of them to draw; the first four are.
        differences: see `finding`.
        template: `lpr` or `lpr_dark`.
    """
    from plotly.subplots import make_subplots

    theme.register()
    drawn = metrics[:MAX_PANELS]
    varied = [name for name in summary.columns[: list(summary.columns).index("run_id")] if name != SEED]
    rows = summary[summary["run_state"] == "finished"]
    labels = rows[varied].astype(str).agg(", ".join, axis=1) if varied else rows["run_state"].map(lambda _: "all")
    order = list(dict.fromkeys(labels))[:MAX_SETTINGS]
    figure = make_subplots(
        cols=max(1, len(drawn)),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=[_with_unit(name) for name in drawn],
    )
    for column, metric in enumerate(drawn, 1):
        values = rows[metric].groupby(labels, sort=False)
        _add_ranges(figure, {label: part.dropna() for label, part in values if label in order}, column)
        hover = f"%{{y}}: {_words(metric)} %{{x:.4g}}"
        seeds = [point for point in zip(labels, rows[metric], strict=True) if point[0] in order]
        _add_points(figure, seeds, column, "one seed", hover, {"symbol": "circle-open", "size": 9, "color": theme.GREY})
        means = [point for point in values.mean().items() if point[0] in order]
        mark = {"symbol": "diamond", "size": 11, "color": theme.NEW}
        _add_points(figure, means, column, "mean over seeds", hover, mark)
    figure.update_yaxes(categoryorder="array", categoryarray=order[::-1], type="category")
    figure.update_xaxes(nticks=5)
    figure.update_annotations(font={"size": 13})
    said = textwrap.wrap(finding(differences), _TITLE_CHARACTERS)
    figure.update_layout(
        template=template,
        title="<br>".join(said),
        height=170 + 20 * len(said) + 34 * max(2, len(order)),
        legend={"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top"},
        margin={"t": 64 + 20 * len(said), "b": 84},
    )
    if varied:
        figure.update_yaxes(title=" , ".join(varied).replace(" ,", ","), col=1)
    return figure


def _add_ranges(figure: "go.Figure", values: dict[str, Table], column: int) -> None:
    """Add a bar from the least to the most of each setting."""
    for label, part in values.items():
        if part.empty:
            continue
        figure.add_scatter(
            x=[float(part.min()), float(part.max())],
            y=[label] * 2,
            mode="lines",
            line={"color": theme.GREY, "width": 2},
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=column,
        )


def _add_points(
    figure: "go.Figure", points: list[tuple[str, float]], column: int, name: str, hover: str, marker: dict[str, Any]
) -> None:
    """Add (setting, value) as points of one name; the legend has it once."""
    figure.add_scatter(
        x=[value for _, value in points],
        y=[label for label, _ in points],
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=column == 1,
        marker=marker | {"line": {"width": 1.5, "color": marker["color"]}},
        hovertemplate=f"{hover}<extra>{name}</extra>",
        row=1,
        col=column,
    )


def _with_unit(metric: str) -> str:
    from lpr_lab.experiments.sweep.tables import EXPANSION_METRICS

    known = EXPANSION_METRICS.get(metric)
    return f"{_words(metric)}, {known.unit}" if known and known.unit else _words(metric)


def _words(metric: str) -> str:
    return metric.replace("_", " ")
