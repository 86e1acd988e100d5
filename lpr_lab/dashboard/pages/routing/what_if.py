"""Traces a text with a second run, or with an expert forced or banned."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing import render
from lpr_lab.dashboard.pages.routing.texts import read
from lpr_lab.dashboard.parameters import EXPERT, LAYERS, WAY
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.server.unsaved_texts import UNSAVED
from lpr_lab.dashboard.shell import status
from lpr_lab.errors import LprError
from lpr_lab.measure.trace import RoutingTrace, layers_in
from lpr_lab.runs.people.own_texts import is_own
from lpr_lab.views.html import templates
from lpr_lab.views.html.tokens import StripChoices, render_token_strip

HEADING = Markup(
    '<section class="lpr-section"><h2>Try</h2><p class="lpr-subfinding">What if its tokens went elsewhere?</p>'
    '<p class="lpr-caption">The text is run again with the choice of experts changed. Nothing is saved.</p>'
    "</section>"
)


def trace_beside(runs_dir: Path, params: dict[str, Any]) -> Iterator[str]:
    """Trace the shown text with the second run, and keep a sample there; yields status lines, the last one empty."""
    context = shell.page_context(runs_dir, params)
    other = next((run for run in context.runs if run.id == context.query.run2 and run.problem is None), None)
    if context.run is None or other is None:
        yield status("There is no second run to trace with.")
        return
    yield status(f"{'Tracing' if MODELS.is_loaded(other) else 'Loading the model, then tracing'}…", busy=True)
    try:
        name, shown = read(context.run, context.query)
        if shown is None:
            yield status("There is no text to trace.")
            return
        from lpr_lab.measure.routing import trace as trace_text
        from lpr_lab.measure.routing import trace_stages

        with MODELS.use(other) as loaded:
            trace = trace_text(loaded.model, loaded.tokenizer, shown.text, shown.language, base=False)
            trace = trace_stages(loaded.model, loaded.tokenizer, trace)
        if is_own(name) or other.is_example:
            UNSAVED.put(other, name, trace)
        else:
            other.traces.write(name, trace)
    except (LprError, OSError) as error:
        yield status(str(error), bad=True)
        return
    yield status("")


def try_change(runs_dir: Path, way: str, expert: int, layers: str, params: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Run the shown text with an expert forced or banned; yields (status line, what it made of the text).

    Args:
        runs_dir: the folder of runs.
        way: `force` or `ban`.
        expert: which one.
        layers: `all`, or numbers and ranges.
        params: of the page's address.
    """
    context = shell.page_context(runs_dir, params)
    keep = gr.skip()
    try:
        stages = read(context.run, context.query)[1] if context.run else None
        if context.run is None or stages is None:
            yield status("There is no text to run again."), keep
            return
        way, expert, layers = WAY.read(way), EXPERT.read(expert), LAYERS.read(layers)
        known = stages.at(context.query.stage) if context.query.stage in stages.stage_names else stages
        wanted = layers_in(layers, known.layers.tolist())
        if layers.strip().lower() in ("", "all"):  # where some layers have fewer experts, all that have this one
            wanted = [layer for layer, count in zip(wanted, known.num_experts, strict=True) if expert < count]
        yield status("Running…" if MODELS.is_loaded(context.run) else "Loading the model, once…", busy=True), keep
        from lpr_lab.measure.routing import trace_changed

        started = time.monotonic()
        change: dict[str, Any] = {way: dict.fromkeys(wanted, expert)}
        with MODELS.use(context.run) as loaded:
            changed = trace_changed(loaded.model, loaded.tokenizer, known, **change)
    except (LprError, ValueError) as error:
        yield status(str(error), bad=True), keep
        return
    past = "forced" if way == "force" else "banned"
    what = f"Expert {expert} {past} in {render.layers_said(wanted, known.layers.tolist())}"
    yield status(f"Done in {time.monotonic() - started:.1f} s."), render_change(changed, known, what)


_SAME_NATS = 1e-3
"""As likely up to a tenth of a per cent: more than rounding does where logits reach 100, less than anybody reads."""


def render_change(changed: RoutingTrace, known: RoutingTrace, what: str) -> Markup:
    """Return a changed run: what it costs in words, the text coloured by it, and the table of tokens."""
    gap = None
    if known.base_log_prob is not None and changed.log_prob is not None:
        gap = abs(changed.log_prob - known.base_log_prob)[1:].max(initial=0)
    return templates.render(
        "dashboard/pages/routing/changed.html.j2",
        cost=render.cost_of_change(changed, what),
        gap=gap if gap is not None and gap < _SAME_NATS else None,
        strip=render_token_strip(changed, StripChoices(colour="gain"), linked=False),
        table=render.change_table(changed),
    )
