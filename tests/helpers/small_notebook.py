"""A notebook that does next to nothing, for tests of what runs notebooks. A kernel costs two seconds."""

from pathlib import Path

import nbformat

PARAMETERS = 'rate = 0.1\nmode = "plain"\nseed = 0\nlanguages = ["el"]\nrun_dir = ""  # set by lpr-lab run'
START = """
from lpr_lab.runs.find import start_run
run = start_run({"rate": rate, "seed": seed}, kind="small", slug="x", title="x", run_dir=run_dir)
"""


def write_notebook(folder: Path, *cells: str, parameters: str = PARAMETERS, start: str = START) -> Path:
    """Write `05_small.ipynb` into a folder: its parameters, a start of its run, and the given cells."""
    kernel = {"name": "python3", "display_name": "x", "language": "python"}
    book = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    book.cells = [nbformat.v4.new_markdown_cell("# A small notebook"), nbformat.v4.new_code_cell(parameters)]
    book.cells[1].metadata["tags"] = ["parameters"]
    book.cells += [nbformat.v4.new_code_cell(cell) for cell in (start, *cells)]
    folder.mkdir(exist_ok=True)
    nbformat.write(book, folder / "05_small.ipynb")
    return folder / "05_small.ipynb"
