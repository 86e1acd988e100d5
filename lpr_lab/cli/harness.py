"""`lpr-lab harness`: lm-evaluation-harness on the models of our runs."""

import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from typing import Annotated

import typer

from lpr_lab.cli.common import AsJson, Quiet, RunsDir, aligned, facts_of, progress_output, runs_folder
from lpr_lab.errors import MissingError

CONTEXT = {"allow_extra_args": True, "ignore_unknown_options": True}
"""What is no option of this command is one of the harness's."""


def harness_command(
    ctx: typer.Context,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Let the harness fetch data and models from the Hugging Face hub.")
    ] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a run's model on tasks of lm-evaluation-harness.

    Takes the arguments of `lm_eval run`, which `lm_eval run --help` lists,
    and one model more, which is the default: `--model_args run=ID` is a run's
    final model, `run=ID,stage=base` its base, `run=latest` the newest. Tasks
    are the harness's own by name, or files: `--tasks mine.yaml`. Nothing is
    fetched unasked. Results become a run of their own.
    """
    if find_spec("lm_eval") is None:
        raise MissingError('lm-evaluation-harness is not installed. Install it: pip install "lpr_lab[eval]"')
    from lpr_lab.experiments.harness.run import evaluate

    with progress_output(quiet) as output, redirect_stderr(output), redirect_stdout(output):
        run = evaluate(ctx.args, runs_folder(runs_dir), fetch=fetch)
    if as_json:
        print(json.dumps(facts_of(run) | {"results": run.results}, ensure_ascii=False), flush=True)
        return
    columns = ("task", "metric", "filter", "value", "stderr", "samples")
    rows = [[_written(score.get(name)) for name in columns] for score in run.results["scores"]]
    print(*aligned([columns, *rows]), sep="\n")
    print(f"Run: {run.path}", file=sys.stdout, flush=True)


def _written(value: object) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
