"""What page `/experts` shows, as tables and as a cell of Python."""

from functools import partial
from pathlib import Path

from lpr_lab.dashboard.page_data import PageData, opening, ready
from lpr_lab.dashboard.pages.experts.data import Selection, extra, read
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import MissingError
from lpr_lab.runs.run import Run
from lpr_lab.views import Table

FURTHER = ("expert_information", "expert_agreement", "original_probability", "expert_tokens", "expert_pairs")


def as_data(context: PageContext, run: Run, runs_dir: Path) -> PageData:
    """Return the load of the experts that are shown, and the further tables at its data set.

    Raises:
        MissingError: no load was measured.
    """
    selection = read(run, context.query)
    if selection is None:
        raise MissingError(f"Run {run.id} has no table of load: it was not measured.")
    tables = {"load": partial(_load, selection)}
    tables |= {name: ready(table) for name in FURTHER if (table := extra(selection, name)) is not None}
    shown = {"dataset": repr(selection.data)}
    if selection.is_counted:
        shown = {"stage": repr(selection.stage), **shown}
    where = " & ".join(f'(load["{name}"] == {value})' for name, value in shown.items())
    cell = (
        f'{opening(run, runs_dir)}load = run.tables.read("{"expert_load" if selection.is_counted else "load"}")\n'
        f'load[{where} & load["language"].isin({list(selection.languages)!r})]\n'
    )
    return PageData(cell, tables)


def _load(selection: Selection) -> Table:
    rows = selection.rows()
    return rows if selection.is_counted else rows.drop(columns=["stage", "chosen"])
