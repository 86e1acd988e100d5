import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.errors import DamagedError, MissingError, UsageError
from lpr_lab.experiments.notebooks.parameters import declared_parameters, read_notebook, resolve
from lpr_lab.runs.environment import CHECKOUT

CELL = '''"""What can be set."""
language = "el"  # a language code
tokens = 61440  # tokens of stage 1
rate = 3e-4
shuffle = True
expanded = ["el", "hu"]
weights = {"el": 0.5}
minutes: float | None = None  # a wall-clock cap
mix: list[float] = [0.5, 0.5]
'''
DECLARED = declared_parameters(CELL, "test")


def test_types_defaults_and_help_are_read_without_running_anything():
    assert [parameter.type for parameter in DECLARED.values()] == [
        "str",
        "int",
        "float",
        "bool",
        "list",
        "dict",
        "float",
        "list",
    ]
    assert DECLARED["tokens"].default == 61440
    assert DECLARED["tokens"].help == "tokens of stage 1"
    assert DECLARED["minutes"].optional and not DECLARED["tokens"].optional


@pytest.mark.parametrize(
    "text", ["nan", "no", "12e4567", "true", "null", "1", "", "a=b", "x\nimport os", "None", "[1]"]
)
def test_text_stays_text(text):
    assert resolve(DECLARED, [f"language={text}"])["language"] == text


@given(st.text())
def test_any_text_stays_text(text):
    assert resolve(DECLARED, [f"language={text}"])["language"] == text


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("tokens=1_000", 1000),
        ("tokens=-5", -5),
        ("rate=1", 1.0),
        ("rate=1e-3", 1e-3),
        ("rate=.5", 0.5),
        ("shuffle=False", False),
        ("minutes=None", None),
        ("minutes=1.5", 1.5),
        ('expanded=["no", "nan"]', ["no", "nan"]),
        ("expanded=[]", []),
        ('weights={"no": 1}', {"no": 1}),
        ("mix=[1, 0.5]", [1.0, 0.5]),
    ],
)
def test_what_is_typed_is_cast_by_the_declared_type(assignment, value):
    name = assignment.partition("=")[0]
    got = resolve(DECLARED, [assignment])[name]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    "assignment",
    [
        "tokens=1.5",
        "tokens=1e3",
        "tokens=many",
        "tokens=None",
        "rate=nan",
        "rate=inf",
        "rate=1e999",
        "shuffle=1",
        "shuffle=yes",
        "expanded=el,hu",
        "expanded=[1]",
        'expanded={"a": 1}',
        "expanded=" + "[" * 5000,
        "weights=[1]",
        'mix=["a"]',
    ],
)
def test_what_does_not_fit_is_refused_with_the_name_and_the_type(assignment):
    with pytest.raises(UsageError, match=assignment.partition("=")[0]) as caught:
        resolve(DECLARED, [assignment])
    assert caught.value.exit_code == 2


def test_an_unknown_name_is_refused_with_the_closest_one():
    with pytest.raises(UsageError, match=r"'token'.* mean 'tokens'.* language, tokens"):
        resolve(DECLARED, ["token=5"])
    with pytest.raises(UsageError, match="no parameter 'x = 1"):
        resolve(DECLARED, values={'x = 1\nimport os; os.system("id")\ny': 2})
    with pytest.raises(UsageError, match="not name=value"):
        resolve(DECLARED, ["tokens"])


