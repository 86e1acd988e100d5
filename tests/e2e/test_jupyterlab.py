"""A notebook in the real JupyterLab: opened, run from its menu, and its figures seen, with nothing from elsewhere."""

import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from playwright.sync_api import Browser, Page, expect

from helpers.tiny_notebooks import write_materials
from lpr_lab.experiments.notebooks.run import notebooks_dir
from lpr_lab.runs import environment

PATIENCE_SECONDS = 180
FIGURE = ".js-plotly-plot .main-svg"


@pytest.fixture
def workspace(tmp_path, tiny_model, tiny_tokenizer, sentences) -> Path:
    """Make a folder with the planning notebook, told to work on a tiny model and a few sentences."""
    model = tiny_model("llama", num_layers=3)
    materials = write_materials(tmp_path, model, tiny_tokenizer, sentences, ("en", "el", "tr"), per_split=8)
    small = {"original": ["en"], "expanded": ["el", "tr"], "budget": 7, "classifiers": 1, "tokens_per_language": 200}
    book = load_notebook_node(str(notebooks_dir() / "02_plan_experts.ipynb"))
    book = parameterize_notebook(book, materials | small | {"precision": "fp32"})
    nbformat.write(book, tmp_path / "plan.ipynb")
    return tmp_path


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Serve a folder in a JupyterLab of its own, on this machine only; yields the address of one of its files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {f"JUPYTER_{name}_DIR": str(folder / ".jupyter" / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    options = [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--ServerApp.port_retries=0"]
    quiet = ["--LabApp.extension_manager=readonly", "--LabApp.news_url=", "--LabApp.log_level=WARN"]
    updates = ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    paths = {
        "PYTHONPATH": str(environment.CHECKOUT),
        "LPR_LAB_RUNS": str(folder / "runs"),
        "IPYTHONDIR": str(folder / ".jupyter"),
    }
    with (folder / "jupyterlab.log").open("w") as log:
        environ = {**os.environ, **own, **paths}
        server = subprocess.Popen([*command, *options, *quiet, *updates], stdout=log, stderr=log, env=environ)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, folder / "jupyterlab.log")
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer:\n{log.read_text()}")


def _run_all(page: Page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()


def _wait_until_saved_with_outputs(page: Page, path: Path) -> nbformat.NotebookNode:
    """Save until every code cell on disk was executed, or one has failed; returns the notebook."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1000)
        book = nbformat.read(path, as_version=4)
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        errors = [output for cell in code for output in cell.outputs if output.output_type == "error"]
        assert not errors, "\n".join(errors[0].traceback)
        if all(cell.execution_count for cell in code) and code[-1].outputs:
            return book
    raise AssertionError("the last cell was not reached in time")


@pytest.mark.e2e
def test_a_notebook_run_in_jupyterlab_shows_its_figures(browser: Browser, workspace):
    elsewhere = []
    with jupyterlab(workspace) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("request", lambda request: elsewhere.append(request.url) if "127.0.0.1" not in request.url else None)
        page.goto(address.format("plan.ipynb"))
        expect(page.locator(".jp-Notebook .jp-CodeCell").first).to_be_visible(timeout=60_000)
        page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-editor").first.click()
        _run_all(page)
        book = _wait_until_saved_with_outputs(page, workspace / "plan.ipynb")
        drawn = [output for cell in book.cells for output in cell.get("outputs", []) if "vnd.plotly" in str(output)]
        assert len(drawn) == 1 and (workspace / "plan.ipynb").stat().st_size < 1_000_000
        figure = page.locator(FIGURE).first
        figure.scroll_into_view_if_needed()
        expect(figure).to_be_visible()
        box = figure.bounding_box()
        assert box is not None and box["width"] > 300 and box["height"] > 200
        assert page.locator(".jp-Notebook .jp-RenderedPlotly, .jp-Notebook .js-plotly-plot").count() >= 1
        assert page.locator(".js-plotly-plot .bars path, .js-plotly-plot .scatterlayer path").count() > 3
        page.screenshot(path=str(workspace / "jupyterlab.png"))
        context.close()
    assert not [url for url in elsewhere if not url.startswith(("data:", "blob:"))]
