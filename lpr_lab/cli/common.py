"""What the commands share: options, error handling, finding a run and printing it."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from lpr_lab.cli.completion import complete_assignment, complete_parameters
from lpr_lab.errors import LprError
from lpr_lab.wording import counted

if TYPE_CHECKING:
    from lpr_lab.runs.run import Run

PORT = 7860


class Group(TyperGroup):
    """Turns an exception of a command into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; whatever it raises ends as an exit code."""
        try:
            return super().invoke(ctx)
        except (LprError, KeyboardInterrupt, OSError, ValueError, LookupError, ImportError) as error:
            if os.environ.get("LPR_LAB_DEBUG") == "1" or isinstance(error, BrokenPipeError):
                raise
            if isinstance(error, LprError):
                say(f"Error: {error}")
                raise typer.Exit(error.exit_code) from error
            if isinstance(error, KeyboardInterrupt):
                say("Interrupted. The same command goes on where this one stopped.")
                raise typer.Exit(130) from error
            say(f"Error: {type(error).__name__}: {error}. LPR_LAB_DEBUG=1 shows where.")
            raise typer.Exit(1) from error


RunsDir = Annotated[
    Path | None,
    typer.Option(
        "--runs-dir", help="Folder that holds the runs.", show_default="$LPR_LAB_RUNS, or ./runs", file_okay=False
    ),
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Port that the dashboard listens on.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; any but 127.0.0.1 asks visitors for a token.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the address, open nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")]


def _parameters_file(given: Path | None) -> Path | None:
    from lpr_lab.experiments.notebooks.run import find_parameters

    return None if given is None else find_parameters(given)


Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        metavar="NAME=VALUE",
        help="Set a parameter of the notebook; repeatable. Lists are JSON.",
        autocompletion=complete_assignment,
    ),
]
ParametersFile = Annotated[
    Path | None,
    typer.Option(
        "-f",
        metavar="FILE",
        help="Parameters from a YAML or JSON file, or a bundled one by name (00_quickstart.gpu).",
        callback=_parameters_file,
        autocompletion=complete_parameters,
    ),
]


def _track(names: list[str] | None) -> list[str] | None:
    from lpr_lab.experiments.tracking.trackers import VARIABLE, selected

    if names:
        os.environ[VARIABLE] = ",".join(selected(names))
    return names


Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        callback=_track,
        help="Log training metrics to this tracker too: tensorboard, trackio, wandb or mlflow; repeatable.",
        show_default="$LPR_LAB_TRACKERS",
    ),
]


def _processes(number: int | None) -> int | None:
    from lpr_lab.experiments.processes.number import PROCESSES, num_processes

    if number is not None:
        os.environ[PROCESSES] = str(num_processes(number))
    return number


Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        min=1,
        callback=_processes,
        help="Train with so many processes of this machine, one for each GPU.",
        show_default="$LPR_LAB_PROCESSES, or 1",
    ),
]
New = Annotated[bool, typer.Option("--new", help="Make a new run even where one with these parameters exists.")]


def say(text: str) -> None:
    """Print to stderr: progress and errors, never results."""
    print(text, file=sys.stderr, flush=True)


def unpack_runs(base: str, runs_dir: Path | None, results: Path | None = None) -> None:
    """Put the runs that came with a saved table of a base into a folder of runs, and print which are new there."""
    from lpr_lab.runs.scorecard.kept_runs import unpack

    root = runs_folder(runs_dir)
    new, there = unpack(base, root, results)
    print(*new, sep="\n", end="\n" if new else "")
    say(f"{counted(len(new), 'run')} put into {root}" + (f", {len(there)} were there before." if there else "."))


@contextmanager
def progress_output(quiet: bool) -> Iterator[TextIO]:
    """Yield the stream for progress: stderr, or nowhere when quiet, also for child processes."""
    if not quiet:
        yield sys.stderr
        return
    os.environ["LPR_LAB_QUIET"] = "1"
    with Path(os.devnull).open("w") as nowhere:
        yield nowhere


def runs_folder(runs_dir: Path | None) -> Path:
    """Return the folder of runs that was named, or the default one."""
    from lpr_lab.runs.find import default_runs_dir

    return (default_runs_dir() if runs_dir is None else runs_dir).absolute()


def open_run(folder: Path, run_id: str) -> "Run":
    """Open a run by id, or the newest as `latest`."""
    from lpr_lab.errors import MissingError
    from lpr_lab.runs.find import newest_run
    from lpr_lab.runs.run import Run

    if run_id != "latest":
        return Run.open(folder, run_id)
    run = newest_run(folder)
    if run is None:
        raise MissingError(f"There is no run in {folder}. Make one: lpr-lab demo")
    return run


def open_runs(folder: Path, run_ids: Iterable[str]) -> "list[Run]":
    """Open several runs, each once, also where `latest` is one that was named."""
    return list({run.id: run for run in (open_run(folder, run_id) for run_id in run_ids)}.values())


def aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows of a table as lines with aligned columns; all rows have the same number of cells."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def facts_of(run: "Run") -> dict[str, Any]:
    """Return the facts of a run and its state, JSON-able."""
    from lpr_lab.runs.housekeeping import read_tags
    from lpr_lab.runs.people.notes import read_notes
    from lpr_lab.runs.watch import alerts

    facts = {"id": run.id, "path": str(run.path), "example": run.is_example, "problem": run.problem}
    if run.problem:
        return facts
    status = run.status
    facts |= {"kind": run.kind, "title": run.title, "created": run.created, "state": status.state}
    facts |= {"tags": list(read_tags(run)), "notes": read_notes(run), "note": run.note or None}
    facts |= {"alerts": [alerts.line(alert) for alert in alerts.read(run)]}
    return facts | {"stage": status.stage, "done": list(status.done_phases), "error": status.error_tail}


def words(run: "Run") -> list[str]:
    """Return the results of a finished run as lines of text: a summary, else its claims, else JSON."""
    from lpr_lab.runs.summary import claim_lines, summary_lines

    results = run.results
    if not results:
        return []
    try:
        return summary_lines(results, run.phases.seconds)
    except (LookupError, TypeError):
        if results.get("claims"):
            return claim_lines(results["claims"])
        return [json.dumps(results, ensure_ascii=False, indent=2)]
