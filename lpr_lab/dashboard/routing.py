"""Page `/routing`: where did each token of this text go, and was that right for its language?"""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.model_hub import HUB, why_not
from lpr_lab.dashboard.shell import FILES, MODEL, Scene, esc, html_block, status
from lpr_lab.dashboard.view import View
from lpr_lab.errors import LprError
from lpr_lab.experiments.runs import Run
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.text.languages import LANGUAGES
from lpr_lab.views import plots
from lpr_lab.views.numbers import percent
from lpr_lab.views.plots import dataset_name, language_name
from lpr_lab.views.tokens import render_token_strip

QUESTION = "Where did each token of this text go?"
OWN = "own"
"""Value of the text picker for a text of one's own; stored ones are called `own-<8 hex digits>`."""

MAX_CHARACTERS = 4000
MAX_OWN = 12
"""Texts of one's own that the picker offers; the others stay reachable by their address."""

ORIGINAL_TARGET = 0.9
"""What the method promises on original languages at least (experiments/scorecard.py), on expanded ones at most half."""


def role_of(run: Run | None, code: str | None) -> str | None:
    """Return `original` or `expanded`, or None for a language the run knows nothing of."""
    if run is None or not code:
        return None
    original, expanded = shell.languages_of(run)
    return "original" if code in original else "expanded" if code in expanded else None


def finding(trace: RoutingTrace, role: str | None) -> str:
    """Return in plain words how much of the work the original expert did, against what it should have been."""
    if not len(trace.layers) or not trace.is_text.any():
        return "This model has no router: every token took the one path there is."
    share = trace.original_share()
    name = esc(language_name(trace.language or ""))
    experts = "the new experts" if int(trace.num_experts.max()) > 2 else "the new expert"
    if role == "original":
        judged = (
            "as it should be" if share >= ORIGINAL_TARGET else f"less than the {percent(ORIGINAL_TARGET)} it should be"
        )
        return (
            f'{name} is an <span class="lpr-original">original language</span>: {percent(share)} of the weight went to '
            f"the original expert, {judged}."
        )
    if role == "expanded":
        return (
            f'{name} is an <span class="lpr-expanded">expanded language</span>: {percent(1 - share)} of the weight '
            f"went to {experts}, {percent(share)} to the original one."
        )
    split = f"{percent(share)} of the weight went to the original expert, {percent(1 - share)} to {experts}"
    if not trace.language:
        return f"No language was said for this text: {split}."
    return f"{name} is neither an original nor an expanded language of this run: {split}."


def detail(trace: RoutingTrace) -> str:
    """Return a second sentence: tokens, layers, and what the expansion changed in bits."""
    text, marks = int(trace.is_text.sum()), int((~trace.is_text).sum())
    mark = f" and {marks} mark{'s' if marks != 1 else ''} ◆" if marks else ""
    parts = [f"{text} token{'s' if text != 1 else ''}{mark}, {len(trace.layers)} layers with a router"]
    if trace.log_prob is not None and trace.base_log_prob is not None and trace.text:
        size = len(trace.text.encode())
        bits = [
            -float(v[trace.is_text].sum()) / 0.6931471805599453 / size for v in (trace.base_log_prob, trace.log_prob)
        ]
        if all(value == value for value in bits):
            parts.append(f"bits per byte of this text: base {bits[0]:.2f}, expanded {bits[1]:.2f}")
    meaning = "Weight: how much an expert's output counts in a layer; a token's weights sum to 1."
    return f'<span class="lpr-more">{esc("; ".join(parts))}. {meaning}</span>'


def examples(run: Run) -> list[tuple[str, str]]:
    """Return (label, name) of the stored texts: languages first, in the run's order, then one's own."""
    original, expanded = shell.languages_of(run)
    names = list(run.trace_names())
    ranked = [code for code in (*original, *expanded) if code in names]
    ranked += [name for name in names if name not in ranked and not name.startswith(f"{OWN}-")]
    own = [name for name in names if name.startswith(f"{OWN}-")][:MAX_OWN]
    labels = [(language_name(name) if name in LANGUAGES else name.capitalize(), name) for name in ranked]
    return labels + [(f"Own text {number}", name) for number, name in enumerate(own, start=1)]


