"""Points as jobs of submitit: its local executor starts real processes, as Slurm would. Slurm is not run here."""

import signal
import sys
import threading
import time
from contextlib import suppress

import psutil
import pytest

from helpers.small_notebook import write_notebook
from lpr_lab.errors import MissingError, UsageError
from lpr_lab.experiments.sweep.engines import SubmititEngine
from lpr_lab.experiments.sweep.run import Sweep, finish, run_points, start
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run


def test_a_parameter_that_submitit_does_not_know_starts_nothing(tmp_path):
    with pytest.raises(UsageError, match="minutes"):
        SubmititEngine(tmp_path / "jobs", parameters={"minutes": 3}, cluster="local")


def test_without_submitit_the_way_to_get_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingError, match=r"pip install 'lpr_lab\[cluster\]'"):
        SubmititEngine(tmp_path / "jobs")


@pytest.mark.slow
def test_jobs_of_submitit_run_points_and_a_preempted_one_is_queued_again_and_resumed(tmp_path):
    runs, go_on = tmp_path / "runs", tmp_path / "go_on"
    cell = (
        "import pathlib, time\n"
        "if rate > 1:\n    raise ValueError('seven')\n"
        "run.phases.mark_done(f'attempt {run.status.attempts}')\n"
        f"while not pathlib.Path({str(go_on)!r}).exists():\n    time.sleep(0.05)\n"
        "run.finish({'loss': rate})"
    )
    sweep = Sweep(notebook=str(write_notebook(tmp_path, cell)), grid={"rate": [1, 2]})
    run = start(sweep, root=runs)
    seen: list[Run] = []

    def preempt() -> None:
        try:
            _wait_until(lambda: _working(runs, "attempt 1"))
            seen.append(_working(runs, "attempt 1")[0])
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):  # the other job may end just now
                    if "submitit.core._submit" in process.cmdline() and f"{seen[0].status.pid}" in _pids_below(process):
                        process.send_signal(signal.SIGUSR2)  # what Slurm sends before it takes a machine away
            _wait_until(lambda: _working(runs, "attempt 2"))
        finally:
            go_on.touch()  # else the job would wait for ever

    helper = threading.Thread(target=preempt)
    helper.start()
    try:
        summary = run_points(sweep, run, SubmititEngine(runs / ".submitit", jobs=2, cluster="local"))
    finally:
        go_on.touch()
        helper.join()
    assert summary["run_state"].tolist() == ["finished", "failed"]
    assert summary["run_id"].iloc[0] == seen[0].id and seen[0].status.attempts == 2
    assert "seven" in summary["run_error"].iloc[1]
    assert summary["loss"].iloc[0] == 1.0
    results = finish(sweep, run, summary)
    assert [entry["point"] for entry in results["failed"]] == ["rate=2.0"]
    assert all(child.parents == (run.id,) for child in list_runs(runs) if child.kind == "small")


def _working(runs, phase: str) -> list[Run]:
    return [run for run in list_runs(runs) if run.problem is None and run.phases.is_done(phase)]


def _pids_below(process: psutil.Process) -> set[str]:
    return {str(child.pid) for child in process.children(recursive=True)}


def _wait_until(holds) -> None:
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that within four minutes"
        time.sleep(0.1)
