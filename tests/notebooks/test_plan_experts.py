"""The planning notebook from first cell to last, on a tiny random model and a few sentences."""

import io

import pytest

from lpr_lab.experiments import recipes
from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.method.upcycle import upcycle


@pytest.fixture
def tiny_parameters(tiny_materials):
    """Parameters for a model and texts small enough for a test."""
    return {
        **tiny_materials(("en", "el", "tr"), num_layers=3, per_split=8),
        "original": ["en"],
        "expanded": ["el", "tr"],
        "budget": 7,
        "classifiers": 1,
        "tokens_per_language": 200,
        "precision": "fp32",
    }


@pytest.mark.notebook
@pytest.mark.parametrize("choice", [{}, {"allocation": "last", "min_new": 1}, {"rule": "round_up", "budget": 9}])
def test_the_planning_notebook_leaves_a_plan_that_a_recipe_takes(tmp_path, tiny_parameters, tiny_model, choice):
    done = run_notebook(
        notebooks_dir() / "02_plan_experts.ipynb",
        runs_dir=tmp_path / "runs",
        values=tiny_parameters | choice,
        output=io.StringIO(),
    )
    run = done.run
    assert run.status.state == "finished" and run.kind == "plan"
    assert run.documents.plan is not None
    counts = tuple(run.documents.plan["allocation"])
    assert sum(counts) == 7 or choice.get("rule") == "round_up"
    assert {"similarity", "allocations", "layers"} == set(run.tables.names())
    table = run.tables.read("similarity")
    assert list(table.columns) == ["layer", "language_a", "language_b", "roles", "similarity"]
    assert set(run.figures.read()) == {"plan"}
    assert len(run.paths.notebook.read_text()) < 1_000_000
    experiment = recipes.layer_moe(**run.documents.plan)
    assert experiment.allocation == counts and experiment.classifiers == 1
    assert upcycle(tiny_model("llama", num_layers=3), experiment.allocation).config is not None
