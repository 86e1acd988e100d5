"""A sweep in full: its settings seed by seed as a figure, what differs, and every point as a link to its run."""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from lpr_lab.dashboard.query import Query
from lpr_lab.errors import LprError
from lpr_lab.experiments.sweep.grid import COLUMNS, KIND
from lpr_lab.runs.run import Run
from lpr_lab.views.figures.sweep import finding, metrics_by_setting
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import NOT_MEASURED

_DIFFERENCES = ("parameter", "value", "against", "metric", "difference", "ci_low", "ci_high", "seeds", "verdict")
_HEADS = {"run_state": "state", "run_error": "what went wrong", "ci_low": "from", "ci_high": "to"}


def points_of(runs: Sequence[Run]) -> Counter[str]:
    """Return how many of these runs belong to each sweep among them, by the sweep's id."""
    sweeps = {run.id for run in runs if run.problem is None and run.kind == KIND}
    return Counter(parent for run in runs if run.problem is None for parent in run.parents if parent in sweeps)


def render_sweep(run: Run, runs: Sequence[Run]) -> Markup:
    """Return what differs and every point that came to an end so far; empty for a run that is no sweep."""
    summary = run.tables.read("summary") if run.kind == KIND else None
    if summary is None:
        return Markup("")
    columns = [name for name in summary.columns if name not in COLUMNS]
    failed = summary["run_state"] == "failed"
    if failed.any():
        columns = [*columns, "run_state", "run_error"]
    compared = run.tables.read("differences")
    lines = [] if compared is None else compared.to_dict("records")
    return render(
        "dashboard/pages/runs/sweep.html.j2",
        finding=finding(compared) if lines else "",
        differences=[[_written(row[name]) for name in _DIFFERENCES] for row in lines],
        difference_heads=[_head(name) for name in _DIFFERENCES],
        title=f"{len(summary)} points" + (f", {failed.sum()} of them failed" if failed.any() else ""),
        heads=[_head(name) for name in (*columns, "run")],
        points=[([_written(row[name]) for name in columns], str(row["run_id"])) for row in summary.to_dict("records")],
        titles={other.id: other.title for other in runs},
        queries={other.id: Query(run=other.id).urlencode() for other in runs},
    )


def figure_of(run: Run | None) -> Any:
    """Return the figure of a sweep that has something to compare, else None."""
    if run is None or run.kind != KIND:
        return None
    try:
        summary, differences = run.tables.read("summary"), run.tables.read("differences")
    except LprError:
        return None
    if summary is None or differences is None:
        return None
    columns = list(summary.columns)
    varied = set(run.config.get("grid") or ())
    metrics = [name for name in columns if name not in varied and name not in COLUMNS]
    return metrics_by_setting(summary, metrics, differences) if metrics else None


def command_of(run: Run) -> str:
    """Return the command that goes on with a sweep."""
    words = ["lpr-lab", "sweep", str(run.config.get("notebook", "NOTEBOOK"))]
    for name, values in (run.config.get("grid") or {}).items():
        words += ["-g", f"{name}={json.dumps(values, ensure_ascii=False)}"]
    for name, value in (run.config.get("fixed") or {}).items():
        words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"]
    for name in run.config.get("metrics") or ():
        words += ["-m", str(name)]
    return shlex.join(words)


def _head(name: str) -> str:
    return _HEADS.get(name, name).replace("_", " ")


def _written(value: Any) -> str:
    if isinstance(value, float):
        return NOT_MEASURED if value != value else f"{value:.4g}".replace("-", "−")
    return str(value)
