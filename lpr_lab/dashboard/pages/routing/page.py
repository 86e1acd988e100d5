"""Page `/routing`: where did each token of this text go, and was that right for its language?"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing import render
from lpr_lab.dashboard.pages.routing.compose import QUESTION, compose
from lpr_lab.dashboard.pages.routing.own_texts import OwnControls, delete_own, keep_own, rename_own, trace_own
from lpr_lab.dashboard.pages.routing.texts import read, say_unreadable
from lpr_lab.dashboard.parameters import EXPERT, LAYERS, WAY
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.server.unsaved_texts import UNSAVED
from lpr_lab.dashboard.shell import FILES, MODEL, PICK, html_block, in_order, is_busy, status
from lpr_lab.errors import LprError
from lpr_lab.measure.trace import RoutingTrace, layers_in
from lpr_lab.runs.own_texts import is_own
from lpr_lab.views.html.tokens import StripChoices, render_token_strip

# ------------------------------------------------------------------------------------------------ with a model


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
        change = {way: dict.fromkeys(wanted, expert)}
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


def render_change(changed: RoutingTrace, known: RoutingTrace, what: str) -> str:
    """Return a changed run: what it costs in words, the text coloured by it, and the table of tokens."""
    same_as_base = ""
    if known.base_log_prob is not None and changed.log_prob is not None:
        gap = abs(changed.log_prob - known.base_log_prob)[1:].max(initial=0)
        if gap < _SAME_NATS:
            same_as_base = (
                '<p class="lpr-caption">Every token is as likely as under the base model: the base is still in there, '
                f"untouched (largest difference {gap:.1g} nats).</p>"
            )
    strip = render_token_strip(changed, StripChoices(colour="gain"), linked=False)
    words = render.cost_of_change(changed, what) + same_as_base
    return f'<section class="lpr-card lpr-changed-run">{words}{strip}{render.change_table(changed)}</section>'


# --------------------------------------------------------------------------------------------------- the widgets


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Wire the page."""
    html_block(shell.header("Routing"))
    parts: dict[str, Any] = {"top": html_block(shell.head(QUESTION))}
    with gr.Row(elem_classes="lpr-controls"):
        run = shell.run_picker()
        parts["picker"] = gr.Radio([], label="Text", visible=False, elem_classes="lpr-grow")
        parts["kept"] = gr.Dropdown([], label="Texts kept by readers", visible=False, scale=0, min_width=220)
    with gr.Row(elem_classes="lpr-controls"):
        parts["stage"] = gr.Radio([], label="Stage", visible=False)
        parts["other"] = gr.Dropdown([], label="Compare with", visible=False, filterable=False)
        with gr.Column(visible=False) as parts["also"]:
            also = gr.Button("Trace it with that run", scale=0)
            also_stop = gr.Button("Cancel", scale=0, visible=False)
            also_line = html_block(status(""))
    own = OwnControls()
    parts |= own.parts
    parts["strip"] = html_block(elem_id="lpr-text")
    with gr.Column(visible=False, elem_classes="lpr-what-if") as parts["what_if"]:
        html_block(
            '<section class="lpr-section"><h2>Try</h2><p class="lpr-subfinding">What if its tokens went elsewhere?</p>'
            '<p class="lpr-caption">The text is run again with the choice of experts changed. Nothing is saved.</p>'
            "</section>"
        )
        with gr.Row(elem_classes="lpr-actions"):
            way = gr.Radio([("Force", "force"), ("Ban", "ban")], value="force", label="Change")
            parts["expert"] = gr.Dropdown([("Expert 0, the original", 0)], value=0, label="Expert", filterable=False)
            layers = gr.Textbox("all", label="Layers, such as all or 0-5, 12", max_lines=1)
            try_it = gr.Button("Run it", scale=0)
            try_stop = gr.Button("Cancel", scale=0, visible=False)
            try_line = html_block(status(""))
    parts["changed"] = html_block()
    for name in ("languages", "overview"):
        parts[name] = html_block()
    parts["plot"] = gr.Plot(show_label=False, visible=False, elem_classes="lpr-plot lpr-card")
    parts["table"] = html_block()
    outputs = [run, *parts.values()]

    def draw(params: dict[str, Any]) -> list[Any]:
        shown = compose(context := say_unreadable(shell.page_context(runs_dir, params), params), runs_dir)
        return [shell.show_runs(context), *(shown[name] for name in parts)]

    def load(request: gr.Request) -> list[Any]:
        return draw(dict(request.query_params))

    def load_compared(request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "view": "change"})

    def choose_run(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "run": chosen, "tok": "", "stage": "", "stage2": "", "run2": ""})

    def choose_text(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "text": chosen, "lang": "", "tok": ""})

    def choose_stage(chosen: str, request: gr.Request) -> list[Any]:
        query = Query.parse(dict(request.query_params))
        other = "" if query.stage2 == chosen and not query.run2 else query.stage2
        return draw({**dict(request.query_params), "stage": chosen, "stage2": other})

    def choose_other(chosen: str, request: gr.Request) -> list[Any]:
        kind, _, name = (chosen or "").partition(":")
        compared = {"run2": name if kind == "run" else "", "stage2": name if kind == "stage" else ""}
        return draw({**dict(request.query_params), **compared, "view": "change" if name else ""})

    def trace_typed(typed: str, code: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        for step in trace_own(runs_dir, typed, code, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    def cancelled(request: gr.Request) -> list[Any]:
        line = status("Cancelled; nothing was traced.")
        return [line, gr.update(visible=False), *draw(dict(request.query_params))]

    def silence() -> list[Any]:
        return [status(""), gr.update(visible=False)] * 3

    def then_draw(act: Callable[..., tuple[str, dict[str, Any]]], *given: Any, **options: Any) -> list[Any]:
        said, params = act(runs_dir, *given, **options)
        return [said, *draw(params)]

    def keep(name: str, request: gr.Request) -> list[Any]:
        return then_draw(keep_own, name, dict(request.query_params))

    def replace(name: str, request: gr.Request) -> list[Any]:
        return then_draw(keep_own, name, dict(request.query_params), replace=True)

    def rename(name: str, request: gr.Request) -> list[Any]:
        return then_draw(rename_own, name, dict(request.query_params))

    def delete(request: gr.Request) -> list[Any]:
        return then_draw(delete_own, dict(request.query_params))

    def settle(request: gr.Request) -> list[Any]:
        # All by the address, but for the box of text, in which somebody may be typing on.
        drawn = dict(zip((run, *parts.values()), draw(dict(request.query_params)), strict=True))
        return list((drawn | {own.text: gr.skip(), own.language: gr.skip()}).values())

    def trace_other(request: gr.Request) -> Iterator[tuple[Any, ...]]:
        for line in trace_beside(runs_dir, dict(request.query_params)):
            yield line, gr.update(visible=is_busy(line))

    def change(kind: str, expert: int, where: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        for step in try_change(runs_dir, kind, expert, where, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    demo.load(load, None, outputs, **FILES)
    for control, choose in ((parts["stage"], choose_stage), (parts["other"], choose_other)):
        control.input(in_order(choose), [control], outputs, **PICK)
    own_outputs = [own.line, parts["top"], parts["strip"], own.stop]
    asked = [own.text, own.language]
    traced = gr.on([own.go.click, own.text.submit], queued(trace_typed, *own.waiting), asked, own_outputs, **MODEL)
    # Not after a cancelling: whatever was chosen instead is being drawn then.
    traced.success(settle, None, outputs, **FILES)
    for button, act in ((own.keep, keep), (own.replace, replace), (own.rename, rename)):
        button.click(act, [own.name], [own.kept_line, *outputs], **FILES)
    own.sure.click(delete, None, [own.kept_line, *outputs], **FILES)
    asking = [own.delete, own.sure, own.never_mind]
    own.delete.click(lambda: [gr.update(visible=v) for v in (False, True, True)], None, asking, **FILES)
    own.never_mind.click(lambda: [gr.update(visible=v) for v in (True, False, False)], None, asking, **FILES)
    compared = also.click(queued(trace_other, *_waiting()), None, [also_line, also_stop], **MODEL)
    compared.success(load_compared, None, outputs, **FILES)
    what_if, shown = [way, parts["expert"], layers], [try_line, parts["changed"], try_stop]
    trying = [try_it.click, layers.submit]
    tried = gr.on(trying, queued(change, *_waiting(gr.skip())), what_if, shown, **MODEL)
    stops = [(own.stop, traced, own.line), (also_stop, compared, also_line), (try_stop, tried, try_line)]
    for stop, work, line in stops:
        halted = stop.click(None, None, None, cancels=[work], **FILES)
        halted.then(cancelled, None, [line, stop, *outputs], **FILES)
    # What was asked for a text is not shown under another one.
    for control, choose in ((run, choose_run), (parts["picker"], choose_text), (parts["kept"], choose_text)):
        given_up = control.input(None, None, None, cancels=[traced, compared, tried], **PICK)
        given_up.then(in_order(choose), [control], outputs, **PICK)
        given_up.then(silence, None, [part for stop, _, line in stops for part in (line, stop)], **FILES)


def _waiting(*rest: Any) -> tuple[Callable[[str], tuple[Any, ...]], Callable[[str], tuple[Any, ...]]]:
    """Return what shows that one waits, and that too many do: a line, what stays, and the button that cancels."""
    return (
        lambda said: (status(said, busy=True), *rest, gr.update(visible=True)),
        lambda said: (status(said, bad=True), *rest, gr.update(visible=False)),
    )
