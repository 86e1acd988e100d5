"""The command line: `lpr-lab demo | run | runs | app | doctor`. Parses, calls one function, prints.

Results go to stdout, progress and errors to stderr. Every error is one sentence and an exit code: 1 failed, 2 usage,
3 missing, 4 comparison refused, 130 interrupted; `LPR_LAB_DEBUG=1` adds the traceback. Nothing heavy is imported before
a command needs it, so that `--help` answers at once.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from lpr_lab.errors import LprError, UsageError

if TYPE_CHECKING:
    from lpr_lab.experiments.runs import Run

PORT = 7860
QUICKSTART = "00_quickstart.ipynb"


class _Group(TyperGroup):
    """Turns what goes wrong in a command into one sentence and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (LprError, KeyboardInterrupt, OSError, ValueError, LookupError, ImportError) as error:
            if os.environ.get("LPR_LAB_DEBUG") == "1" or isinstance(error, BrokenPipeError):
                raise
            if isinstance(error, LprError):
                _say(f"Error: {error}")
                raise typer.Exit(error.exit_code) from error
            if isinstance(error, KeyboardInterrupt):
                _say("Interrupted. The same command goes on where this one stopped.")
                raise typer.Exit(130) from error
            _say(f"Error: {type(error).__name__}: {error}. LPR_LAB_DEBUG=1 shows where.")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Group,
    help="Teach a language model new languages with new experts, without forgetting the old ones.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
runs_app = typer.Typer(help="List and show runs.", no_args_is_help=True)
app.add_typer(runs_app, name="runs")

RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", help="The folder of runs.", show_default="$LPR_LAB_RUNS, or ./runs", file_okay=False),
]
Port = Annotated[int, typer.Option("--port", min=1, max=65535, help="Where on 127.0.0.1 the dashboard listens.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; any but 127.0.0.1 asks visitors for a token.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the address, open nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("-p", metavar="NAME=VALUE", help="Set a parameter of the notebook; repeatable. Lists are JSON."),
]
ParametersFile = Annotated[
    Path | None,
    typer.Option("-f", metavar="FILE", help="Parameters from a YAML or JSON file.", exists=True, dir_okay=False),
]
New = Annotated[bool, typer.Option("--new", help="Make a new run, whatever there is.")]


@app.command()
def demo(
    recipe: Annotated[str | None, typer.Option(help="route_first, or the papers' own moe_lpr.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of stage 1.")] = None,
    minutes_per_stage: Annotated[float | None, typer.Option(help="Stop each training stage after so long.")] = None,
    assignments: Assignments = None,
    parameters_file: ParametersFile = None,
    new: New = False,
    no_app: Annotated[bool, typer.Option("--no-app", help="Stop before serving the dashboard.")] = False,
    runs_dir: RunsDir = None,
    port: Port = PORT,
    no_browser: NoBrowser = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Expand a real model by three languages, then open the dashboard on it.

    About ten minutes on two processor cores. Ctrl-C leaves a run that the
    same command goes on with; a finished run is not made again.
    """
    from lpr_lab.experiments.doctor import port_finding
    from lpr_lab.experiments.notebooks import notebooks_dir

    if not no_app and (taken := port_finding(port)).state != "ok":
        raise UsageError(f"Port {port} is taken. {taken.next_step} Or use --no-app.")
    shortcuts = {"recipe": recipe, "stage1_tokens": tokens, "max_minutes": minutes_per_stage}
    values = {name: value for name, value in shortcuts.items() if value is not None}
    run = _run_notebook(
        notebooks_dir() / QUICKSTART, runs_dir, assignments, parameters_file, values, None, new, as_json, quiet
    )
    if not no_app:
        _serve(run.path.parent, port, no_browser, f"routing?run={run.id}")


@app.command("run")
def run_command(
    notebook: Annotated[Path, typer.Argument(help="A notebook, or the name of one in notebooks/.")],
    assignments: Assignments = None,
    parameters_file: ParametersFile = None,
    name: Annotated[str | None, typer.Option(help="What to call the run.")] = None,
    new: New = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the parameters, run nothing.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a notebook with parameters into a run directory.

    Names and types are checked before anything starts. With the same
    parameters a finished run is reused and an unfinished one resumed.
    """
    from lpr_lab.experiments.notebook_parameters import read_notebook, resolve
    from lpr_lab.experiments.notebooks import notebooks_dir

    if not notebook.exists() and len(notebook.parts) == 1:
        notebook = notebooks_dir() / notebook.with_suffix(".ipynb")
    if dry_run:
        from lpr_lab.experiments.yaml_files import dump_yaml

        resolved = resolve(read_notebook(notebook).parameters, assignments or (), parameters_file)
        print(
            json.dumps(resolved, ensure_ascii=False) if as_json else dump_yaml(resolved),
            end="" if not as_json else "\n",
        )
        return
    _run_notebook(notebook, runs_dir, assignments, parameters_file, {}, name, new, as_json, quiet)


@runs_app.command("list")
def list_command(
    kind: Annotated[str | None, typer.Option(help="Only runs of this kind.")] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first, examples last."""
    from lpr_lab.experiments.runs import list_runs

    folder = _runs_folder(runs_dir)
    runs = [run for run in list_runs(folder) if kind in (None, run.kind)]
    if as_json:
        print(json.dumps([_facts(run) for run in runs], ensure_ascii=False))
        return
    if not runs:
        _say(f"No runs in {folder}. Make one: lpr-lab demo")
    width = max((len(run.id) for run in runs), default=0)
    for run in runs:
        state = "unreadable" if run.problem else "example" if run.is_example else run.status.state
        print(f"{run.id:<{width}}  {state:<11}  {run.problem or run.title}")


@runs_app.command("show")
def show_command(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.")] = "latest",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run is, where it stands and what it found."""
    from lpr_lab.experiments.yaml_files import dump_yaml

    run = _open(_runs_folder(runs_dir), run_id)
    facts = _facts(run) | {"config": run.config, "results": run.results}
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(dump_yaml({key: value for key, value in facts.items() if key != "results" and value is not None}), end="")
    if run.results is not None:
        print(*_words(run.results), sep="\n")


@app.command("app")
def app_command(
    runs_dir: RunsDir = None,
    port: Port = PORT,
    host: Host = "127.0.0.1",
    mcp: Annotated[bool, typer.Option("--mcp", help="Offer its endpoints to language-model clients too.")] = False,
    no_browser: NoBrowser = False,
) -> None:
    """Open the dashboard on a folder of runs.

    On another address than this machine's own, the address that is printed
    holds a token that visitors need. Nothing is encrypted: where you do not
    trust the network, keep 127.0.0.1 and use an SSH tunnel.
    """
    from lpr_lab.experiments.doctor import port_finding

    if (taken := port_finding(port)).state != "ok":
        raise UsageError(f"Port {port} is taken. {taken.next_step}")
    _serve(_runs_folder(runs_dir), port, no_browser, "", host, mcp)


@app.command()
def doctor(runs_dir: RunsDir = None, port: Port = PORT, as_json: AsJson = False) -> None:
    """Look at what this machine has of what is needed; exit code 1 when something essential is missing."""
    from dataclasses import asdict

    from lpr_lab.experiments.doctor import examine

    findings = []
    for finding in examine(_runs_folder(runs_dir), port):
        findings.append(finding)
        if not as_json:
            step = f"\n      {finding.next_step}" if finding.next_step else ""
            print(f"{finding.state:<4}  {finding.name}: {finding.detail}{step}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _runs_folder(runs_dir: Path | None) -> Path:
    from lpr_lab.experiments.runs import default_runs_dir

    return (default_runs_dir() if runs_dir is None else runs_dir).absolute()


def _open(folder: Path, run_id: str) -> "Run":
    from lpr_lab.errors import MissingError
    from lpr_lab.experiments.runs import Run, newest_run

    if run_id != "latest":
        return Run.open(folder, run_id)
    run = newest_run(folder)
    if run is None:
        raise MissingError(f"There is no run in {folder}. Make one: lpr-lab demo")
    return run


def _facts(run: "Run") -> dict[str, Any]:
    facts = {"id": run.id, "path": str(run.path), "example": run.is_example, "problem": run.problem}
    if run.problem:
        return facts
    status = run.status
    facts |= {"kind": run.kind, "title": run.title, "created": run.created, "state": status.state}
    return facts | {"stage": status.stage, "done": list(status.done_phases), "error": status.error_tail}


def _words(results: dict[str, Any]) -> list[str]:
    """Return results in words where they are those of an expansion, as JSON where not."""
    from lpr_lab.experiments.summary import summary_lines

    try:
        return summary_lines(results)
    except (LookupError, TypeError):
        return [json.dumps(results, ensure_ascii=False, indent=2)]


@contextmanager
def _progress_output(quiet: bool) -> Iterator[TextIO]:
    if not quiet:
        yield sys.stderr
        return
    os.environ["LPR_LAB_QUIET"] = "1"
    with Path(os.devnull).open("w") as nowhere:
        yield nowhere


def _run_notebook(
    notebook: Path,
    runs_dir: Path | None,
    assignments: list[str] | None,
    parameters_file: Path | None,
    values: dict[str, Any],
    name: str | None,
    new: bool,
    as_json: bool,
    quiet: bool,
) -> "Run":
    from lpr_lab.experiments.notebooks import run_notebook

    with _progress_output(quiet) as output:
        done = run_notebook(
            notebook,
            runs_dir=_runs_folder(runs_dir),
            assignments=tuple(assignments or ()),
            parameters_file=parameters_file,
            values=values,
            name=name,
            new=new,
            output=output,
        )
    run = done.run
    if done.how == "reused" and not quiet:
        _say(f"Run {run.id} was made with the same settings and is finished; --new makes another.")
    if as_json:
        print(json.dumps(_facts(run) | {"how": done.how, "results": run.results}, ensure_ascii=False), flush=True)
        return run
    if run.results is not None:
        print(*_words(run.results), sep="\n")
    print(f"Run: {run.path}", flush=True)
    return run


def _serve(folder: Path, port: int, no_browser: bool, page: str, host: str = "127.0.0.1", mcp: bool = False) -> None:
    from threading import Event

    from lpr_lab.dashboard import LOOPBACK, address_with, new_token, serve

    has_screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    opens = has_screen and not no_browser
    token = None if host in LOOPBACK else new_token()
    with suppress(KeyboardInterrupt):  # the way to end it, so no error
        address = serve(folder, host=host, port=port, page=page, open_browser=opens, block=False, token=token, mcp=mcp)
        _say(f"Dashboard: {address_with(f'{address}/{page}', token)}  (Ctrl-C stops it)")
        Event().wait()


def main() -> None:
    """Run the command line."""
    app()