def read(run: Run, view: View) -> tuple[str, RoutingTrace | None]:
    """Return the name of the text the address asks for, else of the first expanded language, and its trace."""
    names = [name for _, name in examples(run)]
    _, expanded = shell.languages_of(run)
    wanted = (view.text, view.lang, *expanded, *names)
    name = next((name for name in wanted if name in run.trace_names()), "")
    return name, run.read_trace(name) if name else None


def show_trace(run: Run, trace: RoutingTrace, name: str, view: View, notice: str = "") -> tuple[str, str]:
    """Return the page's head and the token strip for one trace."""
    view = View.from_query({**vars(view), "run": run.id, "text": name, "lang": trace.language or ""})
    sentence = finding(trace, role_of(run, trace.language)) + detail(trace)
    strip = render_token_strip(
        trace, layer=view.layer, token=view.tok, mode=view.mode or "reading", colour=view.view or "original"
    )
    return shell.head(QUESTION, sentence, notice, view=view), f'<div class="lpr-card">{strip}</div>'


def overview(run: Run | None) -> tuple[str, Any, str]:
    """Return heading, plot and table of the original expert's weight by layer and language, or an honest absence."""
    load = run.read_table("load") if run else None
    if load is None or load.empty:
        return "", gr.update(visible=False, value=None), ""
    data = sorted(set(load["dataset"]), key=lambda name: name != "heldout")[0]
    rows = load[load["dataset"] == data]
    figure = plots.load_heatmap(rows)
    title = plots.take_title(figure)
    tokens = int(rows["n_tokens"].groupby(rows["language"]).first().sum())
    caption = (
        f"{dataset_name(data)}; {tokens:,} tokens in all; layer 0 on top, the original languages left of the line."
    )
    heading = (
        f'<section class="lpr-section"><h2>Over whole documents</h2><p class="lpr-subfinding">{esc(title)}.</p>'
        f'<p class="lpr-caption">{esc(caption)}</p></section>'
    )
    return heading, gr.update(value=figure, visible=True), _load_table(rows[rows["expert"] == 0])


def _load_table(rows: Any) -> str:
    """Return the plot's numbers as a table."""
    table = rows.pivot_table(index="layer", columns="language", values="mass")
    codes = list(dict.fromkeys(rows["language"]))
    heads = "".join(f'<th scope="col" class="lpr-number">{esc(language_name(code))}</th>' for code in codes)
    body = "".join(
        f'<tr><th scope="row">{layer}</th>'
        + "".join(f'<td class="lpr-number">{percent(table.loc[layer, code])}</td>' for code in codes)
        + "</tr>"
        for layer in table.index
    )
    return (
        '<details class="lpr-fold"><summary>Show as a table</summary><div class="lpr-scroll">'
        '<table class="lpr-table lpr-plain"><caption class="lpr-hidden">Mean weight of the original expert by layer '
        f'and language</caption><thead><tr><th scope="col">Layer</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
        "</div></details>"
    )


def compose(scene: Scene, runs_dir: Path) -> dict[str, Any]:
    """Return what each part of the page shows."""
    parts: dict[str, Any] = {
        "picker": gr.update(visible=False),
        "own": gr.update(visible=False),
        "why": "",
        "go": gr.update(interactive=False),
        "overview": "",
        "plot": gr.update(visible=False, value=None),
        "table": "",
    }
    run = scene.run
    if run is None:
        top = shell.head(QUESTION, more=scene.notice, view=scene.view)
        return parts | {"top": top, "strip": shell.no_runs(runs_dir)}
    reason = why_not(run)
    try:
        choices = examples(run)
        asks_own = scene.view.text == OWN or not choices
        name, trace = (OWN, None) if asks_own else read(run, scene.view)
        parts["overview"], parts["plot"], parts["table"] = overview(run)
    except LprError as error:
        more = scene.notice + shell.notice("bad", esc(str(error)))
        return parts | {"top": shell.head(QUESTION, more=more, view=scene.view), "strip": ""}
    parts["picker"] = gr.update(choices=[*choices, ("Your own text", OWN)], value=name, visible=True)
    parts["own"] = gr.update(visible=name == OWN)
    parts["go"] = gr.update(interactive=reason is None)
    if reason is not None:
        line = f"{esc(reason)} A new text needs a run with weights: {shell.command('lpr-lab demo')}"
        parts["why"] = shell.notice("info", line)
    if trace is None:
        lead = "Type a sentence in any language." if reason is None else ""
        strip = "" if choices or reason is None else _no_trace(run)
        return parts | {"top": shell.head(QUESTION, lead, scene.notice, view=scene.view), "strip": strip}
    top, strip = show_trace(run, trace, name, scene.view, scene.notice)
    return parts | {"top": top, "strip": strip}