def test_a_file_is_overridden_by_what_is_typed(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("expanded: [el, no]\nrate: 1e-3\ntokens: 5\nlanguage: nan\nminutes: ~\n")
    resolved = resolve(DECLARED, ["tokens=6"], file)
    assert resolved["expanded"] == ["el", "no"]
    assert (resolved["rate"], resolved["tokens"], resolved["language"], resolved["minutes"]) == (1e-3, 6, "nan", None)
    file.write_text(json.dumps({"expanded": ["no"]}))
    assert resolve(DECLARED, [], file)["expanded"] == ["no"]


@pytest.mark.parametrize(
    "line", ["language: 1e5", "language: true", "tokens: '5'", "shuffle: 1", "expanded: el", "- a"]
)
def test_a_file_with_a_value_of_another_type_is_refused(tmp_path, line):
    file = tmp_path / "params.yaml"
    file.write_text(line)
    with pytest.raises(UsageError):
        resolve(DECLARED, [], file)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("a = 1\nb = a * 2", "computed, not a literal"),
        ("a = open('x')", "computed, not a literal"),
        ("import os", "not `name = literal`"),
        ("a = b = 1", "not `name = literal`"),
        ("a.b = 1", "not `name = literal`"),
        ("a: int", "not `name = literal`"),
        ("a = None", "type NoneType"),
        ("a = (1, 2)", "type tuple"),
        ("a = ", "not Python"),
    ],
)
def test_a_parameters_cell_holds_only_literals(source, says):
    with pytest.raises(UsageError, match=says):
        declared_parameters(source, "test.ipynb")


def notebook(*cells, **metadata):
    return json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": metadata,
            "cells": [
                {"cell_type": kind, "source": source, "metadata": {"tags": tags}, "outputs": []}
                for kind, source, tags in cells
            ],
        }
    )


def test_a_notebook_is_read_with_its_title_and_code(tmp_path):
    path = tmp_path / "01_x.ipynb"
    path.write_text(notebook(("markdown", "# Title\ntext", []), ("code", "a = 1", ["parameters"]), ("code", "a", [])))
    read = read_notebook(path)
    assert (read.title, list(read.parameters), read.code) == ("Title", ["a"], ("a = 1", "a"))


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (notebook(("code", "a = 1", [])), UsageError, "0 cells tagged"),
        (notebook(("code", "a = 1", ["parameters"]), ("code", "b = 1", ["parameters"])), UsageError, "2 cells tagged"),
        (notebook(("code", "a = 1", ["parameters"]), kernelspec={"language": "R"}), UsageError, "notebook in R"),
        ("{", DamagedError, "not readable as JSON"),
        ("[]", DamagedError, "not a notebook"),
    ],
)
def test_what_is_no_notebook_of_ours_is_refused(tmp_path, content, error, says):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(error, match=says):
        read_notebook(path)


@pytest.mark.parametrize("path", ["nowhere.ipynb", "https://127.0.0.1/x.ipynb", '{"cells": []}', "README.md"])
def test_only_an_existing_file_is_a_notebook(path):
    with pytest.raises(MissingError, match="no notebook"):
        read_notebook(path)


CODES = ["nan_Hant", "no", "12e4567", "nan", "null"]


@pytest.mark.parametrize("notebook", ["06_eval_retention", "07_routing_analysis"])
def test_language_codes_that_look_like_something_else_stay_text_typed_or_in_a_file(tmp_path, notebook):
    declared = read_notebook(CHECKOUT / "notebooks" / f"{notebook}.ipynb").parameters
    typed = resolve(declared, [f"languages={json.dumps(CODES)}", "corpus=12e4567"])
    file = tmp_path / "parameters.yaml"
    file.write_text(f"languages: [{', '.join(CODES[:3])}, nan, 'null']\ncorpus: 12e4567\n")
    assert resolve(declared, file=file) == typed
    assert (typed["languages"], typed["corpus"]) == (CODES, "12e4567")


@pytest.mark.parametrize(
    ("source", "assignment"),
    [
        ('corpus = "demo"', "corpus=a\udcff"),  # what a shell passes on of bytes that are no UTF-8
        ("prompts = []", r'prompts=["a\ud83d"]'),
        ("prompts = []", r'prompts=[{"language": "el", "prompt": "a\ud83d"}]'),
    ],
)
def test_half_of_a_character_is_refused_before_anything_is_written(source, assignment):
    with pytest.raises(UsageError, match=r"Parameter \w+ .*position 2") as caught:
        resolve(declared_parameters(source, "x"), [assignment])
    str(caught.value).encode()
