import pytest

from helpers.small_notebook import write_notebook
from lpr_lab.errors import UsageError
from lpr_lab.experiments.notebooks.parameters import read_notebook
from lpr_lab.experiments.sweep.grid import grid_from_text, points


@pytest.fixture
def notebook(tmp_path):
    return read_notebook(write_notebook(tmp_path))


def test_a_grid_is_every_combination_with_the_last_parameter_fastest(notebook):
    found = points(notebook, {"rate": [1, 2.5], "seed": [0, 1]}, {"languages": ["no"]}, max_runs=4)
    assert [point.label for point in found] == [
        "rate=1.0, seed=0",
        "rate=1.0, seed=1",
        "rate=2.5, seed=0",
        "rate=2.5, seed=1",
    ]
    assert found[2].parameters == {"rate": 2.5, "mode": "plain", "seed": 0, "languages": ["no"]}


@pytest.mark.parametrize(
    ("grid", "fixed", "says"),
    [
        ({}, {}, "at least one parameter"),
        ({"rat": [1]}, {}, "mean 'rate'"),
        ({"rate": ["fast"]}, {}, "rate .*number.* 'fast'"),
        ({"rate": []}, {}, "at least one value"),
        ({"rate": 0.5}, {}, "are a list"),
        ({"rate": [1, 1.0]}, {}, "rate = 1.0 twice"),
        ({"seed": [0, 1]}, {"seed": 2}, "varied by the grid"),
        ({"run_dir": ["x"]}, {}, "set by the sweep"),
        ({"seed": [0]}, {"run_dir": "x"}, "set by the sweep"),
        ({"seed": [0]}, {"mood": "x"}, "mean 'mode'"),
        ({"languages": ["el", "hu"]}, {}, "languages is a list"),
        ({"seed": [0, 1, 2], "rate": [1, 2]}, {}, r"6 points \(3 x 2\); at most 5"),
    ],
)
def test_a_wrong_grid_is_refused_with_the_reason(notebook, grid, fixed, says):
    with pytest.raises(UsageError, match=says):
        points(notebook, grid, fixed, max_runs=5)


def test_a_notebook_that_cannot_be_told_its_run_directory_is_refused(tmp_path):
    notebook = read_notebook(write_notebook(tmp_path, parameters="a = 1"))
    with pytest.raises(UsageError, match="no parameter `run_dir"):
        points(notebook, {"a": [1]}, {}, max_runs=5)


def test_a_typed_grid_means_what_the_declared_types_say(notebook, tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("seed: [0, 1, 2]\nmode: [no, nan]\n")
    typed = ["rate=1, 1e-3", 'languages=[["el"], ["hu", "tr"]]', "seed=7"]
    assert grid_from_text(notebook.parameters, typed, file) == {
        "seed": [7],
        "mode": ["no", "nan"],
        "rate": [1.0, 0.001],
        "languages": [["el"], ["hu", "tr"]],
    }
    assert grid_from_text(notebook.parameters, ['mode=["a,b", "c"]']) == {"mode": ["a,b", "c"]}


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("rate", "is not name=v1,v2"),
        ("rate=1,x", "rate is a number"),
        ("rates=1", "mean 'rate'"),
        ("languages=[el]", "not a JSON list"),
        ('languages=["el", "hu"]', "a list of lists"),
    ],
)
def test_a_grid_that_was_typed_wrong_is_refused_with_the_way_to_write_it(notebook, typed, says):
    with pytest.raises(UsageError, match=says):
        grid_from_text(notebook.parameters, [typed])
