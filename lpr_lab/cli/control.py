"""`lpr-lab control`: runs that tell forgetting from adaptation to a kind of text."""

import json
from typing import Annotated, Any

import typer

from lpr_lab.cli.common import AsJson, Quiet, RunsDir, aligned, facts_of, open_runs, progress_output, runs_folder
from lpr_lab.cli.completion import complete_run

app = typer.Typer(
    help="Make the controls without which a fall or rise on original languages says little.", no_args_is_help=True
)
Dataset = Annotated[str, typer.Option("--data", help="Test sets: heldout or dev.", show_default="heldout, or else dev")]


@app.command("old-only")
def old_only_command(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id, or `latest`.", autocompletion=complete_run)],
    dataset: Dataset = "",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a run's old-only arm, and print its excess forgetting.

    The arm has the same base, method, schedule and tokens, and reads original
    languages alone. What the run loses beyond it is excess forgetting, in
    points, with a 95 % interval paired over documents.
    """
    from lpr_lab.experiments.controls.arms import make_old_only
    from lpr_lab.runs.compare.control_runs import excess_forgetting, forgotten_on

    (run,) = open_runs(runs_folder(runs_dir), [run_id])
    dataset = forgotten_on(run, dataset)
    with progress_output(quiet):
        control = make_old_only(run)
    table = excess_forgetting(run, control, dataset)
    if as_json:
        from lpr_lab.runs.formats import json_records

        print(json.dumps(facts_of(control) | {"excess_forgetting": json_records(table)}, ensure_ascii=False))
        return
    columns = ["language", "change_percent", "control_percent", "excess", "ci_low", "ci_high", "verdict"]
    print(
        *aligned([columns, *([_written(row[name]) for name in columns] for row in table.to_dict("records"))]), sep="\n"
    )
    print(f"Run: {control.path}")


@app.command("raw-base")
def raw_base_command(
    base: Annotated[str, typer.Option(help="Name, hub id or folder of the base.")] = "smollm2-135m",
    corpus: Annotated[str, typer.Option(help="Text in its original languages.")] = "demo",
    language: Annotated[
        list[str] | None, typer.Option("-l", "--language", help="Original language; repeatable.", show_default="en, es")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of 20,480 tokens, at most.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the order of texts.")] = 0,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a base to raw text in its original languages, for runs to start from.

    All weights learn, until a round makes dev text less than 0.3 % cheaper.
    Runs that start from it (`-p base=FOLDER`) meet no new kind of text, so a
    fall on original languages isn't adaptation.
    """
    from lpr_lab.experiments.controls.arms import MODEL, raw_base

    with progress_output(quiet):
        run = raw_base(base, corpus, language or ("en", "es"), rounds=rounds, seed=seed, root=runs_folder(runs_dir))
    if as_json:
        print(json.dumps(facts_of(run) | {"results": run.results}, ensure_ascii=False))
        return
    columns = ["round", "tokens", "bits_per_byte", "gain_percent"]
    print(*aligned([columns, *([_written(row[name]) for name in columns] for row in run.results["rounds"])]), sep="\n")
    print(f"Base: {run.path / MODEL}")


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "–"
    return "–" if value is None else str(value)
