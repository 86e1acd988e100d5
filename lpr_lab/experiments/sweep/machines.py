"""One point of a sweep on several machines: each starts torchrun, and the processes of all of them make one run."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from lpr_lab.experiments.processes.number import PROCESSES
from lpr_lab.experiments.sweep.point import Outcome, Task
from lpr_lab.processors import num_cores
from lpr_lab.runs import environment
from lpr_lab.storage import read_json, write_json

STOP_SECONDS = 60.0
"""How long torchrun may take to end its processes, once this machine is asked to stop."""


def run_on_machines(task: Task, number: int, machines: int, endpoint: str, job: str, folder: Path) -> Outcome:
    """Do one machine's part of a point; every machine calls this.

    Args:
        task: the point; `processes` of them are started on each machine.
        number: of this machine, from 0.
        machines: how many there are.
        endpoint: `host:port` on the first machine, where they find one another.
        job: a name that they share and no other job has.
        folder: for the task and its outcome; seen by all machines, as the runs are.

    Returns:
        The outcome on the first machine, an empty one on the others.
    """
    given, result = folder / f"{job}.{number}.task.json", folder / f"{job}.outcome.json"
    if number == 0:
        result.unlink(missing_ok=True)  # of a job that was queued again
    write_json(given, {"task": asdict(task), "result": str(result)})
    threads = str(max(1, num_cores() // task.processes))
    ours = {"PYTHONPATH": environment.python_path(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes", str(machines), "--max-restarts", "0"),
            *("--nproc-per-node", str(task.processes), "--rdzv-id", job),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint),
            *("-m", "lpr_lab.experiments.sweep.point", str(given)),
        ],
        stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name != PROCESSES} | ours,
    )
    try:
        code = process.wait()
    finally:
        _end(process)
        given.unlink(missing_ok=True)
    if number:
        return Outcome()
    if result.is_file():
        return Outcome(**read_json(result))
    return Outcome(error=f"Its processes ended without a word (torchrun's exit code {code}; see the job's log).")


def _end(process: subprocess.Popen) -> None:
    """End torchrun, which ends its processes: first they are asked, so that their step is saved."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
