"""`lpr-lab small-world`: the base that is trained here from scratch."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lpr_lab.cli.common import AsJson, Quiet, aligned, progress_output


def small_world_command(  # one parameter per option, because Typer reads the options from the signature
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of its training.", show_default="2,000,000")] = None,
    vocabulary: Annotated[
        int | None, typer.Option(help="Entries of its tokenizer; 257 for bytes alone.", show_default="2048")
    ] = None,
    twins: Annotated[bool, typer.Option("--twins", help="Train a twin per language, for the gate.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn, and of its name where it is not 0.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to make it in.", show_default="the cache", file_okay=False)
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Make it anew where it is there.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the base `small-world` from scratch, and say whether it is good enough to forget anything.

    A tiny model of English and Spanish, some minutes on two cores; it is
    kept, and runs take it by name: `-p base=small-world -p corpus=small-world`.
    With another seed it is another base beside it, such as `small-world-3`.
    Ctrl-C leaves a training that the same command goes on with.
    """
    from lpr_lab.experiments.small_world.make import WorldSettings, gate_of, make_small_world

    given: dict[str, Any] = {"tokens": tokens, "vocabulary": vocabulary, "twins": twins, "seed": seed}
    settings = WorldSettings(**{name: value for name, value in given.items() if value is not None})
    with progress_output(quiet):
        folder = make_small_world(settings, out, new=new)
    gate = gate_of(folder)
    if as_json:
        print(json.dumps({"base": str(folder), "gate": gate}, ensure_ascii=False))
        return
    columns = ["language", "bits_per_byte", "ngram_bits_per_byte", "below_ngram_percent", "above_twin_percent"]
    columns += ["swaps_found", "repetition", "fails"]
    rows = [[code, *(_written(row.get(name)) for name in columns[1:])] for code, row in gate["languages"].items()]
    print(*aligned([columns, *rows]), sep="\n")
    print(f"The gate {'passes' if gate['passes'] else 'does not pass'} (on {gate['split']}). Base: {folder}")


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "–"
    return "–" if value is None else f"{value:.3g}"
