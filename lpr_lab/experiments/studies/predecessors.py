"""Find the run that a notebook continues from: the one named, else the newest that suits, else one made for it.

So no notebook fails for want of an earlier one, and what it goes on from is always a run that can be looked at.
"""

from collections.abc import Callable
from pathlib import Path

from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.find import default_runs_dir, list_runs
from lpr_lab.runs.run import Run

_NAMED = 3


def runs_folder(run_dir: str | Path = "", root: str | Path | None = None) -> Path:
    """Return the folder of runs in which a run works that was given a directory, or was not."""
    if run_dir:
        return Path(run_dir).resolve().parent
    return default_runs_dir() if root is None else Path(root)


def find_predecessor(
    root: Path | str, run_id: str, *, suits: Callable[[Run], bool], what: str, make: Callable[[], Run]
) -> Run:
    """Return the finished run to go on from.

    Args:
        root: the folder of runs, examples included.
        run_id: what the person gave; empty to have it found.
        suits: whether a finished, readable run can be gone on from.
        what: what such a run is, in words that follow "expected" (`an upcycled model of smollm2-135m`).
        make: makes a finished one, in the same folder; called when `run_id` is empty and no run suits.

    Raises:
        UsageError: the run that was named is not finished, or does not suit; names those that would.
        MissingError: there is no run of that name.
        DamagedError: there is, but it cannot be read.
    """
    if not run_id:
        return next(iter(_suitable(root, suits)), None) or make()
    run = Run.open(root, run_id)
    state = run.status.state
    if state != "finished":
        raise UsageError(f"Run {run.id} is {state}; expected {what}, finished. Finish it first, or name another one.")
    if not suits(run):
        others = ", ".join(other.id for other in _suitable(root, suits)[:_NAMED])
        hint = f"These would do: {others}." if others else "None here would do: leave it empty, and one is made."
        raise UsageError(f"Run {run.id} is a run of kind {run.kind} ({run.title}); expected {what}. {hint}")
    return run


def begun_from(run_dir: Path | str, setting: str = "from_run") -> str:
    """Return what a run that is taken up again went on from, as one of its settings says; empty for a new run.

    By then another run may be the newest, and an interrupted run must not change its past.
    """
    if not run_dir:
        return ""
    run = Run(Path(run_dir))
    return str(run.config.get(setting) or "") if run.problem is None and run.documents.is_resolved else ""


def _suitable(root: Path | str, suits: Callable[[Run], bool]) -> list[Run]:
    """Return the finished runs that suit, newest first; one whose files cannot be read does not."""

    def is_fit(run: Run) -> bool:
        try:
            return run.problem is None and run.status.recorded_state == "finished" and suits(run)
        except LprError:
            return False

    return [run for run in list_runs(root) if is_fit(run)]
