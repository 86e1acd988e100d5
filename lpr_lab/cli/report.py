"""`lpr-lab report`: runs as one HTML file, or as tables for a paper."""

import json
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from lpr_lab.cli.common import AsJson, RunsDir, open_runs, runs_folder, say
from lpr_lab.cli.completion import complete_run


def report_command(  # one parameter per option, because Typer reads the options from the signature
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Ids of runs, or `latest`.", autocompletion=complete_run),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The HTML file to write.", show_default="report.html")
    ] = None,
    tables: Annotated[
        Path | None,
        typer.Option("--tables", help="Write tables into this folder; without -o, no HTML.", file_okay=False),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="Format of the tables: latex (what is clearly best in bold) or csv.")
    ] = "latex",
    title: Annotated[str, typer.Option(help="Title of the report; the run's own when not given.")] = "",
    language: Annotated[str, typer.Option("--lang", help="Language code of that title.")] = "",
    own_texts: Annotated[bool, typer.Option("--own-texts", help="Include texts that readers typed and kept.")] = False,
    compare_pairs: Annotated[
        bool, typer.Option("--compare-pairs", help="Include pairs that readers kept on the page Compare.")
    ] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Write runs as one HTML file that opens without a network, with charts and every token to look into.

    Or as tables for a paper or a spreadsheet: `--tables DIR`. Several runs
    are put side by side where they were measured on the same documents. What
    people typed in the dashboard is left out unless it is asked for.
    """
    from lpr_lab.runs.find import list_runs
    from lpr_lab.views.report.page import write_report
    from lpr_lab.views.tables import write_tables

    folder = runs_folder(runs_dir)
    runs = open_runs(folder, run_ids or ["latest"])
    written = [] if tables is None else write_tables(runs, tables, form)
    if tables is None or output is not None:
        path = output or Path("report.html")
        typed = {"own_texts": own_texts, "compare_pairs": compare_pairs}
        write_report(runs, path, title=title, language=language, around=list_runs(folder), **typed)
        written.append(path)
    if as_json:
        files = [{"path": str(path), "bytes": path.stat().st_size} for path in written]
        print(json.dumps({"runs": [run.id for run in runs], "files": files}, ensure_ascii=False))
    else:
        for path in written:
            print(f"{path}  {path.stat().st_size / 1e6:.1f} MB" if path.suffix == ".html" else path)


@wraps(report_command)
def export_command(**options: Any) -> None:
    """Run `report` under its former name."""
    say("`lpr-lab export` is called `lpr-lab report` now; the next version drops the old name.")
    report_command(**options)
