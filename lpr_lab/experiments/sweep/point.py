"""One point of a sweep: runs a notebook in a process of its own. The same function for every engine.

`python -m lpr_lab.experiments.sweep.point` reads its task from the first line of its input and stops, gently, when that
input ends: closing it is how a sweep interrupts a point, and how a point notices that its sweep is gone. With a file as
argument it reads its task from there: so torchrun starts it where a point is worked on by several machines.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lpr_lab.errors import BusyError, LprError
from lpr_lab.experiments.notebooks.run import run_notebook
from lpr_lab.experiments.processes.number import PROCESSES, follows, started
from lpr_lab.runs.status import error_tail_of
from lpr_lab.storage import write_json

_WAIT_SECONDS = 2.0
_INPUT = 0
"""File descriptor of standard input, read without Python's buffer: a thread that waits in it would hold a lock that
the end of the process needs."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One point to run, JSON-able.

    Attributes:
        notebook: its path.
        runs_dir: the folder of runs.
        values: every parameter.
        name: what a new run is called.
        parents: ids of the runs that a new run belongs to.
        threads: how many threads torch may use; None: as many as it likes.
        processes: how many processes of each machine train together.
    """

    notebook: str
    runs_dir: str
    values: dict[str, Any]
    name: str
    parents: list[str]
    threads: int | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a point: the id of its run (empty when none is left) and, when it failed, one sentence."""

    run: str = ""
    error: str = ""


def run_point(task: Task) -> Outcome:
    """Run the notebook, or reuse or resume its run; waits while another process works on that very run.

    A failure is an outcome here, for one point must not stop the others; Ctrl-C is raised.
    """
    if task.threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(task.threads))  # what a person has set is meant
    if started() == 1:
        os.environ[PROCESSES] = str(task.processes)
    while True:
        try:
            done = run_notebook(
                task.notebook,
                runs_dir=task.runs_dir,
                values=task.values,
                name=task.name,
                parents=task.parents,
                output=sys.stderr,
            )
            return Outcome(run=done.run.id)
        except BusyError:
            time.sleep(_WAIT_SECONDS)
        except LprError as error:
            return Outcome(error=str(error))
        except Exception as error:  # whatever it was, it was this point's
            return Outcome(error=error_tail_of(error).splitlines()[-1])


def main(file: str = "") -> int:
    """Run the task that comes as one line of JSON: `task`, and `result`, the file to write the outcome to."""
    given = json.loads(Path(file).read_bytes() if file else _first_line())
    if not file:
        threading.Thread(target=_stop_when_input_ends, daemon=True).start()
    try:
        outcome = run_point(Task(**given["task"]))
    except KeyboardInterrupt:
        return 130
    if not follows():
        write_json(Path(given["result"]), asdict(outcome))
    return 1 if outcome.error and started() > 1 else 0  # the others are ended where one has failed


def _first_line() -> bytes:
    read = b""
    while not read.endswith(b"\n"):
        piece = os.read(_INPUT, 65536)
        if not piece:
            break
        read += piece
    return read


def _stop_when_input_ends() -> None:
    while os.read(_INPUT, 65536):
        pass
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
