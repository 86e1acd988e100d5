"""`lpr-lab import-routing`: the routing of a served model, in the run whose export was served."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lpr_lab.cli.common import AsJson, Quiet, RunsDir, facts_of, open_runs, progress_output, runs_folder
from lpr_lab.cli.completion import complete_run
from lpr_lab.errors import UsageError


def import_routing_command(  # one parameter per option, because Typer reads the options from the signature
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="Id, or `latest`.", autocompletion=complete_run)],
    file: Annotated[Path, typer.Argument(help="A .npy of vLLM, .json of SGLang, or .csv of llama.cpp.")],
    text: Annotated[str | None, typer.Option(help="Prompt and continuation together.")] = None,
    text_file: Annotated[Path | None, typer.Option(help="A file that holds them.", dir_okay=False)] = None,
    language: Annotated[str | None, typer.Option("-l", "--language", help="Its language code.")] = None,
    separator: Annotated[bool, typer.Option(help="Whether the separator token of training stood before it.")] = True,
    name: Annotated[str, typer.Option(help="What to call it.", show_default="the file's name")] = "",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show on the page Routing where a served model sent each token of a text.

    The file is vLLM's `routed_experts` (numpy.save), an answer of SGLang with
    `return_routed_experts`, or the CSV of llama.cpp's `moe-trace`. The text is
    kept with the run beside our own trace of it, and how often both chose the
    same experts is printed.
    """
    if (text is None) == (text_file is None):
        raise UsageError("Give the text that was served: either --text or --text-file.")
    if text_file is not None:
        if not text_file.is_file():
            raise UsageError(f"There is no file {text_file}.")
        text = text_file.read_text(encoding="utf-8")
    from lpr_lab.experiments.studies.served import import_routing

    (run,) = open_runs(runs_folder(runs_dir), [run_id])
    with progress_output(quiet):
        found = import_routing(run, file, text or "", language, separator=separator, name=name)
    address = f"/routing?run={run.id}&text={found.text_id}"
    if as_json:
        facts = {"text": found.text_id, "same_choices": found.same_choices, "same_first": found.same_first}
        print(json.dumps(facts_of(run) | facts | {"address": address}, ensure_ascii=False))
        return
    tokens, layers = found.trace.num_tokens, len(found.trace.layers)
    print(
        f"{tokens} tokens in {layers} layers: the same experts as here in {found.same_choices:.1%}, the same first one "
        f"in {found.same_first:.1%}."
    )
    print(f"Look at it: lpr-lab app, then {address}")
