"""The sweep notebook from first cell to last, over a notebook that does next to nothing."""

import ast
import io

import pytest

from helpers.small_notebook import write_notebook
from lpr_lab.experiments.notebooks.parameters import read_notebook
from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.experiments.sweep import run as sweep
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.lineage import children_of


@pytest.mark.notebook
def test_the_sweep_notebook_shows_what_differs_beyond_its_seeds(tmp_path):
    child = write_notebook(tmp_path, "run.finish({'loss': rate + seed / 100, 'size': 5})")
    done = run_notebook(
        notebooks_dir() / "09_ablation_sweep.ipynb",
        runs_dir=tmp_path / "runs",
        values={
            "notebook": str(child),
            "grid": {"rate": [0.1, 0.5], "seed": [0, 1]},
            "fixed": {"mode": "other"},
            "metrics": [],
            "jobs": 2,
        },
        output=io.StringIO(),
    )
    run = done.run
    assert run.status.state == "finished" and run.kind == "sweep"
    assert set(run.figures.read()) == {"settings"}
    assert {"summary", "by_setting", "differences"} == set(run.tables.names())
    assert len(children_of(run, list_runs(tmp_path / "runs"))) == 4
    assert run.figures.read()["settings"]["layout"]["title"]["text"].startswith("rate moves loss (over 2 seeds)")
    copy = run.paths.notebook.read_text()
    assert len(copy) < 1_000_000 and "application/vnd.plotly.v1+json" in copy


def test_the_notebook_as_it_comes_is_the_sweep_that_its_last_cell_is_about():
    notebook = read_notebook(notebooks_dir() / "09_ablation_sweep.ipynb")
    names = {name: parameter.default for name, parameter in notebook.parameters.items()}
    (made,) = (
        node
        for node in ast.parse(notebook.code[1]).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "settings"
    )
    names["sweep"] = sweep
    exec(compile(ast.Module([made], []), "start", "exec"), names)
    assert names["settings"].to_config() == sweep.recipes_compared().to_config()
    _, points = names["settings"].plan()
    assert len(points) == 4
