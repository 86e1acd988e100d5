"""`lpr-lab sweep`: one notebook at every point of a grid of parameters."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpr_lab.cli.common import (
    AsJson,
    Assignments,
    Processes,
    Quiet,
    RunsDir,
    aligned,
    facts_of,
    progress_output,
    runs_folder,
    say,
)
from lpr_lab.cli.completion import complete_assignment, complete_notebook
from lpr_lab.errors import UsageError, one_of

if TYPE_CHECKING:
    from lpr_lab.experiments.sweep.engines import Engine
    from lpr_lab.experiments.sweep.run import Sweep
    from lpr_lab.runs.run import Run

ENGINES = ("local", "submitit")


Notebook = Annotated[
    str, typer.Argument(help="A notebook, or a bundled one by name (00_quickstart).", autocompletion=complete_notebook)
]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "-g",
        metavar="NAME=V1,V2",
        help="Values of a parameter; repeatable. Lists of lists are JSON.",
        autocompletion=complete_assignment,
    ),
]
GridFile = Annotated[
    Path | None, typer.Option("-f", metavar="FILE", help="The grid as YAML or JSON: `name: [v1, v2]`.", exists=True)
]
Metrics = Annotated[
    list[str] | None,
    typer.Option("-m", metavar="NAME", help="A number of results.json, such as gain or change.0.after; repeatable."),
]
EngineName = Annotated[str, typer.Option(help="local: processes here; submitit: jobs, on Slurm where it is.")]
Submit = Annotated[
    list[str] | None,
    typer.Option("-s", metavar="NAME=VALUE", help="A parameter of submitit, such as slurm_partition=gpu."),
]


def sweep_command(  # one parameter per option, because Typer reads the options from the signature
    notebook: Notebook,
    grid: Grid = None,
    grid_file: GridFile = None,
    assignments: Assignments = None,
    metric: Metrics = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many runs at a time.")] = 1,
    max_runs: Annotated[int, typer.Option(min=1, help="Refuse a grid with more points.")] = 64,
    engine: EngineName = "local",
    submit: Submit = None,
    processes: Processes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the points, run nothing.")] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a notebook at every point of a grid, and compare the results.

    Every point is checked before anything starts, and becomes a run of its
    own. A parameter called seed is repeated, not compared: means, spreads and
    intervals are over it. The same command again goes on where it stopped,
    and retries points that failed.
    """
    from lpr_lab.experiments.notebooks.parameters import read_notebook, resolve
    from lpr_lab.experiments.notebooks.run import find_notebook
    from lpr_lab.experiments.processes.number import started
    from lpr_lab.experiments.sweep.grid import grid_from_text
    from lpr_lab.experiments.sweep.run import Sweep, finish, run_points, start

    if started() > 1:
        raise UsageError(
            f"WORLD_SIZE = {started()}: a sweep was started as several processes, each of which would run all of it. "
            "Start it alone, with --processes for each of its runs."
        )
    declared = read_notebook(find_notebook(notebook)).parameters
    typed = [assignment.partition("=")[0].strip() for assignment in assignments or ()]
    resolved = resolve(declared, assignments or ())
    sweep = Sweep(
        notebook=notebook,
        grid=grid_from_text(declared, grid or (), grid_file),
        fixed={name: resolved[name] for name in typed},
        metrics=metric or (),
        max_runs=max_runs,
    )
    _, points = sweep.plan()
    if dry_run:
        if as_json:
            print(json.dumps([point.parameters for point in points], ensure_ascii=False))
        else:
            print(*(point.label for point in points), sep="\n")
        return
    folder = runs_folder(runs_dir)
    chosen = _engine(engine, jobs, submit or (), folder)
    with progress_output(quiet):
        run = start(sweep, root=folder)
        results = finish(sweep, run, run_points(sweep, run, chosen))
    _tell(sweep, run, results, as_json)
    if results["failed"]:
        raise typer.Exit(1)


def _engine(name: str, jobs: int, parameters: Iterable[str], folder: Path) -> "Engine":
    from lpr_lab.experiments.sweep.engines import LocalEngine, SubmititEngine
    from lpr_lab.yaml_files import parse_yaml

    one_of("--engine", name, ENGINES)
    given = {}
    for parameter in parameters:
        key, equals, text = parameter.partition("=")
        if not equals:
            raise UsageError(f"{parameter!r} is not name=value. Write `-s {key}=…`.")
        given[key.strip()] = parse_yaml(text, f"-s {key}")
    if name == "submitit":
        return SubmititEngine(folder / ".submitit", jobs, given)
    if given:
        raise UsageError("-s is for --engine submitit; processes of this machine take no such parameters.")
    return LocalEngine(jobs)


def _tell(sweep: "Sweep", run: "Run", results: dict[str, Any], as_json: bool) -> None:
    for entry in results["failed"]:
        say(f"Failed: {entry['point']}: {entry['error']}")
    if as_json:
        print(json.dumps(facts_of(run) | {"results": results}, ensure_ascii=False), flush=True)
        return
    settings = [name for name in sweep.grid if name != "seed"]
    print(*_lines([*settings, "metric", "mean", "sd", "min", "max", "n"], results["by_setting"]), sep="\n")
    if results["differences"]:
        print()
        columns = ["parameter", "value", "against", "metric", "difference", "ci_low", "ci_high", "seeds", "verdict"]
        print(*_lines(columns, results["differences"]), sep="\n")
    print(f"Run: {run.path}", flush=True)


def _lines(columns: list[str], rows: list[dict[str, Any]]) -> Iterator[str]:
    return aligned([columns, *([_written(row.get(name)) for name in columns] for row in rows)])


def _written(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
