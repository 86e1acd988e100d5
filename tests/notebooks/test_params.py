"""The parameter files for a GPU: complete, accepted as strictly as what a person types, and good for settings."""

import ast
from pathlib import Path
from typing import Any

import pytest

from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.notebooks.parameters import read_notebook, resolve
from lpr_lab.experiments.studies import stages as stage_runs
from lpr_lab.experiments.studies import upcycle as upcycling
from lpr_lab.experiments.studies.upcycle import UpcyclingSettings
from lpr_lab.runs import environment
from lpr_lab.runs.run import Run

TEXT = ("corpus", "original", "expanded")
NOTEBOOKS = environment.CHECKOUT / "notebooks"
FILES = sorted((NOTEBOOKS / "params").glob("*.yaml"))


def notebook_of(path: Path) -> Path:
    return NOTEBOOKS / f"{path.name.split('.')[0]}.ipynb"


def settings_cell(source: str) -> list[ast.stmt]:
    """Return the statements of a notebook's third cell up to where it starts a run."""
    statements = ast.parse(source).body
    starts = (number for number, node in enumerate(statements) if ".start(" in ast.unparse(node))
    return statements[: next(starts)]


def upcycled(root: Path, settings: UpcyclingSettings) -> Run:
    """Begin the run that stage 1 would go on from, without a model."""
    run = upcycling.start(settings, root=root)
    run.phases.record("plan", {"new_experts": [2, 2]})
    return run


def after_stage1(root: Path, asked: dict[str, Any]) -> Run:
    """The same for stage 2."""
    begun = upcycled(root, UpcyclingSettings(base=asked["base"]))
    run = pipeline.start(recipes.stage1(begun, **{name: asked[name] for name in TEXT}), root=root)
    run.phases.record("plan", begun.phases["plan"])
    return run


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_a_parameter_file_is_accepted_and_its_settings_can_be_made(path, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_runs, "upcycled", lambda *_, settings: upcycled(tmp_path, settings))
    monkeypatch.setattr(stage_runs, "after_stage1", lambda *_, **asked: after_stage1(tmp_path, asked))
    notebook = read_notebook(notebook_of(path))
    values = resolve(notebook.parameters, file=path)
    assert values != {name: parameter.default for name, parameter in notebook.parameters.items()}
    code = ast.Module(settings_cell(notebook.code[1]), [])
    names = dict(values)
    exec(compile(code, str(path), "exec"), names)
    made = names.get("settings") or names.get("experiment")
    assert made is not None


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_a_parameter_file_says_what_it_needs_and_that_it_was_not_run_here(path):
    comments = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    assert f"lpr-lab run {notebook_of(path).stem} -f {path.stem}" in comments
    assert "Memory" in comments and "GB" in comments and "Not run" in comments


def test_the_notebooks_for_finished_and_whole_runs_have_one():
    have = {path.name.split(".")[0] for path in FILES}
    assert {"00_quickstart", "02_plan_experts", "11_lifelong"} <= have
    assert {"01_data_and_tokenizer", "03_upcycle", "04_stage1_post_pretrain", "05_stage2_review_lpr"} <= have
    assert {"06_eval_retention", "07_routing_analysis", "08_compare_generations", "09_ablation_sweep"} <= have
