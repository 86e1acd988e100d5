"""`lpr-lab bake-off`: which rule divides experts over the layers best."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lpr_lab.cli.common import AsJson, Quiet, progress_output, say


def bake_off_command(
    file: Annotated[Path, typer.Option(help="Where results are kept; what is there is not made again.")] = Path(
        "runs/bake-off.json"
    ),
    base: Annotated[str, typer.Option(help="Name, hub id or folder of the base.")] = "small-world",
    corpus: Annotated[str, typer.Option(help="As a run's.")] = "small-world",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds each arm has.")] = 3,
    show: Annotated[bool, typer.Option("--show", help="Make nothing; show what is there.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train every allocation of experts at equal parameters, and print the table of docs/allocation.md.

    One point takes about half a minute of one core in the small world. Ctrl-C
    leaves what is made; the same command makes the rest.
    """
    from lpr_lab.experiments.bake_off.arms import BakeOff
    from lpr_lab.experiments.bake_off.run import bake_off
    from lpr_lab.experiments.bake_off.table import as_markdown
    from lpr_lab.storage import read_json_object

    if show:
        found = read_json_object(file)
    else:
        settings = BakeOff(base=base, corpus=corpus, seeds=tuple(range(seeds)))
        with progress_output(quiet):
            found = bake_off(settings, file, told=say)
    print(json.dumps(found) if as_json else as_markdown(found))
