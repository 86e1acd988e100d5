"""Page `/routing`: its components, event handlers and their connections."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing.causal import HEADING, ask_cell, work_out
from lpr_lab.dashboard.pages.routing.compose import QUESTION, compose
from lpr_lab.dashboard.pages.routing.guesses import GuessControls, read_layers
from lpr_lab.dashboard.pages.routing.own_texts import (
    Called,
    OwnControls,
    delete_own,
    delete_shown_group,
    group_of_shown,
    import_own,
    keep_own,
    rename_own,
    trace_own,
)
from lpr_lab.dashboard.pages.routing.segments.controls import SegmentControls
from lpr_lab.dashboard.pages.routing.segments.show import VIEW
from lpr_lab.dashboard.pages.routing.texts import say_unreadable
from lpr_lab.dashboard.pages.routing.what_if import HEADING as WHAT_IF
from lpr_lab.dashboard.pages.routing.what_if import trace_beside, try_change
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.shell import FILES, MODEL, PICK, html_block, in_order, is_busy, status

SHOWN = (
    *("top", "picker", "kept", "stage", "other", "also"),
    *("own", "text", "language", "go", "why", "keeping", "note", "name", "group", "keep", "replace", "rename"),
    *("delete", "sure", "sure_group", "never_mind", "strip", "causal", "causal_map", "causal_cell"),
    *("guesses", "guesses_grid", "what_if", "expert", "changed"),
    *("segment", "segment_pick", "segment_why", *VIEW),
    *("languages", "overview", "plot", "table"),
)
"""The components that the address decides, after the picker of runs, in the order of `Page.draw`."""


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Build the page and connect its events."""
    html_block(shell.header("Routing"))
    made = Page(runs_dir)
    demo.load(made.load, None, made.outputs, **FILES)
    made.connect_stages()
    traced = made.connect_own_text()
    compared, tried = made.connect_second_run(), made.connect_what_if()
    layers_read = made.guesses.connect(queued(made.read_layers, *_waiting(gr.skip())))
    made.connect_stopping(traced, compared, tried, made.connect_causal(), layers_read)
    made.segments.connect(demo, made.run)


