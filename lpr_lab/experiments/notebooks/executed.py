"""The executed copy of a notebook that a run keeps: without finished progress bars and paths of this machine."""

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lpr_lab.errors import LprError
from lpr_lab.runs.run import Run
from lpr_lab.storage import fsync, read_json, write_json

_FULL_BAR = re.compile(r".*100%\|.*\[.*\]\s*$")
_BAR = re.compile(r".*\d%\|.*\[.*\]\s*$|\[[\w.-]+\] \w+ \.\.\.$")
"""A progress bar of tqdm in any state, or the line that says which phase begins."""
_LIVE = 'class="lpr-live"'


def keep_copy(partial: Path, target: Path) -> None:
    """Move the executed copy into place, without finished progress bars and without paths of this machine."""
    if not partial.exists():
        return
    try:
        content = read_json(partial)
    except LprError:
        return  # cut short by a full disk; what there is stays under the staging name
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = list(_without_progress(cell["outputs"]))
    for key in ("input_path", "output_path"):
        content["metadata"].get("papermill", {}).pop(key, None)
    write_json(partial, content)
    os.replace(partial, target)
    fsync(target.parent)
    _trust(target)


def _trust(notebook: Path) -> None:
    """Sign a notebook that was executed here, as Jupyter does with one that it executes.

    JupyterLab takes styles and scripts out of the outputs of a notebook that nobody signed. Signatures are kept in the
    user's data folder of Jupyter; where that cannot be written, the notebook is one of another machine.
    """
    import nbformat
    from nbformat.sign import NotebookNotary

    with suppress(OSError, sqlite3.Error):
        NotebookNotary().sign(nbformat.read(notebook, as_version=nbformat.NO_CONVERT))


def _without_progress(outputs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a cell's outputs without finished progress bars, and with the last state of the others.

    Below a live display, which says the same, nothing of the progress is left; all of it is in the run's log.
    """
    outputs = list(outputs)
    is_followed = any(_LIVE in "".join(output.get("data", {}).get("text/html", "")) for output in outputs)
    for output in outputs:
        if output["output_type"] != "stream":
            yield output
            continue
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in "".join(output["text"]).split("\n")]
        kept = [line for line in lines if not (_BAR if is_followed else _FULL_BAR).match(line)]
        if any(line.strip() for line in kept):
            yield output | {"text": "\n".join(kept)}


def executed_code(run: Run) -> tuple[str, ...]:
    """Return the code cells of the executed copy, without the parameters that were put in."""
    try:
        cells = read_json(run.paths.notebook)["cells"]
        return tuple(
            "".join(cell["source"])
            for cell in cells
            if cell["cell_type"] == "code" and "injected-parameters" not in cell["metadata"].get("tags", [])
        )
    except (LprError, KeyError, TypeError):
        return ()  # no copy, or not one of ours: then nothing can be said
