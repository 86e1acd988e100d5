"""What page `/` shows, as tables and as a cell of Python: the chosen run's numbers, and the runs there are."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lpr_lab.dashboard.page_data import PageData, opening, ready
from lpr_lab.dashboard.pages.runs.choosing import asked_values, shown_runs
from lpr_lab.dashboard.pages.runs.compare import chosen_runs
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.runs.compare.differences import compare_runs
from lpr_lab.runs.compare.training import training_of
from lpr_lab.runs.housekeeping import tags_of
from lpr_lab.runs.people.notes import read_notes
from lpr_lab.runs.run import Run
from lpr_lab.runs.summary import run_facts
from lpr_lab.views import Table


def as_data(context: PageContext, run: Run, runs_dir: Path) -> PageData:
    """Return the training's numbers or a sweep's points first, then every table that the run keeps, and all runs."""
    metrics, kept = run.metrics.read(), run.tables.names()
    tables: dict[str, Callable[[], Any]] = {}
    compared, listed = chosen_runs(context), partial(_list, context)
    if context.query.where or context.query.sort:
        cell, tables["runs"] = _cell_of_list(context, runs_dir), listed
    elif len(compared) > 1 and not (together := training_of(compared)).empty:
        names = ", ".join(repr(one.id) for one in compared)
        cell = (
            "from lpr_lab.runs.compare.training import training_of\n"
            f"{opening(run, runs_dir)}\ntraining_of([Run.open(runs, name) for name in ({names})])\n"
        )
        tables["training_compared"] = ready(together)
        if not metrics.empty:
            tables["training"] = ready(metrics)
    elif "summary" in kept:
        cell = f'{opening(run, runs_dir)}run.tables.read("summary")\n'
        tables["summary"] = partial(run.tables.read, "summary")
    elif not metrics.empty:
        cell = f"{opening(run, runs_dir)}run.metrics.read()\n"
        tables["training"] = ready(metrics)
    elif kept:
        cell = f"{opening(run, runs_dir)}run.tables.read({kept[0]!r})\n"
    else:
        cell, tables["runs"] = _cell_of_list(context, runs_dir), listed
    tables |= {name: partial(run.tables.read, name) for name in kept if name not in tables}
    if len(compared) > 1:
        tables["differences_in_settings"] = partial(_settings, compared)
    return PageData(cell, tables | {"runs": listed})


def _list(context: PageContext) -> Table:
    """Return the runs that are listed, in that order, with their tags and notes and what they are chosen by."""
    rows = []
    for run in shown_runs(context):
        values = {name: value.text if value else None for name, value in asked_values(context, run)}
        written = {} if run.problem else {"tags": " ".join(tags_of(run)), "notes": read_notes(run)}
        rows.append({**run_facts(run), **written, **values})
    return pd.DataFrame(rows)


def _cell_of_list(context: PageContext, runs_dir: Path) -> str:
    """Return the cell that lists the same runs, but for kind, state and tag, which a program asks of a run itself."""
    query, runs = context.query, f"list_runs({str(runs_dir.resolve())!r})"
    names = ["order"] * bool(query.sort) + ["read_conditions", "select"] * bool(query.where)
    if query.where:
        runs = f"select({runs}, read_conditions({query.where!r}))"
    if query.sort:
        runs = f"order({runs}, {query.sort!r})"
    more = f"from lpr_lab.runs.selection import {', '.join(names)}\n" if names else ""
    return (
        f"import pandas as pd\n\nfrom lpr_lab.runs.find import list_runs\n{more}"
        f"from lpr_lab.runs.summary import run_facts\n\npd.DataFrame([run_facts(run) for run in {runs}])\n"
    )


def _settings(runs: list[Run]) -> Table:
    ids = [run.id for run in runs]
    rows = [{"setting": row.name, **dict(zip(ids, row.texts, strict=True))} for row in compare_runs(runs).settings]
    return pd.DataFrame(rows)
