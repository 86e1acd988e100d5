"""A sweep in full: its settings seed by seed as a figure, what differs, and every point as a link to its run."""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.shell import esc
from lpr_lab.errors import LprError
from lpr_lab.experiments.sweep.grid import COLUMNS, KIND
from lpr_lab.runs.run import Run
from lpr_lab.views.figures.sweep import finding, metrics_by_setting
from lpr_lab.views.numbers import NOT_MEASURED

_DIFFERENCES = ("parameter", "value", "against", "metric", "difference", "ci_low", "ci_high", "seeds", "verdict")
_HEADS = {"run_state": "state", "run_error": "what went wrong", "ci_low": "from", "ci_high": "to"}


def points_of(runs: Sequence[Run]) -> Counter[str]:
    """Return how many of these runs belong to each sweep among them, by the sweep's id."""
    sweeps = {run.id for run in runs if run.problem is None and run.kind == KIND}
    return Counter(parent for run in runs if run.problem is None for parent in run.parents if parent in sweeps)


def render_sweep(run: Run, runs: Sequence[Run]) -> str:
    """Return what differs and every point that came to an end so far; empty for a run that is no sweep."""
    summary = run.tables.read("summary") if run.kind == KIND else None
    if summary is None:
        return ""
    titles = {other.id: other.title for other in runs}
    columns = [name for name in summary.columns if name not in COLUMNS]
    if (summary["run_state"] == "failed").any():
        columns = [*columns, "run_state", "run_error"]
    heads = [*columns, "run"]
    rows = [
        [*(_cell(row[name]) for name in columns), _link(str(row["run_id"]), titles)]
        for row in summary.to_dict("records")
    ]
    compared = run.tables.read("differences")
    parts = []
    if compared is not None and not compared.empty:
        lines = [[_cell(row[name]) for name in _DIFFERENCES] for row in compared.to_dict("records")]
        said = "Paired by seed; from and to are the 95 % interval. One that contains 0 is no clear difference."
        parts.append(_section(finding(compared), _DIFFERENCES, lines, said))
    failed = int((summary["run_state"] == "failed").sum())
    title = f"{len(summary)} points" + (f", {failed} of them failed" if failed else "")
    parts.append(_section(title, heads, rows))
    return "".join(parts)


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


def _section(title: str, heads: Sequence[str], rows: list[list[str]], caption: str = "") -> str:
    names = "".join(f'<th scope="col">{esc(_HEADS.get(name, name).replace("_", " "))}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    below = f'<p class="lpr-caption">{esc(caption)}</p>' if caption else ""
    return (
        f'<section><h3>{esc(title)}</h3><div class="lpr-scroll" role="region" tabindex="0" aria-label="{esc(title)}">'
        f'<table class="lpr-table lpr-plain"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>{below}'
        "</section>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return NOT_MEASURED if value != value else esc(f"{value:.4g}".replace("-", "−"))
    return esc(str(value))


def _link(run_id: str, titles: dict[str, str]) -> str:
    if run_id not in titles:
        return f"<span>{esc(run_id or NOT_MEASURED)}</span>"
    params = esc(Query(run=run_id).urlencode())
    return (
        f'<a href="/?{params}" data-pick="{params}" title="{esc(titles[run_id])}">{esc(run_id.rsplit("-", 1)[-1])}</a>'
    )
