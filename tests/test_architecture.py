"""docs/architecture.md names files and functions that exist, and every floor that the import contract has."""

import ast
import re
import tomllib

import pytest

from lpr_lab.runs.environment import CHECKOUT

PAGE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:\w+/)+\w+\.\w+)(?::([\w.]+))?`", PAGE)))


def defined(tree: ast.AST, name: str) -> ast.AST | None:
    """Return the class, function or constant of that name directly in a module or class."""
    for node in getattr(tree, "body", ()):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if getattr(node, "name", None) == name or any(getattr(target, "id", None) == name for target in targets):
            return node
    return None


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[":".join(filter(None, pair)) for pair in NAMED])
def test_every_file_and_function_that_a_journey_names_is_there(file, name):
    path = CHECKOUT / file
    assert path.is_file()
    node = ast.parse(path.read_text(encoding="utf-8")) if name else None
    for part in filter(None, name.split(".")):
        node = defined(node, part)
        assert node is not None, f"{file} has no {part}"


def test_there_are_three_journeys_and_each_names_a_function_at_most_of_its_steps():
    journeys = re.split(r"^## ", PAGE, flags=re.MULTILINE)[2:]
    assert len(journeys) == 3
    for journey in journeys:
        steps = re.findall(r"^\d+\. .+(?:\n   .+)*", journey, flags=re.MULTILINE)
        assert len(steps) >= 6 and sum("`lpr_lab/" in step or "`notebooks/" in step for step in steps) == len(steps)


def test_the_floors_are_those_of_the_import_contract():
    config = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(found["layers"] for found in config["tool"]["importlinter"]["contracts"] if "exhaustive" in found)
    floors = {name for layer in layers for name in layer.split(" | ")} - {"__main__"}
    assert floors == set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", PAGE, flags=re.MULTILINE))))
