"""`lpr-lab watch`: follow a run's training in the terminal, from any process."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpr_lab.cli.common import RunsDir, open_run, runs_folder, say
from lpr_lab.errors import MissingError

if TYPE_CHECKING:
    from lpr_lab.runs.run import Run


def watch_command(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run's id, or `latest`.", show_default="the newest that is running"),
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between updates.")] = 1.0,
    runs_dir: RunsDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line, one for each update.")] = False,
) -> None:
    """Watch a run until it ends: step, speed, time left, losses.

    It only reads files: the run may be running in any process, and Ctrl-C
    leaves it alone. Exit code 0 when the run finished, 1 when it failed, 130
    when it, or the watching, was interrupted.
    """
    from lpr_lab.views.terminal import watch

    folder = runs_folder(runs_dir)
    run = _at_work(folder) if run_id is None else open_run(folder, run_id)
    try:
        code = watch(run, every=every, as_json=as_json)
    except KeyboardInterrupt:
        say(f"Stopped watching. Run {run.id} is as it was.")
        code = 130
    raise typer.Exit(code)


def _at_work(folder: Path) -> "Run":
    """Return the newest run that a process works on, or that has gone silent."""
    from lpr_lab.runs.find import list_runs

    readable = [run for run in list_runs(folder) if run.problem is None and not run.is_example]
    states = {run.id: run.status.state for run in readable}
    for wanted in ("running", "stalled"):
        if found := next((run for run in readable if states[run.id] == wanted), None):
            return found
    raise MissingError(f"No run in {folder} is at work. `lpr-lab runs list` shows all ids, `lpr-lab watch ID` one run.")
