"""The lifelong notebook from first cell to last, on a tiny random model and a few sentences."""

import io

import pytest

from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.lineage import members_of


@pytest.mark.notebook
@pytest.mark.parametrize("recipe", ["route_first", "moe_lpr"])
def test_the_lifelong_notebook_shows_what_every_group_kept(tmp_path, tiny_materials, recipe):
    parameters = {
        **tiny_materials(("en", "el", "tr")),
        "recipe": recipe,
        "original": ["en"],
        "groups": [["el"], ["tr"]],
        "stage1_tokens_per_language": 1024,
        "stage2_tokens": 1024,
        "eval_tokens_per_language": 512,
        "precision": "fp32",
    }
    done = run_notebook(
        notebooks_dir() / "11_lifelong.ipynb", runs_dir=tmp_path / "runs", values=parameters, output=io.StringIO()
    )
    run = done.run
    assert run.status.state == "finished" and run.kind == "lifelong"
    assert set(run.figures.read()) == {"retention_by_stage"}
    table = run.tables.read("retention_by_stage")
    reviewed = {"route_first": 0, "moe_lpr": 2}[recipe]
    assert table["stage"].nunique() == 3 + reviewed
    assert set(table["group"]) == {"G0", "G1", "G2"}
    children = [other for other in list_runs(tmp_path / "runs") if other.kind == "expansion"]
    assert {child.id for child in children} == set(members_of(run))
    assert all(claim["holds"] for claim in run.results["claims"] if claim["is_exact"])
    assert len(run.paths.notebook.read_text()) < 1_000_000
