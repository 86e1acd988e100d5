"""`lpr-lab runs texts`: the texts that people keep with a run, listed by group, or imported from a file of lines."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lpr_lab.cli.common import AsJson, RunsDir, open_run, runs_folder, say
from lpr_lab.cli.completion import complete_run
from lpr_lab.wording import counted


def texts_command(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or `latest`.", autocompletion=complete_run)],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="UTF-8, one text a line; without, list what is kept.")
    ] = None,
    group: Annotated[str, typer.Option(help="The group that they belong to.")] = "",
    language: Annotated[str, typer.Option("-l", "--language", help="Their language code.")] = "",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List the texts that people keep with a run, by group, or import one for each line of a file.

    The page Routing shows and traces them, and the page Compare takes them as
    the prompts of a sitting.
    """
    from lpr_lab.errors import MissingError
    from lpr_lab.runs.people.own_texts import add_texts, by_group, own_texts, read_lines

    run = open_run(runs_folder(runs_dir), run_id)
    if file is not None:
        if not file.is_file():
            raise MissingError(f"There is no file {file}.")
        texts = add_texts(run, read_lines(file.read_bytes()), group, language)
        say(f"{counted(len(texts), 'text')} imported.")
    else:
        texts = own_texts(run)
    if as_json:
        print(json.dumps([asdict(one) for one in texts], ensure_ascii=False))
        return
    for name, ones in by_group(texts).items():
        print(name or "(no group)")
        for one in ones:
            print(f"  {one.id}  {one.name}")