def _no_trace(run: Run) -> str:
    return shell.missing(
        "No text was traced in this run",
        "Sample texts are traced near the end of a run. Start the same command again: it goes on where it stopped.",
        "lpr-lab demo",
    )


def trace_own(runs_dir: Path, text: str, language: str | None, query: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Trace a text of the reader's with the run's model; yields (status line, head, strip) as it gets on."""
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

        asked = time.monotonic()
        with HUB.use(run) as loaded:
            trace = trace_text(loaded.model, loaded.tokenizer, text, language or None)
        took = time.monotonic() - asked
    except LprError as error:
        yield status(str(error), bad=True), keep, keep
        return
    name = f"{OWN}-{hashlib.sha256(f'{language}:{text}'.encode()).hexdigest()[:8]}"
    kept = _keep(run, name, trace)
    head, strip = show_trace(run, trace, name if kept else OWN, View(run=run.id, mode=scene.view.mode))
    where = "kept with the run, so this address shows it again" if kept else "not kept"
    count, total = int(trace.is_text.sum()), time.monotonic() - started
    done = f"{count} tokens in {took:.1f} s on {device} ({total:.1f} s in all); {where}."
    yield status(done), head, strip


def _keep(run: Run, name: str, trace: RoutingTrace) -> bool:
    if run.is_example:
        return False
    try:
        run.write_trace(name, trace)
    except (LprError, OSError):  # a full or read-only disk: the trace is on the page all the same
        return False
    return True


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Wire the page."""
    html_block(shell.header("Routing"))
    top = html_block(shell.head(QUESTION))
    with gr.Row(elem_classes="lpr-controls"):
        run = shell.run_picker()
        picker = gr.Radio([], label="Text", visible=False, elem_classes="lpr-grow")
    with gr.Column(visible=False, elem_classes="lpr-own") as own:
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
            go = gr.Button("Trace this text", variant="primary", scale=0, interactive=False)
            line = html_block(status(""))
        why = html_block()
    strip = html_block(elem_id="lpr-text")
    below = html_block()
    plot = gr.Plot(show_label=False, visible=False, elem_classes="lpr-plot lpr-card")
    table = html_block()
    outputs = [top, run, picker, own, why, go, strip, below, plot, table]

    def draw(query: dict[str, Any]) -> list[Any]:
        scene = shell.look(runs_dir, query)
        parts = compose(scene, runs_dir)
        keys = ("picker", "own", "why", "go", "strip", "overview", "plot", "table")
        return [parts["top"], shell.show_runs(scene), *(parts[key] for key in keys)]

    def load(request: gr.Request) -> list[Any]:
        return draw(dict(request.query_params))

    def choose_run(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "run": chosen, "tok": ""})

    def choose_text(chosen: str, request: gr.Request) -> list[Any]:
        return draw({**dict(request.query_params), "text": chosen, "lang": "", "tok": ""})

    def trace_typed(typed: str, code: str, request: gr.Request) -> Iterator[tuple[str, Any, Any]]:
        yield from trace_own(runs_dir, typed, code, dict(request.query_params))

    demo.load(load, None, outputs, **FILES)
    run.input(choose_run, [run], outputs, **FILES)
    picker.input(choose_text, [picker], outputs, **FILES)
    gr.on([go.click, text.submit], trace_typed, [text, language], [line, top, strip], **MODEL)
