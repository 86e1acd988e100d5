"""Runs a sweep: one notebook at every point of a grid, each a run of its own, compared beyond the noise of seeds.

    sweep = Sweep(notebook="00_quickstart", grid={"recipe": ["route_first", "moe_lpr"], "seed": [0, 1, 2]})
    run = start(sweep)
    summary = run_points(sweep, run, LocalEngine(jobs=2))
    results = finish(sweep, run, summary)

The points' runs name the sweep as a parent. A point that was finished before, by whatever command, is taken as it is;
an unfinished one goes on; one that fails stops no other. The same call after an interruption repeats nothing.
"""

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from lpr_lab.errors import BusyError, LprError, UsageError, did_you_mean
from lpr_lab.experiments.notebooks.parameters import NotebookFile, read_notebook
from lpr_lab.experiments.notebooks.run import find_notebook, kind_of, run_before
from lpr_lab.experiments.processes.number import num_processes
from lpr_lab.experiments.sweep.engines import Engine, Job
from lpr_lab.experiments.sweep.grid import COLUMNS, KIND, Point, as_text, points
from lpr_lab.experiments.sweep.point import Outcome, Task
from lpr_lab.experiments.sweep.tables import by_setting, differences, known_metrics, usual_metrics, value_of
from lpr_lab.progress import progress
from lpr_lab.runs.find import list_runs, start_run
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.run import Run
from lpr_lab.wording import counted

MAX_RUNS = 64
STOP_SECONDS = 60.0
_POLL_SECONDS = 0.1
_REFRESH_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A notebook and the grid of parameters to run it over.

    Attributes:
        notebook: its path, or the name of one in `notebooks/`.
        grid: values by parameter; `seed` is repeated rather than compared.
        fixed: parameters that are the same everywhere and not the notebook's default.
        metrics: names of numbers in `results.json` (see `tables.value_of`); none: the usual ones.
        max_runs: how many points are allowed.
    """

    notebook: str
    grid: Mapping[str, Sequence[Any]]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[str] = ()
    max_runs: int = MAX_RUNS

    def plan(self) -> tuple[NotebookFile, list[Point]]:
        """Return the notebook and every point, checked.

        Raises:
            UsageError, MissingError: anything that would not run as it is written; nothing was started.
        """
        notebook = read_notebook(find_notebook(self.notebook))
        for name in self.metrics:
            if name in self.grid or name in COLUMNS:
                raise UsageError(f"{name!r} is a column of the summary already, so it cannot be a metric.")
        return notebook, points(notebook, self.grid, self.fixed, self.max_runs)

    def to_config(self) -> dict[str, Any]:
        """Return the settings that identify a sweep; how many points run at a time, and where, is none of them."""
        return {
            "notebook": Path(self.notebook).stem,
            "grid": {name: list(values) for name, values in self.grid.items()},
            "fixed": dict(self.fixed),
            "metrics": list(self.metrics),
        }


def recipes_compared() -> Sweep:
    """Return the default sweep of `notebooks/09_ablation_sweep.ipynb`: routers in closed form against trained ones."""
    return Sweep(
        notebook="00_quickstart",
        grid={"recipe": ["route_first", "moe_lpr"], "seed": [0, 1]},
        fixed={
            "original": ["en"],
            "expanded": ["el"],
            "stage1_tokens": 4096,
            "stage2_tokens": 2048,
            "eval_tokens_per_language": 512,
        },
        metrics=("gain", "forgetting", "weight_on_original", "weight_on_expanded"),
        max_runs=16,
    )


def start(sweep: Sweep, run_dir: str | Path = "", root: str | Path | None = None) -> Run:
    """Return the run of the sweep itself: the one given, an unfinished one of this sweep, or a new one.

    Raises:
        UsageError, MissingError: see `Sweep.plan`.
    """
    notebook, found = sweep.plan()
    names = " x ".join(sweep.grid)
    return start_run(
        sweep.to_config(),
        kind=KIND,
        slug=f"{notebook.path.stem} {' '.join(sweep.grid)}",
        title=f"{notebook.path.stem}: {names}, {counted(len(found), 'run')}",
        run_dir=run_dir,
        root=root,
    )


def run_points(sweep: Sweep, run: Run, engine: Engine) -> pd.DataFrame:
    """Run every point that is not finished, as many at a time as the engine has jobs.

    Returns:
        One row per point: the varied parameters, run_id, run_state (`finished` or `failed`), the metrics, run_error. It
        is in `tables/summary.csv` too, from the first point on.

    Raises:
        KeyboardInterrupt: Ctrl-C; every point was asked to stop, and the same call goes on.
    """
    notebook, found = sweep.plan()
    root = run.path.parent
    outcomes: dict[int, Outcome] = {}
    with run.working("points"):
        before = list_runs(root)
        for number, point in enumerate(found):
            outcome = _done_before(before, notebook, point)
            if outcome is not None:
                outcomes[number] = outcome
        waiting = deque(number for number in range(len(found)) if number not in outcomes)
        working: dict[int, Job] = {}
        with progress(len(found), notebook.path.stem, unit="run", initial=len(outcomes)) as bar:
            try:
                while waiting or working:
                    while waiting and len(working) < engine.jobs:
                        number = waiting.popleft()
                        log = run.path / "logs" / "points" / f"{number:03d}.log"
                        working[number] = engine.start(_task(notebook, found[number], run), log)
                    for number, job in list(working.items()):
                        outcome = job.outcome()
                        if outcome is None:
                            continue
                        del working[number]
                        if outcome.error and not outcome.run:
                            outcome = Outcome(run=_left_behind(root, notebook, found[number]), error=outcome.error)
                        outcomes[number] = outcome
                        said = f"failed: {outcome.error}" if outcome.error else "finished"
                        if not bar.disable:
                            bar.write(f"{found[number].label}: {said}", file=sys.stderr)
                        bar.update(1)
                        run.tables.write("summary", summarise(sweep, run, found, outcomes))
                    _wait(bar)
            except BaseException:
                _stop(working.values())
                raise
        summary = summarise(sweep, run, found, outcomes)
        run.tables.write("summary", summary)
    return summary


def summarise(sweep: Sweep, run: Run, found: Sequence[Point], outcomes: Mapping[int, Outcome]) -> pd.DataFrame:
    """Return the summary of the points that came to an end so far; see `run_points`."""
    results = {}
    for number, outcome in outcomes.items():
        if not outcome.error:
            results[number] = Run.open(run.path.parent, outcome.run).results
    metrics = sweep.metrics or [name for name in usual_metrics(list(results.values())) if name not in sweep.grid]
    rows = []
    for number in sorted(outcomes):
        outcome = outcomes[number]
        varied = {name: _cell(value) for name, value in found[number].varied.items()}
        numbers = {name: value_of(results.get(number), name) for name in metrics}
        state = "failed" if outcome.error else "finished"
        facts = dict(zip(COLUMNS, (outcome.run, state, outcome.error), strict=True))
        rows.append({**varied, **facts, **numbers})
    return pd.DataFrame(rows)


def metrics_of(sweep: Sweep, summary: pd.DataFrame) -> list[str]:
    """Return the names of a summary's metrics."""
    return [name for name in summary.columns if name not in (*sweep.grid, *COLUMNS)]


