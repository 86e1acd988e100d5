"""`lpr-lab languages`: what each language gains and costs when it alone is taught; shown, made, saved."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lpr_lab.cli.common import AsJson, Quiet, RunsDir, aligned, progress_output, runs_folder, say, unpack_runs

app = typer.Typer(
    help="Teach a base one language at a time: what each gains and costs, by script, fertility and similarity.",
    invoke_without_command=True,
)
Base = Annotated[str, typer.Option(help="Name, hub id or folder of the base.")]
DEFAULT = "smollm2-135m"


@app.callback()
def show_default(ctx: typer.Context) -> None:
    """Compare languages; without a command, show the table of SmolLM2."""
    if ctx.invoked_subcommand is None:
        show_command()


@app.command("show")
def show_command(base: Base = DEFAULT, runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """Print the table: of the runs in the folder, or where there are none the one that came with the code."""
    from lpr_lab.experiments.each_language.table import language_table

    table, source = language_table(base, runs_folder(runs_dir))
    if as_json:
        print(json.dumps(table | {"source": source}, ensure_ascii=False))
        return
    _print(table)
    print(f"From {source}.")


@app.command("run")
def run_command(
    languages: Annotated[
        list[str] | None, typer.Argument(help="Codes; all that there is text in when none is given.")
    ] = None,
    base: Base = DEFAULT,
    seeds: Annotated[int, typer.Option("-n", "--seeds", min=1, help="Runs of each language.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made, and how long.")] = False,
    runs_dir: RunsDir = None,
    quiet: Quiet = False,
) -> None:
    """Train one run per language with the same recipe and budget, where it is missing, and print the table.

    Ctrl-C stops; the same command goes on.
    """
    from lpr_lab.experiments.each_language.make import make_languages
    from lpr_lab.experiments.each_language.plan import languages_of
    from lpr_lab.experiments.each_language.table import build_table
    from lpr_lab.text.languages import get_languages

    codes = [language.code for language in get_languages(languages)] if languages else languages_of(base)
    root = runs_folder(runs_dir)
    with progress_output(quiet):
        failed = make_languages(base, codes, root, seeds=seeds, say=_silent if quiet else say, dry_run=dry_run)
    if dry_run:
        return
    _print(build_table(base, root))
    for code, why in failed.items():
        say(f"Not made: {code}: {why}")
    if failed:
        raise typer.Exit(1)


@app.command("save")
def save_command(
    base: Base = DEFAULT,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write to.", show_default="the package's own", file_okay=False),
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write the table of the runs in the folder as a small JSON file, and beside it those runs without weights."""
    from lpr_lab.errors import MissingError
    from lpr_lab.experiments.each_language.table import RESULTS, build_table, find_languages, save_table
    from lpr_lab.runs.find import list_runs
    from lpr_lab.runs.scorecard.kept_runs import packed

    root = runs_folder(runs_dir)
    runs = [run for own in find_languages(base, list_runs(root)).values() for run in own.values()]
    if not runs:
        raise MissingError(f"{root} has no run of this table. Make them: lpr-lab languages run --base {base}")
    with packed(runs, base, out or RESULTS) as (archive, kept):
        print(save_table(build_table(base, kept), out or RESULTS))
    print(archive)


@app.command("unpack")
def unpack_command(base: Base = DEFAULT, runs_dir: RunsDir = None) -> None:
    """Put the runs that came with a saved table into the folder, without weights, to look at or to add others to."""
    from lpr_lab.experiments.each_language.table import RESULTS

    unpack_runs(base, runs_dir, RESULTS)


def _print(table: Mapping[str, Any]) -> None:
    originals = ", ".join(table["original"])
    budget = f"{table['tokens']:,} tokens of one language each, by {table['recipe']}"
    print(f"{table['base']}, {budget}; original: {originals}.\n")
    head = ["", "language", "script", "gain", "95 %", "cost", "95 %", "expert 0", "tokens/byte", "similarity", "seeds"]
    rows = [head]
    for row in sorted(table["rows"], key=lambda row: row["gain"]["value"] if "gain" in row else 0.0):
        rows.append(
            [row["language"], row["name"], row["script"]]
            + [text for name in ("gain", "cost") for text in (_number(row.get(name)), _interval(row.get(name)))]
            + [_number(row.get("weight"), ".2f"), _plain(row["tokens_per_byte"]), _plain(row["similarity"])]
            + [str(row["seeds"])]
        )
    print(*aligned(rows), sep="\n")
    if table["relations"]:
        print("\nRank correlation over languages:")
        rows = [["of", "with", "r", "95 %", "languages"]]
        for one in table["relations"]:
            rows.append([one["of"], one["with"].replace("_", " "), _number(one), _interval(one), str(one["languages"])])
        print(*aligned(rows), sep="\n")


def _number(of: Mapping[str, Any] | None, form: str = "+.2f") -> str:
    return "–" if of is None or of["value"] is None else format(of["value"], form)


def _interval(of: Mapping[str, Any] | None) -> str:
    return "–" if of is None or of["low"] is None else f"{of['low']:+.2f} to {of['high']:+.2f}"


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _silent(text: str) -> None:
    """Say nothing."""
