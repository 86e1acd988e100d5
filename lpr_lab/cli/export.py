"""`lpr-lab export`: what one sends to others."""

import json
from pathlib import Path
from typing import Annotated

import typer

from lpr_lab.cli.common import AsJson, RunsDir, open_run, runs_folder
from lpr_lab.cli.completion import complete_run


def export_command(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Ids of runs, or `latest`.", autocompletion=complete_run),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The HTML file to write.")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Instead of the run's own title.")] = "",
    language: Annotated[str, typer.Option("--lang", help="Language code of that title.")] = "",
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Write runs as one HTML file that opens without a network, with charts and every token to look into."""
    from lpr_lab.experiments.runs import list_runs
    from lpr_lab.views.report import write_report

    folder = runs_folder(runs_dir)
    ids = dict.fromkeys(run_ids or ["latest"])
    runs = list({run.id: run for run in (open_run(folder, run_id) for run_id in ids)}.values())
    size = write_report(runs, output, title=title, language=language, around=list_runs(folder))
    if as_json:
        print(json.dumps({"runs": [run.id for run in runs], "path": str(output), "bytes": size}, ensure_ascii=False))
    else:
        print(f"{output}  {size / 1e6:.1f} MB")