def finish(sweep: Sweep, run: Run, summary: pd.DataFrame) -> dict[str, Any]:
    """Write mean, spread and differences as tables and `results.json`; the run is finished if every point is.

    Returns:
        The results. Where points failed, `failed` lists them, and the run is marked failed: the same sweep started
        again takes up those points only.

    Raises:
        UsageError: a metric is in no run's results.
    """
    with run.working("finish"):
        metrics = metrics_of(sweep, summary)
        failed = summary[summary["run_state"] == "failed"]
        _check_metrics(run, summary, metrics)
        tables = {
            "by_setting": by_setting(summary, list(sweep.grid), metrics),
            "differences": differences(summary, list(sweep.grid), metrics),
        }
        for name, table in tables.items():
            run.tables.write(name, table)
        results = {
            "schema_version": 1,
            **sweep.to_config(),
            "metrics": metrics,
            "points": json_records(summary.drop(columns="run_id")),
            **{name: json_records(table) for name, table in tables.items()},
            "failed": [{"point": _label(row, sweep), "error": row["run_error"]} for _, row in failed.iterrows()],
        }
        run.documents.write("results", results)
    if failed.empty:
        run.finish()
    else:
        names = "; ".join(f"{entry['point']}: {entry['error']}" for entry in results["failed"])
        error = LprError(f"{len(failed)} of {len(summary)} points failed. {names} The same sweep again takes them up.")
        run.stop("failed", error=error)
    return results


# Small pieces


def _task(notebook: NotebookFile, point: Point, run: Run) -> Task:
    return Task(
        notebook=str(notebook.path),
        runs_dir=str(run.path.parent),
        values=point.parameters,
        name=f"{notebook.path.stem} {point.label}",
        parents=[run.id],
        processes=num_processes(),
    )


def _done_before(runs: Sequence[Run], notebook: NotebookFile, point: Point) -> Outcome | None:
    try:
        before, how = run_before(runs, notebook, point.parameters, kind_of(notebook))
    except BusyError:
        return None  # the point's process waits for it
    return Outcome(run=before.id) if before is not None and how == "reused" else None


def _left_behind(root: Path, notebook: NotebookFile, point: Point) -> str:
    """Return the id of the run that a failed point left, or an empty text."""
    try:
        before, _ = run_before(list_runs(root), notebook, point.parameters, kind_of(notebook))
    except BusyError:
        return ""
    return before.id if before is not None else ""


def _wait(bar: Any) -> None:
    """Wait a little; refresh a progress bar that has not moved for some seconds."""
    time.sleep(_POLL_SECONDS)
    if time.time() - getattr(bar, "last_print_t", 0) > _REFRESH_SECONDS and not bar.disable:
        bar.refresh()
        bar.last_print_t = time.time()


def _stop(jobs: Any) -> None:
    """Ask all jobs to stop and wait for them; a second Ctrl-C, or too long a wait, kills them."""
    jobs = list(jobs)
    for job in jobs:
        job.stop()
    deadline = time.monotonic() + STOP_SECONDS
    try:
        while time.monotonic() < deadline and any(job.outcome() is None for job in jobs):
            time.sleep(_POLL_SECONDS)
    finally:
        for job in jobs:
            if job.outcome() is None:
                job.kill()


def _cell(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else as_text(value)


def _check_metrics(run: Run, summary: pd.DataFrame, metrics: Sequence[str]) -> None:
    finished = summary[summary["run_state"] == "finished"]
    if finished.empty:
        return
    for name in metrics:
        if finished[name].isna().all():
            known = known_metrics(Run.open(run.path.parent, finished["run_id"].iloc[0]).results)
            raise UsageError(
                f"No run's results have a number {name!r}.{did_you_mean(name, known)} They have "
                f"{', '.join(known[:20]) or 'none'}. Name others and start the sweep again: its runs are kept."
            )


def _label(row: Any, sweep: Sweep) -> str:
    return ", ".join(f"{name}={row[name]}" for name in sweep.grid)
