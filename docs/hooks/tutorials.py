"""Notebooks as pages: their text and code, and the figures that the committed example run of them has.

Notebooks are committed without outputs. Where `runs/examples` holds a run of one, its figures, its token strips and its
result in words are shown below the cells that make them, so a reader sees what a real run gave; nothing is executed.
"""

import ast
import json
import re
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from places import ROOT

from lpr_lab.experiments.notebooks.html import drawn
from lpr_lab.runs.run import Run
from lpr_lab.runs.summary import summary_lines
from lpr_lab.views.html.tokens import render_token_strip


def page(path: Path) -> str:
    """Return a notebook as Markdown."""
    book = nbformat.read(path, as_version=4)
    run = example_of(path)
    parts = []
    for number, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            if number == 0:
                parts.append(_introduction(path, run))
        else:
            parts.append(f"```python\n{cell.source}\n```")
            if run is not None:
                parts += _outputs(cell.source, run)
    return "\n\n".join(parts) + "\n"


def example_of(notebook: Path) -> Run | None:
    """Return the committed run of a notebook, or None."""
    stem = notebook.stem.lstrip("0123456789_-")
    runs = [Run(path) for path in sorted((ROOT / "runs" / "examples").iterdir()) if (path / "run.json").is_file()]
    return next((run for run in runs if run.documents.config_input.get("notebook") == stem), None)


def plotly_js() -> str:
    """Return the script that draws figures, from the installed package."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _introduction(path: Path, run: Run | None) -> str:
    command = f"Run it: `lpr-lab run notebooks/{path.name}`, or open it in JupyterLab."
    if run is None:
        return f'!!! note ""\n    {command}'
    shown = f"The figures on this page are those of `runs/examples/{run.id}`, made on {run.created[:10]}."
    return f'!!! note ""\n    {command} {shown}\n\n<script src="../assets/plotly.min.js"></script>'


def _outputs(source: str, run: Run) -> list[str]:
    """Return what the example run has to show below one cell."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = {ast.unparse(node.func): node for node in calls}
    shown = []
    for node in calls:
        if ast.unparse(node.func) == "show" and isinstance(node.args[-1], ast.Constant):
            name = str(node.args[-1].value)
            figure = run.path / "figures" / f"{name}.json"
            if figure.is_file():
                shown.append(_figure(json.loads(figure.read_text(encoding="utf-8")), f"figure-{name}"))
    if "show_token_strip" in named:
        expanded, original = run.config["expanded"], run.config["original"]
        for language in (expanded[0], original[0]):
            if language in run.traces.names():
                shown.append(f"<div>{_one_line(render_token_strip(run.traces.read(language), standalone=True))}</div>")
    if "summary_lines" in named and run.results:
        shown.append("\n".join(f"> {line}\n>" for line in summary_lines(run.results, run.phases.seconds)))
    return shown


def _figure(figure: dict[str, Any], name: str) -> str:
    """Return a figure with its finding above it as text, which wraps where a title in the figure would be cut off."""
    title = figure["layout"].get("title", {}).get("text") or ""
    html = drawn(figure, name, title=False)
    return f'<figure class="lpr-figure"><figcaption>{escape(title)}</figcaption>{_one_line(html)}</figure>'


def _one_line(html: str) -> str:
    """Markdown ends a block of HTML at an empty line; there are none in this."""
    return re.sub(r"\n\s*", "\n", html).strip()
