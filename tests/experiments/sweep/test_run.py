"""Sweeps of a notebook that does next to nothing, through real processes and kernels; each point costs seconds."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from helpers.small_notebook import write_notebook
from lpr_lab.errors import MissingError, UsageError
from lpr_lab.experiments.notebooks.run import run_notebook
from lpr_lab.experiments.sweep.engines import LocalEngine
from lpr_lab.experiments.sweep.run import Sweep, finish, run_points, start
from lpr_lab.runs import environment
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.lineage import children_of
from lpr_lab.runs.run import Run

THREADS = 'import os\nthreads = int(os.environ.get("OMP_NUM_THREADS", 0))\n'
RESULTS = 'run.finish({"loss": rate + seed / 100, "threads": threads})'


class NoEngine:
    """Starts nothing: every point must be there already."""

    jobs = 1

    def start(self, task, log):
        raise AssertionError(f"{task.name} was started")


@pytest.mark.slow
def test_a_failing_point_stops_no_other_and_the_same_sweep_takes_it_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runs = tmp_path / "runs"
    mend = tmp_path / "mended"
    fails = (
        f"import pathlib\nif rate > 0.2 and not pathlib.Path({str(mend)!r}).exists():\n    raise ValueError('seven')\n"
    )
    path = write_notebook(tmp_path, THREADS + fails + RESULTS)
    by_hand = run_notebook(path, runs_dir=runs, values={"rate": 0.2}, output=io.StringIO()).run
    sweep = Sweep(notebook=str(path), grid={"rate": [0.2, 0.3], "seed": [0, 1]})

    run = start(sweep, root=runs)
    table = run_points(sweep, run, LocalEngine(jobs=2))
    results = finish(sweep, run, table)
    assert (
        run.kind == "sweep" and run.status.state == "failed" and "2 of 4 points failed" in (run.status.error_tail or "")
    )
    assert table["run_state"].tolist() == ["finished", "finished", "failed", "failed"]
    assert table["run_id"].iloc[0] == by_hand.id
    assert table["loss"].iloc[1] == pytest.approx(0.21) and table["threads"].iloc[1] == 3
    assert [entry["point"] for entry in results["failed"]] == ["rate=0.3, seed=0", "rate=0.3, seed=1"]
    assert "seven" in results["failed"][0]["error"]
    children = children_of(run, list_runs(runs))
    assert {child.id for child in children} == set(table["run_id"]) - {by_hand.id}
    assert sorted(child.status.state for child in children) == ["failed", "failed", "finished"]
    assert any("rate=0.3, seed=1" in child.title for child in children)

    logs = [log.read_text() for log in sorted((run.path / "logs" / "points").glob("*.log"))]
    assert len(logs) == 3 and all("Running 05_small.ipynb" in log and "Fatal" not in log for log in logs)

    mend.touch()
    again = start(sweep, root=runs)
    assert again.id == run.id
    mended = run_points(sweep, again, LocalEngine(jobs=2))
    results = finish(sweep, again, mended)
    assert mended["run_id"].tolist() == table["run_id"].tolist()
    assert Run(run.path).status.state == "finished" and results["failed"] == []
    assert Run.open(runs, mended["run_id"].iloc[2]).status.attempts == 2
    stored = run.tables.read("by_setting")
    assert stored is not None
    losses = stored[stored["metric"] == "loss"]
    assert losses["mean"].round(6).tolist() == [0.205, 0.305] and losses["n"].tolist() == [2, 2]
    assert json.loads((run.path / "results.json").read_text()) == results
    (difference,) = (row for row in results["differences"] if row["metric"] == "loss")
    assert difference["difference"] == pytest.approx(0.1) and difference["seeds"] == 2

    more = Sweep(notebook=str(path), grid={"rate": [0.2], "seed": [0, 1]}, metrics=["loss"])
    third = start(more, root=runs)
    finish(more, third, run_points(more, third, NoEngine()))
    assert Run(third.path).status.state == "finished"
    unknown = Sweep(notebook=str(path), grid={"rate": [0.2], "seed": [0, 1]}, metrics=["los"])
    fourth = start(unknown, root=runs)
    with pytest.raises(UsageError, match=r"'los'.* mean 'loss'"):
        finish(unknown, fourth, run_points(unknown, fourth, NoEngine()))


def test_nothing_is_made_for_a_sweep_that_is_wrong(tmp_path):
    path = write_notebook(tmp_path)
    for wrong in (
        Sweep(notebook=str(path), grid={"rat": [1]}),
        Sweep(notebook=str(path), grid={"rate": [1, 2]}, max_runs=1),
        Sweep(notebook=str(path), grid={"rate": [1, 2]}, metrics=["rate"]),
    ):
        with pytest.raises(UsageError):
            start(wrong, root=tmp_path / "runs")
    with pytest.raises(MissingError):
        start(Sweep(notebook=str(tmp_path / "none.ipynb"), grid={"rate": [1]}), root=tmp_path / "runs")
    with pytest.raises(UsageError, match="jobs = 0"):
        LocalEngine(jobs=0)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_interrupted_or_killed_stops_its_points_and_goes_on_later(tmp_path, number):
    runs, go_on = tmp_path / "runs", tmp_path / "go_on"
    busy = (
        "import time\nfrom pathlib import Path\nrun.phases.mark_done('begun')\n"
        f"while not Path({str(go_on)!r}).exists():\n    time.sleep(0.05)\n"
        "run.finish({'loss': rate})"
    )
    path = write_notebook(tmp_path, busy)
    command = [sys.executable, "-m", "lpr_lab", "sweep", str(path), "-g", "rate=1,2,3", "--jobs", "2", "--json"]
    environ = {**os.environ, "PYTHONPATH": str(environment.CHECKOUT), "LPR_LAB_RUNS": str(runs)}
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
    _wait_until(lambda: sum(run.kind == "small" and run.phases.is_done("begun") for run in list_runs(runs)) == 2)
    below = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(number)
    assert first.wait(timeout=90) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert psutil.wait_procs(below, timeout=90)[1] == []
    assert all(run.problem is None for run in list_runs(runs))
    assert {run.status.state for run in list_runs(runs)} == {"interrupted"}
    before = {run.id for run in list_runs(runs)}

    go_on.touch()
    second = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=180)
    assert second.returncode == 0, second.stderr
    told = json.loads(second.stdout)
    assert told["state"] == "finished" and told["id"] in before
    assert before <= {run.id for run in list_runs(runs)} and len(list_runs(runs)) == 4
    assert sorted(point["loss"] for point in told["results"]["points"]) == [1, 2, 3]


def _wait_until(holds) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that within two minutes"
        time.sleep(0.1)


def test_what_a_sweep_reads_with_needs_no_torch():
    code = "import sys, lpr_lab.experiments.sweep.run; print({'torch', 'papermill'} & set(sys.modules) or '')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert not done.stdout.strip()
