"""`lpr-lab runs`: what runs there are, what they are, and keeping order among them."""

import json
from typing import Annotated

import typer

from lpr_lab.cli.common import AsJson, RunsDir, facts_of, open_run, runs_folder, say, words

app = typer.Typer(help="List and show runs.", no_args_is_help=True)


@app.command("list")
def list_command(
    kind: Annotated[str | None, typer.Option(help="Only runs of this kind.")] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first, examples last."""
    from lpr_lab.experiments.runs import list_runs

    folder = runs_folder(runs_dir)
    runs = [run for run in list_runs(folder) if kind in (None, run.kind)]
    if as_json:
        print(json.dumps([facts_of(run) for run in runs], ensure_ascii=False))
        return
    if not runs:
        say(f"No runs in {folder}. Make one: lpr-lab demo")
    width = max((len(run.id) for run in runs), default=0)
    for run in runs:
        state = "unreadable" if run.problem else "example" if run.is_example else run.status.state
        print(f"{run.id:<{width}}  {state:<11}  {run.problem or run.title}")


@app.command("show")
def show_command(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.")] = "latest",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show what a run is, where it stands and what it found."""
    from lpr_lab.experiments.yaml_files import dump_yaml

    run = open_run(runs_folder(runs_dir), run_id)
    facts = facts_of(run) | {"config": run.config, "results": run.results}
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(dump_yaml({key: value for key, value in facts.items() if key != "results" and value is not None}), end="")
    if run.results is not None:
        print(*words(run.results), sep="\n")
