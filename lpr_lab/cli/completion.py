"""Shell completion of runs, notebooks and their parameters; `lpr-lab --install-completion` sets it up.

Every offer is made from names and small files, because a person waits for it; nothing that goes wrong is shown, because
an error in the middle of a typed line helps nobody.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from lpr_lab.experiments.notebooks.parameters import Parameter

Offer = tuple[str, str]
"""What to type, and what it means, for the shells that show that."""

_SAFE = re.compile(r"[\w./:+-]+")
QUICKSTART = "00_quickstart"
"""The notebook of `lpr-lab demo`."""


def _quietly(offers: Callable[..., Iterable[Offer]]) -> Callable[..., list[Offer]]:
    @wraps(offers)
    def answered(ctx: typer.Context, incomplete: str) -> list[Offer]:
        try:
            return [offer for offer in offers(ctx, incomplete) if offer[0].startswith(incomplete)]
        except Exception:
            return []

    return answered


@_quietly
def complete_run(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """Offer `latest` and the ids of runs, newest first, that are not on the line already."""
    from lpr_lab.runs.find import default_runs_dir, list_runs

    given = ctx.params.get("run_ids") or ()
    yield "latest", "the newest run"
    for run in list_runs(_path(ctx.params.get("runs_dir")) or default_runs_dir()):
        if run.id not in given:
            yield run.id, "cannot be read" if run.problem else run.title


@_quietly
def complete_notebook(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """Offer the project's notebooks by name, then notebooks and folders below what was typed."""
    from lpr_lab.experiments.notebooks.run import notebooks_dir

    if "/" not in incomplete:
        yield from ((path.stem, "") for path in sorted(notebooks_dir().glob("*.ipynb")))
    yield from _files(incomplete, (".ipynb",))


@_quietly
def complete_parameters(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """Offer the project's files of parameters by name, then such files and folders below what was typed."""
    from lpr_lab.experiments.notebooks.run import notebooks_dir

    if "/" not in incomplete:
        yield from ((path.stem, "") for path in sorted((notebooks_dir() / "params").glob("*.yaml")))
    yield from _files(incomplete, (".yaml", ".yml", ".json"))


def _files(incomplete: str, endings: tuple[str, ...]) -> Iterator[Offer]:
    folder = incomplete.rpartition("/")[0]
    for path in sorted(Path(folder or ("/" if incomplete[:1] == "/" else ".")).iterdir()):
        name = f"{folder}/{path.name}" if "/" in incomplete else path.name
        if path.suffix in endings:
            yield name, ""
        elif path.is_dir() and not path.name.startswith("."):
            yield f"{name}/", ""


@_quietly
def complete_assignment(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """Offer `name=` for every parameter of the notebook with its default, and values where they are a short list."""
    from lpr_lab.experiments.notebooks.parameters import read_notebook
    from lpr_lab.experiments.notebooks.run import find_notebook

    # A value is still missing on the line, so words that are no options have found no place yet.
    words = [ctx.params.get("notebook"), *ctx.args, QUICKSTART if ctx.info_name == "demo" else None]
    notebook = find_notebook(Path(next(filter(None, words))))
    for name, parameter in read_notebook(notebook).parameters.items():
        if name != "run_dir":
            # Beside its values, the bare name: with a single offer bash would go on to the next word.
            yield f"{name}=", parameter.help
            yield from ((f"{name}={value}", parameter.help) for value in _values(parameter))


def _values(parameter: "Parameter") -> list[str]:
    from lpr_lab.experiments.recipes import RECIPES

    if parameter.type == "bool":
        return ["true", "false"]
    if parameter.name == "recipe":
        return list(RECIPES)
    default = str(parameter.default)
    return [default] if parameter.default is not None and _SAFE.fullmatch(default) else []


def _path(value: Any) -> Path | None:
    return None if value is None else Path(value)
