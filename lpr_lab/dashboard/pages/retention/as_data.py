"""What page `/retention` shows, as tables and as a cell of Python."""

from functools import partial
from pathlib import Path
from typing import Any

from lpr_lab.dashboard.page_data import PageData, opening, ready
from lpr_lab.dashboard.pages.retention.compose import LIFELONG, compared_causes, shown_dataset, sides
from lpr_lab.dashboard.pages.retention.document import token_table, trace_between
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import ComparisonRefusedError, MissingError
from lpr_lab.runs.compare.control_runs import excess_forgetting, find_old_only
from lpr_lab.runs.compare.paired_scores import compare
from lpr_lab.runs.compare.paired_tasks import compare_tasks
from lpr_lab.runs.compare.trade_off import trade_off
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.runs.run import Run


def as_data(context: PageContext, run: Run, runs_dir: Path) -> PageData:
    """Return the changes of bits per byte and what stands below them, on the data set that is shown.

    Raises:
        MissingError: nothing was measured.
        ComparisonRefusedError: the two were measured on different documents.
    """
    if run.kind == LIFELONG:
        return _lifelong(context, run, runs_dir)
    before, after = sides(run, context.query, context.runs)
    found = compare(before, after)
    if found is None:
        raise MissingError(f"Run {run.id} has no table of changes: it was not measured.")
    if found.rows is None:
        raise ComparisonRefusedError(found.refusal)
    chosen = shown_dataset(found.rows, context.query)
    rows = found.rows[found.rows["dataset"] == chosen]
    tables: dict[str, Any] = {"change": ready(rows)}
    here = compare(before, after, chosen)
    if here is not None and here.documents is not None:
        tables["documents"] = ready(here.documents)
    both = compared_causes(context, run, chosen)
    more = ""
    if both is not None:
        behind, found = both
        if behind.slices is not None:
            tables["slices"] = ready(behind.slices)
            more = f"slices = compare_slices(before, after, {chosen!r}, {behind.language!r})\n"
        if behind.documents is not None:
            tables["documents_by_change"] = ready(behind.documents)
        row = behind.document(context.query.doc)
        trace = None if row is None else trace_between(behind, str(row["document"]), found.before, found.after)
        if trace is not None:
            tables["tokens"] = partial(token_table, trace)
    tasks = compare_tasks(before, after)
    if tasks is not None and not tasks.empty:
        tables["tasks"] = ready(tasks)
    control = find_old_only(run, context.runs)
    if control is not None:
        tables["excess_forgetting"] = partial(excess_forgetting, run, control, chosen)
    trade = trade_off(run, context.runs, chosen)
    if trade is not None and len(trade.points):
        tables["gain_and_forgetting"] = ready(trade.points)
    cell = (
        "from lpr_lab.runs.compare.paired_scores import compare\n"
        + ("from lpr_lab.runs.compare.paired_slices import compare_slices\n" if more else "")
        + "from lpr_lab.runs.model_ref import ModelRef\n"
        f"{opening(run, runs_dir)}"
        f"before = {_written(before, run)}\nafter = {_written(after, run)}\n"
        "change = compare(before, after).rows\n"
        f'{more}change[change["dataset"] == {chosen!r}]\n'
    )
    return PageData(cell, tables)


def _lifelong(context: PageContext, run: Run, runs_dir: Path) -> PageData:
    table = run.tables.read("retention_by_stage")
    if table is None or table.empty:
        raise MissingError(f"Run {run.id} has no table of its stages: it was not measured.")
    chosen = shown_dataset(table, context.query)
    cell = (
        f'{opening(run, runs_dir)}stages = run.tables.read("retention_by_stage")\n'
        f'stages[stages["dataset"] == {chosen!r}]\n'
    )
    return PageData(cell, {"retention_by_stage": ready(table[table["dataset"] == chosen])})


def _written(side: ModelRef, run: Run) -> str:
    opened = "run" if side.run.id == run.id else f"Run.open(runs, {side.run.id!r})"
    return f"ModelRef({opened}, {side.stage!r})"
