"""What page `/experts` shows, as tables and as a cell of Python."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lpr_lab.dashboard.page_data import PageData, opening, ready
from lpr_lab.dashboard.pages.experts.data import Selection, extra, read
from lpr_lab.dashboard.pages.experts.expert import contexts_of, of_expert, shares
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import MissingError
from lpr_lab.runs.expert_contexts import CONTEXTS, EFFECTS, NEIGHBOURS
from lpr_lab.runs.formats import json_records
from lpr_lab.runs.run import Run
from lpr_lab.views import Table

READS = "from lpr_lab.runs.expert_contexts import read_contexts\n"
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
    of_one, more = _of_expert(selection)
    tables |= {name: ready(table) for name, table in of_one.items()}
    shown = {"dataset": repr(selection.data)}
    if selection.is_counted:
        shown = {"stage": repr(selection.stage), **shown}
    where = " & ".join(f'(load["{name}"] == {value})' for name, value in shown.items())
    cell = (
        f"{READS if more else ''}{opening(run, runs_dir)}{more}"
        f'load = run.tables.read("{"expert_load" if selection.is_counted else "load"}")\n'
        f'load[{where} & load["language"].isin({list(selection.languages)!r})]\n'
    )
    return PageData(cell, tables, {"expert": partial(_document, selection, of_one)})


def _of_expert(selection: Selection) -> tuple[dict[str, Table], str]:
    """Return the tables of the chosen expert, and the lines of the cell that give those of its contexts."""
    place = selection.layer, selection.expert
    tables = {"expert_share": shares(selection)}
    found = contexts_of(selection)
    if found is None:
        return tables, ""
    parts = {CONTEXTS: found.contexts, NEIGHBOURS: found.neighbours, EFFECTS: found.effects}
    tables |= {name: mine for name, table in parts.items() if len(mine := of_expert(table, *place))}
    lines = f"found = read_contexts(run, {selection.data!r}, {selection.stage!r})\n"
    lines += f"contexts = found.of(layer={place[0]}, expert={place[1]})\n" if CONTEXTS in tables else ""
    return tables, lines


def _document(selection: Selection, tables: Mapping[str, Table]) -> dict[str, Any]:
    """Return all tables of the chosen expert as one document."""
    shown = {"run": selection.run.id, "stage": selection.stage, "dataset": selection.data}
    place = {"layer": selection.layer, "expert": selection.expert}
    return shown | place | {name: json_records(table) for name, table in tables.items()}


def _load(selection: Selection) -> Table:
    rows = selection.rows()
    return rows if selection.is_counted else rows.drop(columns=["stage", "chosen"])
