"""Page `/retention`: its components, event handlers and their connections."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.retention.compose import (
    QUESTION,
    compose,
    compose_more,
    earlier,
    read_chosen,
    shown_tokens,
)
from lpr_lab.dashboard.pages.retention.document_controls import DocumentControls
from lpr_lab.dashboard.shell import FILES, PICK, html_block, in_order
from lpr_lab.runs.model_ref import BASE

_WAITING = Markup('<p class="lpr-caption" data-lpr-waiting>Reading the documents that moved and the other runs…</p>')
"""Stands above the lower half until that is about what the upper half shows."""


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Build the page and connect its events."""
    html_block(shell.header("Retention"))
    Page(runs_dir).connect(demo)


class Page:
    """The components, in the order in which the page shows them, and the handlers of their events."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.top = html_block(shell.head(QUESTION))
        with gr.Row(elem_classes="lpr-controls"):
            self.run = shell.run_picker()
            self.before = gr.Dropdown([], label="Before", visible=False, elem_classes="lpr-run", interactive=True)
            self.after = gr.Dropdown([], label="After", visible=False, elem_classes="lpr-run", interactive=True)
            self.dataset = gr.Radio([], label="Measured on", visible=False)
        self.upper = {"before": self.before, "after": self.after, "data": self.dataset, "title": html_block()}
        self.upper |= {"plot": _plot(), "table": html_block()}
        self.why = DocumentControls()
        self.upper |= self.why.parts
        self.waiting = html_block()
        self.lower = {name: html_block() for name in ("tasks", "moved", "controls", "among")}
        self.lower |= {"scatter": _plot(), "points": html_block()}

    def connect(self, demo: gr.Blocks) -> None:
        """Draw the page when it is opened and whenever something is chosen."""
        words = [self.top, self.run, *self.upper.values(), self.waiting]
        events = [demo.load(self.load, None, words, **FILES)]
        reading = self.why.connect(self.read)

        def chosen(control: Any, choose: Any) -> Any:
            given_up = control.input(None, None, None, cancels=[reading], **PICK)
            drawn = given_up.then(in_order(choose), [control], words, **PICK)
            self.why.silence(given_up)
            return drawn

        events += [chosen(self.run, self.choose_run), chosen(self.dataset, self.choose_data)]
        events += [chosen(self.before, self.choose_before), chosen(self.after, self.choose_after)]
        chosen(self.why.language, self.choose_language)
        chosen(self.why.document, self.choose_document)
        # Afterwards, so that words do not wait for the tables of other runs.
        asked, more = [self.run, self.before, self.after, self.dataset], [*self.lower.values(), self.waiting]
        for event in events:
            event.then(in_order(self.load_more), asked, more, **FILES)

    def draw(self, params: dict[str, Any], below: Any = _WAITING) -> list[Any]:
        """Return what the upper half shows for an address."""
        context = shell.page_context(self.runs_dir, params)
        found = compose(context, self.runs_dir) | {"tokens": shown_tokens(context)}
        return [found["top"], shell.show_runs(context), *(found[name] for name in self.upper), below]

    def load(self, request: gr.Request) -> list[Any]:
        """Draw what the address asks for."""
        return self.draw(dict(request.query_params))

    def load_more(self, about: str, was: str, now: str, measured_on: str, request: gr.Request) -> list[Any]:
        """Return what the lower half shows for what was chosen."""
        params = {"run": about or "", "stage": now or "", "data": measured_on or "", **earlier(was or BASE)}
        found = compose_more(shell.page_context(self.runs_dir, params))
        return [*(found[name] for name in self.lower), ""]

    def choose_run(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw another run."""
        nothing = {"run2": "", "stage": "", "stage2": "", "doc": ""}
        return self.draw({**dict(request.query_params), **nothing, "run": chosen})

    def choose_data(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw what was measured on another test set."""
        return self.draw({**dict(request.query_params), "data": chosen, "doc": ""})

    def choose_before(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw the change from another stage, or from another run."""
        return self.draw({**dict(request.query_params), **earlier(chosen)})

    def choose_after(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw the change to another stage."""
        return self.draw({**dict(request.query_params), "stage": chosen})

    def choose_language(self, chosen: str, request: gr.Request) -> list[Any]:
        """Draw what is behind the change of another language."""
        return self.draw({**dict(request.query_params), "lang": chosen, "doc": ""}, gr.skip())

    def choose_document(self, chosen: Any, request: gr.Request) -> list[Any]:
        """Draw another document."""
        return self.draw({**dict(request.query_params), "doc": "" if chosen is None else chosen}, gr.skip())

    def read(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Read the chosen document token by token."""
        yield from read_chosen(shell.page_context(self.runs_dir, dict(request.query_params)))


def _plot() -> gr.Plot:
    return gr.Plot(show_label=False, visible=False, elem_classes="lpr-plot lpr-card")
