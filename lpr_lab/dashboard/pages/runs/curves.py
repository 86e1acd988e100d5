"""Curves of training on page `/`: of the chosen run, or of the ticked ones over one another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard.pages.runs.live import metrics_of
from lpr_lab.dashboard.pages.runs.sweep import figure_of
from lpr_lab.runs.compare.training import at_common_tokens
from lpr_lab.runs.run import Run, short_id
from lpr_lab.views.figures.titles import take_title
from lpr_lab.views.figures.training import compared_curves, metric_names, training_curves
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import NOT_MEASURED, count

if TYPE_CHECKING:
    import pandas as pd

Updates = tuple[Any, Any, str | Markup, Any]
"""Of the card, the picker of numbers, the finding and the plot."""


def curves(run: Run | None, name: str | None, *, picked: bool = False, compared: Sequence[Run] = ()) -> Updates:
    """Return the updates of card, picker of numbers, finding and plot; all hidden while nothing was recorded.

    With `picked`, `name` is what the picker shows: it is left alone, for meanwhile the reader may have picked another.
    Two runs in `compared` or more are drawn over one another, in place of `run`.
    """
    several = len(compared) > 1
    metrics, settings = _together(compared) if several else metrics_of(run), None if several else figure_of(run)
    if settings is not None:
        title = _subfinding(take_title(settings).replace("<br>", " "))
        return gr.update(visible=True), gr.update(visible=False), title, settings
    if metrics is None:
        return gr.update(visible=False), gr.skip(), "", gr.update(value=None)
    names = metric_names(metrics)
    shown = name if name in names else names[0]
    choice = {} if picked and shown == name else {"value": shown}
    picker = gr.update(choices=names, visible=True, **choice)
    if several:
        called = {run.id: short_id(run.id) for run in compared}
        figure = compared_curves(metrics.assign(run=metrics["run"].map(called)), shown)
        said = _subfinding(take_title(figure)) + _table(metrics, shown, compared)
    else:
        figure = training_curves(metrics, shown)
        said = _subfinding(take_title(figure))
    return gr.update(visible=True), picker, said, figure


def _together(runs: Sequence[Run]) -> "pd.DataFrame | None":
    import pandas as pd

    found = [metrics.assign(run=run.id) for run in runs if (metrics := metrics_of(run)) is not None]
    return pd.concat(found, ignore_index=True) if found else None


def _table(metrics: "pd.DataFrame", name: str, runs: Sequence[Run]) -> Markup:
    titles, rows = {run.id: run.title for run in runs}, at_common_tokens(metrics, name)
    without = [short_id(run) for run in titles if run not in set(rows["run"])]
    return render(
        "dashboard/pages/runs/curves.html.j2",
        title=f"{name} by stage and run",
        without=without,
        rows=[
            {
                "stage": row["stage"].replace("_", " "),
                "short": short_id(row["run"]),
                "title": titles[row["run"]],
                **{key: count(row[key]) for key in ("tokens", "common_tokens")},
                **{key: _written(row[key]) for key in ("first", "last", "at_common")},
            }
            for row in rows.to_dict("records")
        ],
    )


def _written(value: float | None) -> str:
    return NOT_MEASURED if value is None or value != value else f"{value:.4g}".replace("-", "−")


def _subfinding(text: str) -> Markup:
    return Markup('<h2 class="lpr-subfinding">{}</h2>').format(text)
