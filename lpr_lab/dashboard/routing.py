"""Page `/routing`: where did each token of this text go, and was that right for its language?"""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import routing_words as say
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.model_hub import HUB
from lpr_lab.dashboard.routing_parts import OWN, QUESTION, compose, read, show_trace
from lpr_lab.dashboard.shell import FILES, MODEL, PICK, html_block, status
from lpr_lab.dashboard.view import View
from lpr_lab.errors import LprError
from lpr_lab.experiments.runs import Run
from lpr_lab.measure.trace import RoutingTrace, layers_in
from lpr_lab.text.languages import LANGUAGES
from lpr_lab.views.tokens import render_token_strip

MAX_CHARACTERS = 4000

SETTLED = ("stage", "other", "also", "what_if", "expert", "changed")
"""What a newly traced text brings along; the text and its box stay as they are."""

Step = tuple[str, Any, Any]
"""A status line, then what two parts of the page show."""


# ------------------------------------------------------------------------------------------------ with a model


def trace_own(runs_dir: Path, text: str, language: str | None, query: dict[str, Any]) -> Iterator[Step]:
    """Trace a text of the reader's with the run's model; yields (status line, head, strip) as it gets on.

    The newest stage comes first, because it is quickly drawn; the base and earlier stages follow.
    """
    scene = shell.look(runs_dir, query)
    run, keep = scene.run, gr.skip()
    text = text.strip()
    if run is None:
        yield status("There is no run to trace with."), keep, keep
        return
    if not text:
        yield status("The text is empty; type a sentence in any language."), keep, keep
        return
    if len(text) > MAX_CHARACTERS:
        yield status(f"The text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken."), keep, keep
        return
    first = not HUB.is_loaded(run)
    yield status("Loading the model, once…" if first else "Tracing…", busy=True), keep, keep
    started = time.monotonic()
    try:
        with HUB.use(run) as loaded:
            seconds, device = loaded.seconds, loaded.device
        if first:
            yield status(f"Model loaded in {seconds:.1f} s; tracing…", busy=True), keep, keep
        from lpr_lab.measure.routing import trace as trace_text
        from lpr_lab.measure.routing import trace_stages

        asked = time.monotonic()
        with HUB.use(run) as loaded:
            trace = trace_text(loaded.model, loaded.tokenizer, text, language or None, base=False)
        took = time.monotonic() - asked
        name = f"{OWN}-{hashlib.sha256(f'{language}:{text}'.encode()).hexdigest()[:8]}"
        view = View(run=run.id, mode=scene.view.mode)
        count = int(trace.is_text.sum())
        done = f"{count} tokens in {took:.1f} s on {device}"
        yield status(f"{done}; the base and earlier stages follow…", busy=True), *show_trace(run, trace, name, view)
        with HUB.use(run) as loaded:
            trace = trace_stages(loaded.model, loaded.tokenizer, trace)
    except LprError as error:
        yield status(str(error), bad=True), keep, keep
        return
    kept = _keep(run, name, trace)
    # The address stays as it is: the reader may have chosen a token or a layer meanwhile.
    head, strip = show_trace(run, trace, name if kept else OWN, view, restate=not kept)
    where = "kept with the run, so this address shows it again" if kept else "not kept"
    yield status(f"{done} ({time.monotonic() - started:.1f} s in all); {where}."), head, strip


def _keep(run: Run, name: str, trace: RoutingTrace) -> bool:
    if run.is_example:
        return False
    try:
        run.write_trace(name, trace)
    except (LprError, OSError):  # a full or read-only disk: the trace is on the page all the same
        return False
    return True


def trace_beside(runs_dir: Path, query: dict[str, Any]) -> Iterator[str]:
    """Trace the shown text with the second run, and keep it there; yields status lines, the last one empty."""
    scene = shell.look(runs_dir, query)
    other = next((run for run in scene.runs if run.id == scene.view.run2 and run.problem is None), None)
    if scene.run is None or other is None:
        yield status("There is no second run to trace with.")
        return
    yield status(f"{'Tracing' if HUB.is_loaded(other) else 'Loading the model, then tracing'}…", busy=True)
    try:
        name, shown = read(scene.run, scene.view)
        if shown is None:
            yield status("There is no text to trace.")
            return
        from lpr_lab.measure.routing import trace as trace_text
        from lpr_lab.measure.routing import trace_stages

        with HUB.use(other) as loaded:
            trace = trace_text(loaded.model, loaded.tokenizer, shown.text, shown.language, base=False)
            trace = trace_stages(loaded.model, loaded.tokenizer, trace)
        if not _keep(other, name, trace):
            yield status("That run's folder cannot be written to, so the trace was not kept.", bad=True)
            return
    except LprError as error:
        yield status(str(error), bad=True)
        return
    yield status("")


