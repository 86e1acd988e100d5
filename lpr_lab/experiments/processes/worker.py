"""One rank of a phase that `launch` started: opens the run directory, works on it with the others, says how it ended.

    RANK=0 WORLD_SIZE=2 … python -m lpr_lab.experiments.processes.worker FOLDER PHASE RUN

The first rank writes into the run and shows progress; what the others print goes to a file in FOLDER. When the input
ends, because whoever started all this stops or is gone, every rank finishes the step under way and ends.
"""

import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lpr_lab.errors import BusyError
from lpr_lab.experiments.processes.outcomes import DONE, FAILED, INTERRUPTED, log_file, write_outcome, write_pid
from lpr_lab.progress import hidden, is_hidden
from lpr_lab.runs.status import sigterm_as_interrupt

PREDECESSOR_SECONDS = 600.0
"""How long the ranks of an interrupted session may take to finish their step and save it, before others begin."""
_GRACE_SECONDS = 600.0
"""How long this rank may take to end after it was told to; then it ends at once, whatever it waits for."""


def main(folder: str, phase: str, path: str) -> int:
    """Work on a phase; returns the exit code."""
    number = int(os.environ["RANK"])
    shared = Path(folder)
    if number:
        log = os.open(log_file(shared, number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
    write_pid(shared, number)
    threading.Thread(target=_stop_when_input_ends, daemon=True).start()
    state, failure = DONE, None
    try:
        with sigterm_as_interrupt(), hidden() if number or is_hidden() else nullcontext():
            _work(phase, Path(path), is_first=number == 0)
    except KeyboardInterrupt:
        state = INTERRUPTED
    except BaseException as error:
        state, failure = FAILED, error
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the agent sends it to all that are left once one has ended
    write_outcome(shared, number, state, failure)
    return {DONE: 0, INTERRUPTED: 130, FAILED: 1}[state]


def _work(phase: str, path: Path, *, is_first: bool) -> None:
    # Here, so that a rank that is told to stop while libraries are imported says so too.
    from lpr_lab.experiments.ranks import work

    # The kernel lets go of it when the process dies, whatever killed it.
    lock = FileLock(path / ".ranks", timeout=PREDECESSOR_SECONDS, thread_local=False, fallback_to_soft=False)
    with _held(lock, path) if is_first else nullcontext():
        work(phase, path, writes=is_first)


def _held(lock: FileLock, path: Path) -> Any:
    try:
        return lock.acquire()
    except Timeout as error:
        raise BusyError(
            f"Processes of an earlier session still work on run {path.name}, {PREDECESSOR_SECONDS:.0f} s after they "
            "were told to stop. End them, then run the same command again."
        ) from error


def _stop_when_input_ends() -> None:
    while os.read(0, 65536):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
