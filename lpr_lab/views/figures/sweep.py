"""What a sweep found: every seed of every setting as a point, the mean beside it, one panel per metric."""

import textwrap
from typing import TYPE_CHECKING

from lpr_lab.experiments.sweep.grid import SEED
from lpr_lab.views import Table, theme

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
    said = f"{seeds} seeds"
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
    import plotly.graph_objects as go
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
        for label in order:
            values = rows[metric][labels == label].dropna()
            if values.empty:
                continue
            ends = [float(values.min()), float(values.max())]
            bar = go.Scatter(
                x=ends,
                y=[label] * 2,
                mode="lines",
                line={"color": theme.GREY, "width": 2},
                hoverinfo="skip",
                showlegend=False,
            )
            figure.add_trace(bar, row=1, col=column)
        for name, symbol, colour, size, table in (
            (
                "one seed",
                "circle-open",
                theme.GREY,
                9,
                [(label, value) for label, value in zip(labels, rows[metric], strict=True)],
            ),
            (
                "mean over seeds",
                "diamond",
                theme.NEW,
                11,
                list(rows[metric].groupby(labels, sort=False).mean().items()),
            ),
        ):
            points = [(label, value) for label, value in table if label in order]
            figure.add_trace(
                go.Scatter(
                    x=[value for _, value in points],
                    y=[label for label, _ in points],
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    marker={"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.5, "color": colour}},
                    hovertemplate=f"%{{y}}: {_words(metric)} %{{x:.4g}}<extra>{name}</extra>",
                ),
                row=1,
                col=column,
            )
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


def _with_unit(metric: str) -> str:
    from lpr_lab.experiments.sweep.tables import EXPANSION_METRICS

    known = EXPANSION_METRICS.get(metric)
    return f"{_words(metric)}, {known.unit}" if known and known.unit else _words(metric)


def _words(metric: str) -> str:
    return metric.replace("_", " ")