def try_change(runs_dir: Path, way: str, expert: int, layers: str, query: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Run the shown text with an expert forced or banned; yields (status line, what it made of the text).

    Args:
        runs_dir: the folder of runs.
        way: `force` or `ban`.
        expert: which one.
        layers: `all`, or numbers and ranges.
        query: of the page's address.
    """
    scene = shell.look(runs_dir, query)
    keep = gr.skip()
    try:
        stages = read(scene.run, scene.view)[1] if scene.run else None
        if scene.run is None or stages is None:
            yield status("There is no text to run again."), keep
            return
        known = stages.at(scene.view.stage) if scene.view.stage in stages.stage_names else stages
        wanted = layers_in(layers, known.layers.tolist())
        if layers.strip().lower() in ("", "all"):  # where some layers have fewer experts, all that have this one
            wanted = [layer for layer, count in zip(wanted, known.num_experts, strict=True) if expert < count]
        yield status("Running…" if HUB.is_loaded(scene.run) else "Loading the model, once…", busy=True), keep
        from lpr_lab.measure.routing import trace_changed

        started = time.monotonic()
        change = {way: dict.fromkeys(wanted, int(expert))}
        with HUB.use(scene.run) as loaded:
            changed = trace_changed(loaded.model, loaded.tokenizer, known, **change)
    except (LprError, ValueError) as error:
        yield status(str(error), bad=True), keep
        return
    past = "forced" if way == "force" else "banned"
    what = f"Expert {expert} {past} in {say.layers_said(wanted, known.layers.tolist())}"
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
    strip = render_token_strip(changed, colour="gain", linked=False)
    words = say.cost_of_change(changed, what) + same_as_base
    return f'<section class="lpr-card lpr-changed-run">{words}{strip}{say.change_table(changed)}</section>'


# --------------------------------------------------------------------------------------------------- the widgets


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Wire the page."""
    html_block(shell.header("Routing"))
    parts: dict[str, Any] = {"top": html_block(shell.head(QUESTION))}
    with gr.Row(elem_classes="lpr-controls"):
        run = shell.run_picker()
        parts["picker"] = gr.Radio([], label="Text", visible=False, elem_classes="lpr-grow")
    with gr.Row(elem_classes="lpr-controls"):
        parts["stage"] = gr.Radio([], label="Stage", visible=False)
        parts["other"] = gr.Dropdown([], label="Compare with", visible=False, filterable=False)
        with gr.Column(visible=False) as parts["also"]:
            also = gr.Button("Trace it with that run", scale=0)
            also_line = html_block(status(""))
    with gr.Column(visible=False, elem_classes="lpr-own") as parts["own"]:
        text = gr.Textbox(
            label="Your text, in any language",
            lines=3,
            max_length=MAX_CHARACTERS,
            elem_classes="lpr-prompt",
            placeholder="Καλημέρα, κόσμε.",
        )
        with gr.Row(elem_classes="lpr-actions"):
            known = [(f"{language.name}, {language.endonym}", code) for code, language in sorted(LANGUAGES.items())]
            language = gr.Dropdown([("Not said", ""), *known], value="", label="Its language", scale=0, min_width=240)
            parts["go"] = gr.Button("Trace this text", variant="primary", scale=0, interactive=False)
            line = html_block(status(""))
        parts["why"] = html_block()
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
            layers = gr.Textbox("all", label="Layers, such as all or 0-5, 12", max_lines=1, max_length=200)
            try_it = gr.Button("Run it", scale=0)
            try_line = html_block(status(""))
    parts["changed"] = html_block()
    for name in ("languages", "overview"):
        parts[name] = html_block()
    parts["plot"] = gr.Plot(show_label=False, visible=False, elem_classes="lpr-plot lpr-card")
    parts["table"] = html_block()
    outputs = [run, *parts.values()]

    def draw(query: dict[str, Any]) -> list[Any]:
        scene = shell.look(runs_dir, query)
        shown = compose(scene, runs_dir)
        return [shell.show_runs(scene), *(shown[name] for name in parts)]

    def load(request: gr.Request) -> list[Any]:
        return draw(dict(request.query_params))

    def load_compared(request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "view": "change"})

    def choose_run(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "run": chosen, "tok": "", "stage": "", "stage2": "", "run2": ""})

    def choose_text(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "text": chosen, "lang": "", "tok": ""})

    def choose_stage(chosen: str, request: gr.Request) -> list[Any]:
        view = View.from_query(dict(request.query_params))
        other = "" if view.stage2 == chosen and not view.run2 else view.stage2
        return draw({**dict(request.query_params), "stage": chosen, "stage2": other})

    def choose_other(chosen: str, request: gr.Request) -> list[Any]:
        kind, _, name = (chosen or "").partition(":")
        compared = {"run2": name if kind == "run" else "", "stage2": name if kind == "stage" else ""}
        return draw({**dict(request.query_params), **compared, "view": "change" if name else ""})

    def trace_typed(typed: str, code: str, request: gr.Request) -> Iterator[Step]:
        yield from trace_own(runs_dir, typed, code, dict(request.query_params))

    def settle(request: gr.Request) -> list[Any]:
        shown = compose(shell.look(runs_dir, dict(request.query_params)), runs_dir)
        return [shown[name] for name in SETTLED]

    def trace_other(request: gr.Request) -> Iterator[str]:
        yield from trace_beside(runs_dir, dict(request.query_params))

    def change(kind: str, expert: int, where: str, request: gr.Request) -> Iterator[tuple[str, Any]]:
        yield from try_change(runs_dir, kind, expert, where, dict(request.query_params))

    demo.load(load, None, outputs, **FILES)
    run.input(choose_run, [run], outputs, **PICK)
    parts["picker"].input(choose_text, [parts["picker"]], outputs, **PICK)
    parts["stage"].input(choose_stage, [parts["stage"]], outputs, **PICK)
    parts["other"].input(choose_other, [parts["other"]], outputs, **PICK)
    own_outputs = [line, parts["top"], parts["strip"]]
    traced = gr.on([parts["go"].click, text.submit], trace_typed, [text, language], own_outputs, **MODEL)
    traced.then(settle, None, [parts[name] for name in SETTLED], **FILES)
    also.click(trace_other, None, [also_line], **MODEL).then(load_compared, None, outputs, **FILES)
    gr.on([try_it.click, layers.submit], change, [way, parts["expert"], layers], [try_line, parts["changed"]], **MODEL)
