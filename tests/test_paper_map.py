"""The map from the papers to the code leads somewhere: every function and every test it names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAP = (ROOT / "docs" / "paper_map.md").read_text(encoding="utf-8")
ROWS = [line for line in MAP.splitlines() if line.startswith("| ") and not set(line) <= set("|- ")]
ITEMS = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in ROWS if "`" in row]


@cache
def names_in(path: str) -> frozenset[str]:
    """Functions, classes, methods, and module-level names of a file."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return frozenset(names)


def references(cell: str) -> list[tuple[str, str]]:
    """`folder/file.py: name, other` in a cell, as (file, name)."""
    found = []
    for path, words in re.findall(r"`([a-z_/0-9]+\.py)`((?:[ ,]*`[A-Za-z_0-9.]+`)*)", cell):
        found += [(path, name) for name in re.findall(r"`([A-Za-z_0-9.]+)`", words)] or [(path, "")]
    return found


@pytest.mark.parametrize("item", ITEMS, ids=[row[0][:60] for row in ITEMS])
def test_every_row_has_a_function_and_a_test_that_exist(item):
    what, here, tested = item
    for cell, folder in ((here, "lpr_lab/"), (tested, "tests/")):
        named = references(cell)
        assert named, f"{what}: nothing named in {cell!r}"
        for path, name in named:
            assert (ROOT / folder / path).is_file(), f"{what}: there is no {folder}{path}"
            for part in filter(None, name.split(".")):
                assert part in names_in(folder + path), f"{what}: {folder}{path} has no {part}"
    assert all(name.startswith("test_") for _, name in references(tested)), f"{what}: name a test"


def test_no_row_of_the_map_is_empty_and_each_has_three_cells():
    assert len(ITEMS) > 60
    assert all(len(item) == 3 and all(item) for item in ITEMS)
