"""Runs without models or results."""

from pathlib import Path

from lpr_lab.runs.run import Run

CONFIG = {"recipe": "route_first", "expanded": ["el", "no"], "learning_rate": 3e-4, "seed": 0}


def make(root: Path, **changes) -> Run:
    """Return a new run in a folder of runs; `changes` are arguments of `Run.create`."""
    given = {"kind": "demo", "slug": "el no", "title": "A test", "config": CONFIG} | changes
    return Run.create(root, **given)


def id_of(run: Run | None) -> str | None:
    """Return the id of a run that may be None."""
    return run and run.id
