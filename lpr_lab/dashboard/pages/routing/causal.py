"""What did each layer do here? Works out the causal map of the shown text, and what is expected at one of its cells."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing.texts import read
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.causal_maps import CAUSAL
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.shell import status
from lpr_lab.errors import LprError
from lpr_lab.measure.causal.causal_map import Cell
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.runs.run import Run
from lpr_lab.views.html.causal import render_causal, render_next_tokens

Step = tuple[str, Any, Any]
"""A status line, the map, and what is expected at a cell."""

BATCH_TOKENS = 1024
"""Of one forward pass: a reader who stops waits for its end, and sees how far it is after each."""

HEADING = Markup(
    '<section class="lpr-section"><h2>What did each layer do here?</h2><p class="lpr-caption">Each layer alone sends '
    "every token to one expert, and the text is scored again: what a token costs more is what the layer’s own choice "
    "was worth. Nothing is saved.</p></section>"
)


def cause_of(query: Query) -> tuple[int, Cell | None]:
    """Return the expert, and the cell if there is one, that an address asks for: `expert` or `expert.layer.token`.

    >>> cause_of(Query(cause="0.12.5"))
    (0, Cell(layer=12, expert=0, token=5))
    """
    numbers = [int(part) for part in query.cause.split(".") if part]
    expert = numbers[0] if numbers else 0
    return expert, Cell(numbers[1], expert, numbers[2]) if len(numbers) == 3 else None


def show_causal(run: Run, trace: RoutingTrace, query: Query, *, can_run: bool) -> dict[str, Any]:
    """Return the parts of the page: the map of what is shown where it was worked out, else how to get it."""
    visible = len(trace.layers) > 0 and can_run
    parts: dict[str, Any] = {"causal": gr.update(visible=visible), "causal_map": "", "causal_cell": ""}
    causal = CAUSAL.get(run, trace) if visible else None
    expert, cell = cause_of(query)
    if causal is None:
        if visible and query.cause:
            parts["causal_map"] = shell.notice("info", "This address shows a causal map: work it out to see it again.")
        return parts
    parts["causal_map"] = render_causal(causal, expert, cell)
    found = CAUSAL.get_cell(run, causal, cell) if cell is not None else None
    return parts | {"causal_cell": "" if found is None else render_next_tokens(causal, found)}


def work_out(runs_dir: Path, params: dict[str, Any]) -> Iterator[Step]:
    """Work out the causal map of the shown text; yields as it gets on."""
    context, keep = shell.page_context(runs_dir, params), gr.skip()
    try:
        run, trace = _shown(context)
        loading = "Loading the model, once…" if not MODELS.is_loaded(run) else "Switching layers…"
        yield status(loading, busy=True), keep, keep
        from lpr_lab.measure.causal.compute import causal_steps

        started = time.monotonic()
        causal = CAUSAL.get(run, trace)
        if causal is None:
            with MODELS.use(run) as loaded:
                stage = trace.stage or None
                steps = causal_steps(
                    loaded.model, loaded.tokenizer, trace.text, trace.language, stage=stage, batch_tokens=BATCH_TOKENS
                )
            while True:
                with MODELS.use(run):  # for one batch only: what was stopped must not keep the model
                    step = next(steps, None)
                if step is None:
                    break
                causal = step.result
                yield status(f"{step.done} of {step.total} switches…", busy=True), keep, keep
            assert causal is not None
            CAUSAL.put(run, causal)
    except Exception as error:  # whatever it is, the page says so and shows again what was there before
        yield _failed(error), keep, keep
        return
    expert, _ = cause_of(context.query)
    query = context.query.urlencode(cause=str(expert))
    yield status(f"Done in {time.monotonic() - started:.1f} s."), render_causal(causal, expert, query=query), ""


def ask_cell(runs_dir: Path, params: dict[str, Any]) -> Iterator[Step]:
    """Compute what the model expects at the cell that the address names; yields as it gets on."""
    context, keep = shell.page_context(runs_dir, params), gr.skip()
    try:
        run, trace = _shown(context)
        causal, (_, cell) = CAUSAL.get(run, trace), cause_of(context.query)
        if causal is None or cell is None:
            raise LprError("This map is no longer held; work it out again.")
        found = CAUSAL.get_cell(run, causal, cell)
        if found is None:
            yield status("Asking the model…", busy=True), keep, keep
            from lpr_lab.measure.causal.compute import next_tokens

            with MODELS.use(run) as loaded:
                found = next_tokens(loaded.model, loaded.tokenizer, causal, cell)
            CAUSAL.put_cell(run, causal, found)
    except Exception as error:  # as above
        yield _failed(error), keep, keep
        return
    yield status("What the model expects there stands below the map."), keep, render_next_tokens(causal, found)


def _shown(context: shell.PageContext) -> tuple[Run, RoutingTrace]:
    stages = read(context.run, context.query)[1] if context.run else None
    if context.run is None or stages is None:
        raise LprError("There is no text to work on; trace one first.")
    stage = context.query.stage
    return context.run, stages.at(stage) if stage in stages.stage_names else stages


def _failed(error: Exception) -> str:
    if isinstance(error, LprError):
        return status(str(error), bad=True)
    logging.getLogger(__name__).exception("A causal map failed.")
    return status(f"This failed ({type(error).__name__}: {error}).", bad=True)