class Page:
    """The components, the handlers of their events, and the connections between them."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.parts: dict[str, Any] = {"top": html_block(shell.head(QUESTION))}
        self._add_pickers()
        self.own = OwnControls()
        self.parts |= self.own.parts
        self.parts["strip"] = html_block(elem_id="lpr-text")
        self._add_causal()
        self.guesses = GuessControls()
        self.parts |= self.guesses.parts
        self._add_what_if()
        self.parts["changed"] = html_block()
        self.segments = SegmentControls(runs_dir)
        self.parts |= self.segments.parts
        for name in ("languages", "overview"):
            self.parts[name] = html_block()
        self.parts["plot"] = gr.Plot(show_label=False, visible=False, elem_classes="lpr-plot lpr-card")
        self.parts["table"] = html_block()
        self.outputs = [self.run, *(self.parts[name] for name in SHOWN)]

    def _add_pickers(self) -> None:
        parts = self.parts
        with gr.Row(elem_classes="lpr-controls"):
            self.run = shell.run_picker()
            parts["picker"] = gr.Radio([], label="Text", visible=False, elem_classes="lpr-grow")
            parts["kept"] = gr.Dropdown([], label="Texts kept by readers", visible=False, scale=0, min_width=220)
        with gr.Row(elem_classes="lpr-controls"):
            parts["stage"] = gr.Radio([], label="Stage", visible=False)
            parts["other"] = gr.Dropdown([], label="Compare with", visible=False, filterable=False)
            with gr.Column(visible=False) as parts["also"]:
                self.also = gr.Button("Trace it with that run", scale=0)
                self.also_stop = gr.Button("Cancel", scale=0, visible=False)
                self.also_line = html_block(status(""))

    def _add_causal(self) -> None:
        with gr.Column(visible=False, elem_classes="lpr-what-if") as self.parts["causal"]:
            html_block(HEADING)
            with gr.Row(elem_classes="lpr-actions"):
                self.work_it_out = gr.Button("Work it out", scale=0)
                self.causal_stop = gr.Button("Stop", scale=0, visible=False)
                self.causal_line = html_block(status(""))
            self.parts["causal_map"] = html_block(elem_id="lpr-causal")
            self.parts["causal_cell"] = html_block()

    def _add_what_if(self) -> None:
        with gr.Column(visible=False, elem_classes="lpr-what-if") as self.parts["what_if"]:
            html_block(WHAT_IF)
            with gr.Row(elem_classes="lpr-actions"):
                self.way = gr.Radio([("Force", "force"), ("Ban", "ban")], value="force", label="Change")
                self.parts["expert"] = gr.Dropdown(
                    [("Expert 0, the original", 0)], value=0, label="Expert", filterable=False
                )
                self.layers = gr.Textbox("all", label="Layers, such as all or 0-5, 12", max_lines=1)
                self.try_it = gr.Button("Run it", scale=0)
                self.try_stop = gr.Button("Cancel", scale=0, visible=False)
                self.try_line = html_block(status(""))

    # Connections

    def connect_stages(self) -> None:
        """Draw the page anew for another stage, or another one to compare with."""
        for name, choose in (("stage", self.choose_stage), ("other", self.choose_other)):
            self.parts[name].input(in_order(choose), [self.parts[name]], self.outputs, **PICK)

    def connect_own_text(self) -> Any:
        """Trace, keep, rename and delete a text of the reader's; returns the event that traces."""
        own, said = self.own, [self.own.kept_line, *self.outputs]
        outputs = [own.line, self.parts["top"], self.parts["strip"], own.stop]
        trace = queued(self.trace_typed, *own.waiting)
        traced = gr.on([own.go.click, own.text.submit], trace, [own.text, own.language], outputs, **MODEL)
        # Not after a cancelling: whatever was chosen instead is being drawn then.
        traced.success(self.settle, None, self.outputs, **FILES)
        called = [own.name, own.group, own.text]
        own.keep.click(self.named(keep_own), called, said, **FILES)
        own.replace.click(self.named(keep_own, replace=True), called, said, **FILES)
        own.rename.click(self.named(rename_own), called, said, **FILES)
        own.bring.click(self.bring, [own.lines, own.into, own.spoken], [own.brought, *said[1:]], **FILES)
        own.sure.click(self.delete, None, said, **FILES)
        own.sure_group.click(self.delete_group, None, said, **FILES)
        asking = [own.delete, own.sure, own.sure_group, own.never_mind]
        own.delete.click(self.ask_what_to_delete, None, asking, **FILES)
        own.never_mind.click(lambda: [gr.update(visible=v) for v in (True, False, False, False)], None, asking, **FILES)
        return traced

    def connect_second_run(self) -> Any:
        """Trace the text with the second run; returns the event."""
        trace = queued(self.trace_other, *_waiting())
        compared = self.also.click(trace, None, [self.also_line, self.also_stop], **MODEL)
        compared.success(self.load_compared, None, self.outputs, **FILES)
        return compared

    def connect_what_if(self) -> Any:
        """Run the text with an expert forced or banned; returns the event."""
        inputs = [self.way, self.parts["expert"], self.layers]
        shown = [self.try_line, self.parts["changed"], self.try_stop]
        change = queued(self.change, *_waiting(gr.skip()))
        return gr.on([self.try_it.click, self.layers.submit], change, inputs, shown, **MODEL)

    def connect_causal(self) -> Any:
        """Work out the causal map, and answer what is asked of its cells; returns the event of the map."""
        shown = [self.causal_line, self.parts["causal_map"], self.parts["causal_cell"], self.causal_stop]
        waiting = _waiting(gr.skip(), gr.skip())
        worked = self.work_it_out.click(queued(self.work_out, *waiting), None, shown, **MODEL)
        asked = {**MODEL, "trigger_mode": "always_last"}
        self.parts["causal_map"].click(queued(self.ask_cell, *waiting), None, shown, **asked)
        return worked

    def connect_stopping(self, traced: Any, compared: Any, tried: Any, worked: Any, layers_read: Any) -> None:
        """Let the reader cancel what is computed; another run or text cancels all of it."""
        stops = (
            (self.own.stop, traced, self.own.line),
            (self.also_stop, compared, self.also_line),
            (self.try_stop, tried, self.try_line),
        )
        for stop, work, line in stops:
            halted = stop.click(None, None, None, cancels=[work], **FILES)
            halted.then(self.cancelled, None, [line, stop, *self.outputs], **FILES)
        halted = self.causal_stop.click(None, None, None, cancels=[worked], **FILES)
        halted.then(stopped, None, [self.causal_line, self.causal_stop], **FILES)
        # What was asked for a text is not shown under another one.
        lines = [part for stop, _, line in stops for part in (line, stop)] + [self.causal_line, self.causal_stop]
        lines += [self.guesses.line, self.guesses.stop]
        texts = ((self.parts[name], self.choose_text) for name in ("picker", "kept"))
        for control, choose in ((self.run, self.choose_run), *texts):
            given_up = control.input(None, None, None, cancels=[traced, compared, tried, worked, layers_read], **PICK)
            given_up.then(in_order(choose), [control], self.outputs, **PICK)
            given_up.then(silence, None, lines, **FILES)

    # Handlers: what is shown

    def draw(self, request: gr.Request, **changes: str) -> list[Any]:
        """Return what `outputs` show for the address, with some of it changed."""
        return self.draw_for({**dict(request.query_params), **changes})

    def draw_for(self, params: dict[str, Any]) -> list[Any]:
        """Return what `outputs` show for the parameters of an address."""
        context = say_unreadable(shell.page_context(self.runs_dir, params), params)
        shown = compose(context, self.runs_dir)
        return [shell.show_runs(context), *(shown[name] for name in SHOWN)]

    def load(self, request: gr.Request) -> list[Any]:
        """Draw the page for its address."""
        return self.draw(request)

    def load_compared(self, request: gr.Request) -> list[Any]:
        """Draw what another run does otherwise."""
        return self.draw(request, view="change")

    def choose_run(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw another run."""
        return self.draw(request, run=chosen, tok="", stage="", stage2="", run2="", cause="", guess="", segment="")

    def choose_text(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw another text."""
        return self.draw(request, text=chosen, lang="", tok="", cause="", guess="")

    def choose_stage(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw another stage; it is not compared with itself."""
        query = Query.parse(dict(request.query_params))
        other = "" if query.stage2 == chosen and not query.run2 else query.stage2
        return self.draw(request, stage=chosen, stage2=other, cause="", guess="")

    def choose_other(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw what has changed since another stage or run."""
        kind, _, name = (chosen or "").partition(":")
        compared = {"run2": name if kind == "run" else "", "stage2": name if kind == "stage" else ""}
        return self.draw(request, **compared, view="change" if name else "")

    def settle(self, request: gr.Request) -> list[Any]:
        """Draw all by the address, but for the box of text, in which somebody may be typing on."""
        names = ("run", *SHOWN)
        drawn = dict(zip(names, self.draw(request), strict=True))
        return list((drawn | {"text": gr.skip(), "language": gr.skip()}).values())

    def cancelled(self, request: gr.Request) -> list[Any]:
        """Say that nothing was traced, and draw what was there before."""
        return [status("Cancelled; nothing was traced."), gr.update(visible=False), *self.draw(request)]

    # Handlers: what uses a model, and what is kept

    def trace_typed(self, typed: str, code: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Trace a typed text."""
        for step in trace_own(self.runs_dir, typed, code, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    def trace_other(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Trace the text with the second run."""
        for line in trace_beside(self.runs_dir, dict(request.query_params)):
            yield line, gr.update(visible=is_busy(line))

    def work_out(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Work out the causal map of the text."""
        for step in work_out(self.runs_dir, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    def read_layers(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Read what every layer would say next."""
        for step in read_layers(self.runs_dir, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    def ask_cell(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Say what the model expects at a cell of the map."""
        for step in ask_cell(self.runs_dir, dict(request.query_params)):
            yield *step, gr.update(visible=False)

    def change(self, kind: str, expert: int, where: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Run the text with an expert forced or banned."""
        for step in try_change(self.runs_dir, kind, expert, where, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    def named(self, act: Callable[..., tuple[str, dict[str, Any]]], **options: Any) -> Callable[..., list[Any]]:
        """Return the handler of a button that keeps or renames the text under the name and group that were typed."""

        def handle(name: str, group: str, text: str, request: gr.Request) -> list[Any]:
            said, params = act(self.runs_dir, Called(name, group, text), dict(request.query_params), **options)
            return [said, *self.draw_for(params)]

        return handle

    def bring(self, lines: str, group: str, language: str | None, request: gr.Request) -> list[Any]:
        """Keep one text for each line."""
        said, params = import_own(self.runs_dir, lines, group, language, dict(request.query_params))
        return [said, *self.draw_for(params)]

    def ask_what_to_delete(self, request: gr.Request) -> list[Any]:
        """Ask whether the text is to be deleted, and where it has company, whether all of its group are."""
        group, count = group_of_shown(self.runs_dir, dict(request.query_params))
        whole = gr.update(visible=count > 1, value=f"Delete all {count} texts of “{group}”")
        return [gr.update(visible=False), gr.update(visible=True), whole, gr.update(visible=True)]

    def delete_group(self, request: gr.Request) -> list[Any]:
        """Delete all texts of the group."""
        said, params = delete_shown_group(self.runs_dir, dict(request.query_params))
        return [said, *self.draw_for(params)]

    def delete(self, request: gr.Request) -> list[Any]:
        """Delete the text."""
        said, params = delete_own(self.runs_dir, dict(request.query_params))
        return [said, *self.draw_for(params)]


def silence() -> list[Any]:
    """Clear the status lines of all five computations, and hide their buttons."""
    return [one for _ in range(5) for one in (status(""), gr.update(visible=False))]


def stopped() -> list[Any]:
    """Say that a causal map was stopped, and hide the button that stops it."""
    return [status("Stopped; nothing was kept."), gr.update(visible=False)]


def _waiting(*rest: Any) -> tuple[Callable[[str], tuple[Any, ...]], Callable[[str], tuple[Any, ...]]]:
    """Return what shows that one waits, and that too many do: a line, what stays, and the button that cancels."""
    return (
        lambda said: (status(said, busy=True), *rest, gr.update(visible=True)),
        lambda said: (status(said, bad=True), *rest, gr.update(visible=False)),
    )
