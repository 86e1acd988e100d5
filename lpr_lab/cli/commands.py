"""The commands `lpr-lab demo`, `run`, `app`, `accelerate-config` and `doctor`."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpr_lab.cli.common import (
    PORT,
    AsJson,
    Assignments,
    Host,
    New,
    NoBrowser,
    ParametersFile,
    Port,
    Processes,
    Quiet,
    RunsDir,
    Track,
    facts_of,
    progress_output,
    runs_folder,
    say,
    words,
)
from lpr_lab.cli.completion import QUICKSTART, complete_notebook
from lpr_lab.errors import UsageError

if TYPE_CHECKING:
    from lpr_lab.runs.run import Run


def demo(  # one parameter per option, because Typer reads the options from the signature
    recipe: Annotated[
        str | None, typer.Option(help="Recipe: route_first, moe_lpr as in the paper, or full and others.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Training tokens of stage 1.")] = None,
    minutes_per_stage: Annotated[float | None, typer.Option(help="Time limit per training stage, in minutes.")] = None,
    assignments: Assignments = None,
    parameters_file: ParametersFile = None,
    new: New = False,
    track: Track = None,
    processes: Processes = None,
    no_app: Annotated[bool, typer.Option("--no-app", help="Do not open the dashboard.")] = False,
    runs_dir: RunsDir = None,
    port: Port = PORT,
    no_browser: NoBrowser = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Expand a real model by three languages, then open the dashboard on it.

    Ten minutes on two processor cores that are quick in bf16, half an hour
    on two of AVX2. Ctrl-C leaves a run that the same command goes on with;
    a finished run is not made again.
    """
    from lpr_lab.experiments.doctor import port_finding
    from lpr_lab.experiments.notebooks.parameters import read_notebook, resolve
    from lpr_lab.experiments.notebooks.run import notebooks_dir

    if not no_app and (taken := port_finding(port)).state != "ok":
        raise UsageError(f"Port {port} is taken. {taken.next_step} Or use --no-app.")
    shortcuts = {"recipe": recipe, "stage1_tokens": tokens, "max_minutes": minutes_per_stage}
    values = {name: value for name, value in shortcuts.items() if value is not None}
    notebook = notebooks_dir() / f"{QUICKSTART}.ipynb"
    resolved = resolve(read_notebook(notebook).parameters, assignments or (), parameters_file, values)
    run = _run_notebook(notebook, resolved, runs_dir, new=new, as_json=as_json, quiet=quiet)
    if not no_app:
        _serve(run.path.parent, port, no_browser, f"routing?run={run.id}")


def run_command(  # one parameter per option, as above
    notebook: Annotated[
        Path,
        typer.Argument(help="A notebook, or a bundled one by name (00_quickstart).", autocompletion=complete_notebook),
    ],
    assignments: Assignments = None,
    parameters_file: ParametersFile = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    new: New = False,
    track: Track = None,
    processes: Processes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the parameters, run nothing.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a notebook with parameters into a run directory.

    Names and types are checked before anything starts. With the same
    parameters a finished run is reused and an unfinished one resumed.
    """
    from lpr_lab.experiments.notebooks.parameters import read_notebook, resolve
    from lpr_lab.experiments.notebooks.run import find_notebook
    from lpr_lab.yaml_files import dump_yaml

    notebook = find_notebook(notebook)
    resolved = resolve(read_notebook(notebook).parameters, assignments or (), parameters_file)
    if not dry_run:
        _run_notebook(notebook, resolved, runs_dir, name=name, new=new, as_json=as_json, quiet=quiet)
    elif as_json:
        print(json.dumps(resolved, ensure_ascii=False))
    else:
        print(dump_yaml(resolved), end="")


def app_command(
    runs_dir: RunsDir = None,
    port: Port = PORT,
    host: Host = "127.0.0.1",
    mcp: Annotated[bool, typer.Option("--mcp", help="Serve its endpoints to language models over MCP too.")] = False,
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
    _serve(runs_folder(runs_dir), port, no_browser, "", host, mcp)


def accelerate_config(
    name: Annotated[str | None, typer.Argument(help="ddp, fsdp2 or multi-node; all of them when not given.")] = None,
) -> None:
    """Print where a configuration file for `accelerate launch` lies.

    ddp: a whole model in every process. fsdp2: the model divided over the
    processes. multi-node: ddp on several machines.

    accelerate launch --config_file "$(lpr-lab accelerate-config ddp)"
    --num_processes 8 -m lpr_lab run 00_quickstart
    """
    from lpr_lab.experiments.processes.configurations import configuration_file, configuration_names

    for one in configuration_names() if name is None else [name]:
        print(configuration_file(one))


def doctor(runs_dir: RunsDir = None, port: Port = PORT, as_json: AsJson = False) -> None:
    """Check what this machine has of what is needed; exit code 1 when something essential is missing."""
    from dataclasses import asdict

    from lpr_lab.experiments.doctor import examine

    findings = []
    for finding in examine(runs_folder(runs_dir), port):
        findings.append(finding)
        if not as_json:
            step = f"\n      {finding.next_step}" if finding.next_step else ""
            print(f"{finding.state:<4}  {finding.name}: {finding.detail}{step}", flush=True)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _run_notebook(
    notebook: Path, values: dict[str, Any], runs_dir: Path | None, *, as_json: bool, quiet: bool, **options: Any
) -> "Run":
    """Run a notebook and print its results; `options` are those of `run_notebook`."""
    from lpr_lab.experiments.notebooks.run import run_notebook

    with progress_output(quiet) as output:
        done = run_notebook(notebook, runs_dir=runs_folder(runs_dir), values=values, output=output, **options)
    run = done.run
    if done.how == "followed":  # the first of the processes that were started together says the rest
        raise typer.Exit(0)
    if done.how == "reused" and not quiet:
        say(f"Run {run.id} was made with the same settings and is finished; --new makes another.")
    if as_json:
        print(json.dumps(facts_of(run) | {"how": done.how, "results": run.results}, ensure_ascii=False), flush=True)
        return run
    for line in words(run):
        print(line)
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
        say(f"Dashboard: {address_with(f'{address}/{page}', token)}  (Ctrl-C stops it)")
        Event().wait()
