"""Whole runs on several processes, watched and disturbed from a test: who the ranks are, and how far they have come."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from lpr_lab.runs.run import Run
from lpr_lab.storage import read_jsonl


def ranks_below(pid: int | None = None) -> dict[int, psutil.Process]:
    """Return the ranks that a process (this one) started, by number."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if "lpr_lab.experiments.processes.worker" in process.cmdline():
                found[int(process.environ()["RANK"])] = process
        except (psutil.Error, KeyError):
            continue
    return found


def steps_done(run: Run, stage: str) -> int:
    """Return how many steps of a stage are logged; 0 before the first."""
    path = run.metrics.path
    return max((record["step"] for record in read_jsonl(path) if record["stage"] == stage), default=0)


def only_run(root: Path) -> Run | None:
    """Return the one run in a folder, or None while there is none."""
    found = [path for path in root.glob("2*") if path.is_dir()] if root.is_dir() else []
    return Run(found[0]) if found else None


def wait_until(holds: Callable[[], object], seconds: float = 240) -> None:
    """Wait until something holds, and fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"it did not come to that within {seconds:.0f} s"
        time.sleep(0.02)
