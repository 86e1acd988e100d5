"""A grid over a notebook's parameters: parsed, expanded into points, and checked before any point is run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from lpr_lab.errors import UsageError
from lpr_lab.experiments.notebooks.parameters import NotebookFile, Parameter, known_parameter, resolve
from lpr_lab.yaml_files import read_yaml

RUN_DIR = "run_dir"
KIND = "sweep"
COLUMNS = ("run_id", "run_state", "run_error")
"""Of a sweep's table `summary`, beside parameters and metrics."""
SEED = "seed"
"""The parameter that is repeated rather than compared: means and spreads are over it."""


@dataclass(frozen=True)
class Point:
    """One point of a grid.

    Attributes:
        varied: the parameters that the grid varies and their values here, in the grid's order.
        parameters: every parameter of the notebook and its value, `run_dir` left out.
    """

    varied: dict[str, Any]
    parameters: dict[str, Any]

    @property
    def label(self) -> str:
        """The varied parameters as text: `recipe=moe_lpr, seed=1`."""
        return ", ".join(f"{name}={as_text(value)}" for name, value in self.varied.items())


def as_text(value: Any) -> str:
    """Return a value as it stands in a table: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def points(
    notebook: NotebookFile, grid: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], max_runs: int
) -> list[Point]:
    """Return every combination of the grid's values, checked against what the notebook declares.

    The last parameter of the grid changes fastest.

    Args:
        notebook: whose parameters are varied.
        grid: values by parameter.
        fixed: parameters that are the same at every point and not the notebook's default.
        max_runs: how many points are allowed, so that one value too many does not start a week of work.

    Raises:
        UsageError: an unknown name, a value of another type, a value twice, a parameter both varied and fixed, an empty
            grid, or more than `max_runs` points.
    """
    if RUN_DIR not in notebook.parameters:
        raise UsageError(f'{notebook.path} has no parameter `{RUN_DIR} = ""`, so it cannot be told where its runs are.')
    if not grid:
        raise UsageError("A sweep needs at least one parameter with values, such as `seed=0,1,2`.")
    values = {name: _checked(known_parameter(notebook.parameters, name), given) for name, given in grid.items()}
    for name in (RUN_DIR, *grid):
        if name in fixed or (name == RUN_DIR and name in grid):
            why = "set by the sweep" if name == RUN_DIR else "varied by the grid"
            raise UsageError(f"`{name}` is {why}, so it cannot be given a value here too.")
    total = 1
    for given in values.values():
        total *= len(given)
    if total > max_runs:
        times = " x ".join(str(len(given)) for given in values.values())
        raise UsageError(
            f"This grid has {total} points ({times}); at most {max_runs} are allowed. Take values out of it, or allow "
            f"more with max_runs."
        )
    found = []
    for combination in product(*values.values()):
        varied = dict(zip(values, combination, strict=True))
        parameters = resolve(notebook.parameters, values={**fixed, **varied})
        parameters.pop(RUN_DIR)
        found.append(Point(varied, parameters))
    return found


def _checked(parameter: Parameter, values: Any) -> list[Any]:
    """Return a parameter's values, each of the declared type and none twice."""
    if not isinstance(values, list | tuple) or not values:
        raise UsageError(f"The grid's values for {parameter.name} are a list with at least one value, not {values!r}.")
    checked = [parameter.checked(value) for value in values]
    for position, value in enumerate(checked):
        if value in checked[:position]:
            raise UsageError(f"The grid has {parameter.name} = {as_text(value)} twice.")
    return checked


def grid_from_text(
    declared: Mapping[str, Parameter], assignments: Iterable[str] = (), file: Path | None = None
) -> dict[str, list[Any]]:
    """Return the grid that a person typed, on top of one from a file.

    Args:
        declared: what the notebook declares.
        assignments: `name=v1,v2`, or `name=[…]` with the values as JSON: values that are lists, or hold commas.
        file: a YAML or JSON mapping from name to a list of values.

    Raises:
        UsageError: an unknown name, a value of another type, or a text without `=`.
    """
    grid: dict[str, list[Any]] = {}
    if file is not None:
        content = read_yaml(file)
        if not isinstance(content, dict):
            raise UsageError(f"{file} does not hold `name: [value, value]` lines.")
        grid |= {str(name): values for name, values in content.items()}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"{assignment!r} is not name=v1,v2. Write `-g {name}=…`.")
        parameter = known_parameter(declared, name.strip())
        if text.startswith("["):
            grid[parameter.name] = _from_json(parameter, text)
        else:
            grid[parameter.name] = [parameter.from_text(value.strip()) for value in text.split(",")]
    return grid


def _from_json(parameter: Parameter, text: str) -> list[Any]:
    hint = f'-g \'{parameter.name}=[["el"], ["hu", "tr"]]\'' if parameter.type == "list" else f"-g {parameter.name}=…"
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UsageError(f"The values of {parameter.name} are not a JSON list ({error}). Write {hint}.") from error
    if parameter.type == "list" and not all(isinstance(value, list) or value is None for value in values):
        raise UsageError(f"{parameter.name} is a list itself, so its values are a list of lists: {hint}.")
    return values
