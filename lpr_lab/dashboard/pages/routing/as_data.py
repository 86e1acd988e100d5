"""What page `/routing` shows, as tables and as a cell of Python."""

from functools import partial
from pathlib import Path

from lpr_lab.dashboard.page_data import PageData, opening
from lpr_lab.dashboard.pages.routing.guesses import guesses_as_data
from lpr_lab.dashboard.pages.routing.segments.show import segment_data
from lpr_lab.dashboard.pages.routing.texts import read
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import LprError, MissingError
from lpr_lab.runs.model_ref import why_no_routing
from lpr_lab.runs.run import Run


def as_data(context: PageContext, run: Run, runs_dir: Path) -> PageData:
    """Return the routing of the text that is shown, at the stage that is shown; first guesses and segment, if shown.

    A text that a run keeps is read from there; one that was typed is traced anew by the cell.

    Raises:
        MissingError: no text is shown.
        UsageError: a model without routers.
    """
    if dense := why_no_routing(run):
        raise MissingError(dense)
    segment = segment_data(run, context.query, runs_dir)
    name, found = read(run, context.query)
    if found is None and segment is not None:
        return segment
    if found is None:
        raise MissingError("No text is shown, so there is nothing to take along.")
    try:
        trace = found.at(context.query.stage) if context.query.stage else found
    except LprError:
        trace = found  # the page says so, and shows the newest
    tables = {"routing": trace.to_frame}
    load = run.tables.read("load")
    if load is not None and not load.empty:
        tables["load"] = partial(load.copy)
    chosen = f".at({trace.stage!r})" if trace.stage else ""
    if name in run.traces.names():
        cell = f"{opening(run, runs_dir)}trace = run.traces.read({name!r}){chosen}\ntrace.to_frame()\n"
    else:
        cell = (
            f"import lpr_lab as lab\n{opening(run, runs_dir)}"
            "model, tokenizer = lab.load_trained(run.path), lab.load_tokenizer(run.path)\n"
            f"trace = lab.trace(model, tokenizer, {trace.text!r}, {trace.language!r}){chosen}\ntrace.to_frame()\n"
        )
    documents = {"trace": trace.to_plain}
    guesses = guesses_as_data(run, trace, context.query, runs_dir)
    for shown in (guesses, segment):
        if shown is not None:
            tables, documents = {**shown.tables, **tables}, {**shown.documents, **documents}
    cells = [shown.cell for shown in (guesses, segment) if shown is not None]
    cell = "\n".join(cells) or cell
    return PageData(cell, tables, documents)
