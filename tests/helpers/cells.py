"""Runs a cell of Python as a notebook does."""

import ast
from typing import Any


def last_value(cell: str) -> Any:
    """Run a cell as a notebook does, in names of its own; returns what its last line is."""
    return run_cell(cell)[0]


def run_cell(cell: str) -> tuple[Any, dict[str, Any]]:
    """Run a cell as a notebook does; returns what its last line is, and the names that it gave."""
    tree = ast.parse(cell)
    last = tree.body.pop()
    assert isinstance(last, ast.Expr)
    names: dict[str, Any] = {}
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names), names
