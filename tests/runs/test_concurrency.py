"""Many processes in one folder of runs, and processes killed in the middle of it: real ones, forked, seconds in all."""

import multiprocessing
import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from lpr_lab.runs.find import list_runs, start_run
from lpr_lab.runs.run import Run

FORK = multiprocessing.get_context("fork")
TABLE = pd.DataFrame({"language": ["no", "el"], "bits": [1.5, 0.25]})


def start(root: Path, seed: int) -> Run:
    return start_run({"recipe": "x", "seed": seed}, kind="demo", slug="el", title="A test", root=root)


def live(run: Run) -> None:
    """Work on a run from its first number to its results, skipping what an earlier attempt has done."""
    if not run.phases.is_done("train"):
        run.metrics.truncate("train", 0)
        for step in (1, 2):
            run.metrics.log({"step": step, "loss": 1 / step}, stage="train")
        run.phases.mark_done("train")
    if not run.phases.is_done("measure"):
        run.tables.write("bits", TABLE)
        run.phases.record("measure", {"seen": 2})
        run.figures.write("bits", {"data": []})
        run.phases.mark_done("measure")
    run.finish({"bits": run.phases["measure"]["seen"]})


def assert_whole(run: Run) -> None:
    """Read everything of a finished run."""
    assert run.problem is None and run.status.state == "finished"
    assert run.metrics.read()["step"].tolist() == [1, 2]
    pd.testing.assert_frame_equal(run.tables.read("bits"), TABLE)  # pyright: ignore[reportArgumentType]
    assert run.figures.read() == {"bits": {"data": []}} and run.results == {"bits": 2} and run.documents.read("env")


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["one each", "the same"])
def test_twenty_processes_that_start_at_once_make_twenty_whole_runs(tmp_path, seeds):
    barrier, ids = FORK.Barrier(20, timeout=120), FORK.SimpleQueue()

    def begin(number: int) -> None:
        barrier.wait()
        run = start(tmp_path, number if seeds == "one each" else 0)
        barrier.wait()  # all are at work at the same time, so none can take up what another has left
        live(run)
        ids.put(run.id)

    processes = [FORK.Process(target=begin, args=(number,)) for number in range(20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 20
    made = [ids.get() for _ in processes]
    assert len(set(made)) == 20
    runs = list_runs(tmp_path)
    assert {run.id for run in runs} >= set(made)
    for run in runs:
        assert_whole(run)
    assert (tmp_path / "latest").resolve().name in made


_CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "symlink", "unlink")


def _killed_before_call(number: int, root: Path) -> None:
    """Live a whole run, but die by SIGKILL before the given call that changes the disk, counted over all of them."""
    calls = 0

    def counted(real):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))
    live(start(root, seed=number))


@pytest.mark.slow
def test_a_kill_before_any_change_of_the_disk_leaves_every_run_readable_and_this_one_resumable(tmp_path, monkeypatch):
    monkeypatch.setattr("lpr_lab.runs.environment.describe", lambda: {"python": "x"})  # asks git, fifty times
    number, killed = 0, 0
    while True:
        number += 1
        process = FORK.Process(target=_killed_before_call, args=(number, tmp_path))
        process.start()
        process.join()
        before = {run.id: run for run in list_runs(tmp_path)}
        assert [run.problem for run in before.values() if run.problem] == []
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        mine = [run.id for run in before.values() if run.config["seed"] == number]
        finished = [run_id for run_id in mine if before[run_id].status.state == "finished"]
        if not finished:
            resumed = start(tmp_path, number)
            assert not mine or resumed.id in mine
            live(resumed)
            assert_whole(Run(resumed.path))
    assert killed > 30  # one for each such call of a run's life
    for run in list_runs(tmp_path):
        assert_whole(run)
