"""Engines that run the points of a sweep: processes of this machine, or jobs that submitit hands to Slurm.

An engine starts a task and returns a job, which can be asked for its outcome and told to stop; `run` decides what is
started when. Processes of this machine are ours, not submitit's: those of its local executor outlive a sweep that is
killed, are killed a second after Ctrl-C, and see no GPU.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Protocol

from lpr_lab.errors import MissingError, UsageError
from lpr_lab.experiments.sweep.machines import run_on_machines
from lpr_lab.experiments.sweep.point import Outcome, Task, run_point
from lpr_lab.processors import num_cores
from lpr_lab.runs import environment
from lpr_lab.storage import read_json


class Job(Protocol):
    """A point that was started."""

    def outcome(self) -> Outcome | None:
        """Return the result, or None while it is running."""
        ...

    def stop(self) -> None:
        """Ask it to stop as Ctrl-C would, so that its run can be resumed."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Engine(Protocol):
    """Starts points; `jobs` is how many may run at a time."""

    jobs: int

    def start(self, task: Task, log: Path) -> Job:
        """Start a task; what it prints goes to `log`, or to a file of submitit."""
        ...


class LocalEngine:
    """Processes on this machine, which share its processor cores."""

    def __init__(self, jobs: int = 1):
        if jobs < 1:
            raise UsageError(f"jobs = {jobs}; at least one point has to be run at a time.")
        self.jobs = jobs

    @property
    def threads(self) -> int | None:
        """Torch threads for each process; None when there is only one."""
        return None if self.jobs == 1 else max(1, num_cores() // self.jobs)

    def start(self, task: Task, log: Path) -> Job:
        """Start a process; its standard input stays open for as long as it may run."""
        log.parent.mkdir(parents=True, exist_ok=True)
        return _Process(Task(**{**asdict(task), "threads": self.threads}), log)


class _Process:
    def __init__(self, task: Task, log: Path):
        self._result = log.with_suffix(".json")
        self._result.unlink(missing_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lpr_lab.experiments.sweep.point"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONPATH": environment.python_path()},
                start_new_session=True,  # Ctrl-C in a terminal reaches the sweep alone, which then asks each to stop
            )
        line = json.dumps({"task": asdict(task), "result": str(self._result)}) + "\n"
        with suppress(BrokenPipeError):  # it died at once; its outcome will say so
            self._input.write(line.encode())
            self._input.flush()

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def outcome(self) -> Outcome | None:
        code = self._process.poll()
        if code is None:
            return None
        with suppress(OSError):
            self._input.close()
        if self._result.is_file():
            return Outcome(**read_json(self._result))
        if code == 130:
            return Outcome(error="It was interrupted.")
        return Outcome(error=f"Its process ended without a word (exit code {code}; out of memory?).")

    def stop(self) -> None:
        with suppress(OSError):
            self._input.close()

    def kill(self) -> None:
        self._process.kill()


class SubmititEngine:
    """Jobs of submitit: on Slurm where there is one, else processes that it starts here.

    Args:
        folder: where submitit keeps its scripts and logs; seen by every machine that a job may run on, as the runs are.
        jobs: how many jobs may be in the queue at a time.
        parameters: submitit's, such as `slurm_partition`, `timeout_min`, `cpus_per_task`, `gpus_per_node`, `nodes`. A
            point that is given several machines (`nodes`) is worked on by all of them, one torchrun on each.
        cluster: `slurm`, `local`, or None for whichever is here.

    Raises:
        MissingError: submitit is not installed.
        UsageError: it does not know one of the parameters.
    """

    def __init__(
        self, folder: Path, jobs: int = 1, parameters: Mapping[str, Any] | None = None, cluster: str | None = None
    ):
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise MissingError("submitit is not installed: pip install 'lpr_lab[cluster]'.") from error
        self.jobs = jobs
        folder.mkdir(parents=True, exist_ok=True)
        self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        try:
            self._executor.update_parameters(**{"timeout_min": DEFAULT_MINUTES, **(parameters or {})})
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(f"submitit does not take these parameters: {error}") from error

    def start(self, task: Task, log: Path) -> Job:
        """Submit a job; submitit keeps its log in its own folder."""
        return _Submitted(self._executor.submit(ResumedPoint(), task))


DEFAULT_MINUTES = 24 * 60


class ResumedPoint:
    """`run_point` as a job that Slurm may preempt or cut off: submitit queues it again, and its run is resumed."""

    def __call__(self, task: Task) -> Outcome:
        """Run the task; where the job has several tasks, usually one on each machine, each does its part."""
        from submitit import JobEnvironment
        from submitit.helpers import TorchDistributedEnvironment

        job = JobEnvironment()
        if job.num_tasks == 1:
            return run_point(task)
        first = TorchDistributedEnvironment()  # asked for an address only; it exports nothing
        endpoint = f"{first.master_addr}:{first.master_port}"
        folder = Path(job.paths.folder)
        return run_on_machines(task, job.global_rank, job.num_tasks, endpoint, job.job_id, folder)

    def checkpoint(self, task: Task) -> Any:
        """Return what to queue again: the same task, for its run is resumed."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


class _Submitted:
    def __init__(self, job: Any):
        self._job = job

    def outcome(self) -> Outcome | None:
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is not None:
            return Outcome(error=f"Job {self._job.job_id}: {str(error).strip().splitlines()[-1]}")
        return self._job.results()[0]  # where it has several tasks, the first has the outcome

    def stop(self) -> None:
        self._job.cancel()

    def kill(self) -> None:
        self._job.cancel()
