"""What holds for every notebook of the project, without running one."""

import ast
import json
from pathlib import Path

import nbformat
import pytest

from lpr_lab.experiments import recipes
from lpr_lab.experiments.notebooks.parameters import read_notebook
from lpr_lab.experiments.studies import plan as planning
from lpr_lab.runs import environment

NOTEBOOKS = sorted((environment.CHECKOUT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def path(request) -> Path:
    return request.param


def test_it_asks_a_question_then_has_its_parameters_then_starts_a_run(path):
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ") and "?" in cells[0].source
    assert cells[1].metadata.get("tags") == ["parameters"]
    assert "run = " in cells[2].source
    last = "".join(cell.source for cell in cells[-2:])
    assert "show_claims(" in last or "assert " in last


def test_every_parameter_is_a_literal_with_a_comment_and_run_dir_is_one(path):
    parameters = read_notebook(path).parameters
    assert parameters["run_dir"].default == ""
    assert [name for name, parameter in parameters.items() if not parameter.help] == []


def test_it_is_committed_without_outputs_for_the_python3_kernel(path):
    book = json.loads(path.read_text())
    nbformat.validate(book)
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert all(cell["id"] for cell in book["cells"])
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


def test_logic_lives_in_the_package(path):
    code = read_notebook(path).code
    assert len(code) <= 15
    for source in code:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 5, f"{node.name} is long; it belongs in lpr_lab"


def test_the_plan_as_it_comes_has_the_settings_as_they_come():
    """Else its last cell would not check what its text claims."""
    notebook = read_notebook(environment.CHECKOUT / "notebooks" / "02_plan_experts.ipynb")
    names = {name: parameter.default for name, parameter in notebook.parameters.items()}
    (made,) = (node for node in ast.parse(notebook.code[1]).body if ast.unparse(node).startswith("settings = "))
    names["planning"] = planning
    exec(compile(ast.Module([made], []), "start", "exec"), names)
    assert names["settings"] == planning.PlanSettings()


def test_the_quickstart_as_it_comes_is_the_recipe_as_it_comes():
    """Else its last cell would not check what its text claims."""
    notebook = read_notebook(environment.CHECKOUT / "notebooks" / "00_quickstart.ipynb")
    names = {name: parameter.default for name, parameter in notebook.parameters.items()}
    wanted = ("parameters", "experiment")
    statements = [
        node
        for node in ast.parse(notebook.code[1]).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in wanted
    ]
    assert len(statements) == len(wanted)
    names |= {"lab": type("lab", (), {"recipes": recipes})}
    exec(compile(ast.Module(statements, []), "start", "exec"), names)
    assert names["experiment"] == recipes.route_first()
