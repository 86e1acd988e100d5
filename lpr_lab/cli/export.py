"""`lpr-lab export`: what one sends to others."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lpr_lab.cli.common import AsJson, RunsDir, open_runs, runs_folder
from lpr_lab.cli.completion import complete_run


def export_command(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Ids of runs, or `latest`.", autocompletion=complete_run),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The HTML file to write.", show_default="report.html")
    ] = None,
    tables: Annotated[
        Path | None, typer.Option("--tables", help="A folder for tables; without -o, only these.", file_okay=False)
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="Of tables: latex, with what is clearly best in bold, or csv.")
    ] = "latex",
    title: Annotated[str, typer.Option(help="Instead of the run's own title.")] = "",
    language: Annotated[str, typer.Option("--lang", help="Language code of that title.")] = "",
    own_texts: Annotated[bool, typer.Option("--own-texts", help="Also texts that readers typed and kept.")] = False,
    compare_pairs: Annotated[
        bool, typer.Option("--compare-pairs", help="Also pairs that readers kept on the page Compare.")
    ] = False,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Write runs as one HTML file that opens without a network, with charts and every token to look into.

    Or as tables for a paper or a spreadsheet: `--tables DIR`. Several runs
    are put side by side where they were measured on the same documents. What
    people typed in the dashboard is left out unless it is asked for.
    """
    from lpr_lab.runs.run import list_runs
    from lpr_lab.views.report.page import write_report
    from lpr_lab.views.tables import write_tables

    folder = runs_folder(runs_dir)
    runs = open_runs(folder, run_ids or ["latest"])
    written = []
    if tables is not None:
        written += write_tables(runs, tables, form)
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
