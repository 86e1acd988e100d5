"""How the ranks of a phase ended: the files in which each says so, and the sentence that follows from all of them.

In one folder: `rank-0.outcome.json`, `rank-0.pid.json` (its process), `rank-1.log` (what a rank other than the first
printed), and `agent.json`, the exit codes of those that failed.
"""

import os
import signal
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lpr_lab import errors, progress
from lpr_lab.errors import LprError
from lpr_lab.storage import read_json, write_json

DONE, INTERRUPTED, FAILED = "done", "interrupted", "failed"
_LOG_LINES = 5
_GO_ON = "The work up to the last checkpoint is saved; run the same command again: it goes on from there."


def log_file(folder: Path, number: int) -> Path:
    """Return the file to which a rank prints, other than the first."""
    return folder / f"rank-{number}.log"


def write_pid(folder: Path, number: int) -> None:
    """Say which process this rank is."""
    write_json(folder / f"rank-{number}.pid.json", os.getpid())


def pids(folder: Path) -> list[int]:
    """Return the processes of all ranks that were started."""
    return [int(read_json(file)) for file in folder.glob("rank-*.pid.json")]


def write_outcome(folder: Path, number: int, state: str, error: BaseException | None = None) -> None:
    """Say how this rank ended: `done`, `interrupted`, or `failed` with an error."""
    facts = {"state": state, "time": time.time()}
    if error is not None:
        trace = "".join(traceback.format_exception(error))
        facts |= {"error": type(error).__name__, "text": str(error), "traceback": trace}
    write_json(_outcome_file(folder, number), facts)


def write_exit_codes(folder: Path, codes: Mapping[int, int]) -> None:
    """Say with which codes ranks failed; below 0 it is the number of a signal."""
    write_json(_codes_file(folder), {str(number): code for number, code in codes.items()})


def raise_failure(folder: Path, phase: str, processes: int, code: int) -> None:
    """Raise what the ranks failed with; return where all are done.

    Args:
        folder: of the files.
        phase: what was worked on.
        processes: how many ranks.
        code: exit code of the agent.

    Raises:
        LprError: one failed or was killed; an error of ours keeps its kind.
        KeyboardInterrupt: they were interrupted.
    """
    files = {number: _outcome_file(folder, number) for number in range(processes)}
    outcomes: dict[int, dict[str, Any]] = {number: read_json(file) for number, file in files.items() if file.exists()}
    if code == 0 and len(outcomes) == processes and all(outcome["state"] == DONE for outcome in outcomes.values()):
        return
    codes = read_json(_codes_file(folder)) if _codes_file(folder).exists() else {}
    killed = {int(number): -code for number, code in codes.items() if code < 0 and -code != signal.SIGTERM}
    if killed:
        number, by = next(iter(killed.items()))
        what = "out of memory?" if by == signal.SIGKILL else "see what it printed"
        raise LprError(
            f"Process {number} of {processes} (counted from 0) was ended by {_signal_name(by)} in the phase {phase!r} "
            f"({what}), and the others were ended with it.{_last_lines(folder, number)} {_GO_ON}"
        )
    failed = {number: outcome for number, outcome in outcomes.items() if outcome["state"] == FAILED}
    if failed:
        number = min(failed, key=lambda one: failed[one]["time"])  # the others fail later, for it no longer answers
        raise _error_of(failed[number], number, processes, phase)
    if any(outcome["state"] == INTERRUPTED for outcome in outcomes.values()):
        raise KeyboardInterrupt(f"The processes were interrupted in the phase {phase!r}; their work is saved.")
    number = next((number for number in range(processes) if number not in outcomes), 0)
    raise LprError(
        f"Process {number} of {processes} (counted from 0) ended without a word in the phase {phase!r} (exit codes: "
        f"{codes or code}).{_last_lines(folder, number)} {_GO_ON}"
    )


def _error_of(outcome: Mapping[str, Any], number: int, processes: int, phase: str) -> LprError:
    kind = getattr(errors, outcome["error"], None)
    if isinstance(kind, type) and issubclass(kind, LprError):
        return kind(outcome["text"])
    print(outcome["traceback"], file=progress.stream(), flush=True)
    return LprError(
        f"Process {number} of {processes} (counted from 0) failed in the phase {phase!r} with {outcome['error']}: "
        f"{outcome['text'].rstrip('.')}. {_GO_ON}"
    )


def _outcome_file(folder: Path, number: int) -> Path:
    return folder / f"rank-{number}.outcome.json"


def _codes_file(folder: Path) -> Path:
    return folder / "agent.json"


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _last_lines(folder: Path, number: int) -> str:
    """Return the last lines that a rank printed, other than the first, whose output was shown."""
    file = log_file(folder, number)
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.exists() else []
    printed = [line for line in lines if line.strip()][-_LOG_LINES:]
    return f" It printed last: {' / '.join(printed)}." if printed else ""
