"""The widgets for one segment in many languages, their handlers, and the connections between them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing.segments.show import VIEW, lines_of
from lpr_lab.dashboard.pages.routing.segments.work import compare_chosen, compare_typed, find_segments
from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.shell import FILES, MODEL, PICK, html_block, is_busy, status

HEADING = Markup(
    '<section class="lpr-section"><h2>One segment in many languages</h2><p class="lpr-caption">The same text in every '
    "language, routed side by side: how far each is from a reference, English where there is one, layer by layer, "
    "and how much of that is chance. Nothing is saved.</p></section>"
)


class SegmentControls:
    """The widgets, made in the order in which the page shows them."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        with gr.Column(visible=False, elem_classes="lpr-what-if lpr-many-languages") as self.column:
            html_block(HEADING)
            with gr.Row(elem_classes="lpr-controls"):
                self.pick = gr.Dropdown([], label="Segment", filterable=False, interactive=True)
            with gr.Row(elem_classes="lpr-actions"):
                self.go = gr.Button("Compare its languages", scale=0)
                self.find = gr.Button("Find segments in the held-out text", scale=0)
            self.why = html_block()
            self.lines = gr.Textbox(
                label="Or your own: a line per language, of which any may stay empty",
                lines=4,
                max_lines=24,
                elem_classes="lpr-prompt lpr-segment-lines",
            )
            with gr.Row(elem_classes="lpr-actions"):
                self.go_lines = gr.Button("Compare these texts", scale=0)
                self.stop = gr.Button("Stop", scale=0, visible=False)
                self.line = html_block(status(""))
            plot = {"show_label": False, "visible": False, "elem_classes": "lpr-plot lpr-card"}
            shown = [gr.Plot(**plot) if name in ("segment_bits", "segment_alike") else html_block() for name in VIEW]
            self.view: dict[str, Any] = dict(zip(VIEW, shown, strict=True))

    @property
    def parts(self) -> dict[str, Any]:
        """What `compose` fills, by name."""
        return {"segment": self.column, "segment_pick": self.pick, "segment_why": self.why, **self.view}

    def connect(self, demo: gr.Blocks, run: gr.Dropdown) -> None:
        """Find, compare and stop; another run begins anew.

        Args:
            demo: the app, whose page fills the box when it is opened.
            run: the picker of runs.
        """
        shown = [self.line, *self.view.values(), self.stop]
        found = self.find.click(
            queued(self._find, *_waiting(2)),
            None,
            [self.line, self.pick, self.why, self.stop],
            **MODEL,
        )
        chosen = self.go.click(queued(self._compare_chosen, *_waiting(len(VIEW))), [self.pick], shown, **MODEL)
        typed = self.go_lines.click(queued(self._compare_typed, *_waiting(len(VIEW))), [self.lines], shown, **MODEL)
        work: Any = [found, chosen, typed]
        halted = self.stop.click(None, None, None, cancels=work, **FILES)
        halted.then(_stopped, None, [self.line, self.stop], **FILES)
        demo.load(self._fill, None, [self.lines], **FILES)
        given_up = run.input(None, None, None, cancels=work, **PICK)
        given_up.then(self._begin_anew, [run], [self.lines, self.line, self.stop], **PICK)

    # Handlers

    def _find(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        for step in find_segments(self.runs_dir, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    def _compare_chosen(self, key: str | None, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        for step in compare_chosen(self.runs_dir, key, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    def _compare_typed(self, typed: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        for step in compare_typed(self.runs_dir, typed, dict(request.query_params)):
            yield *step, gr.update(visible=is_busy(step[0]))

    def _fill(self, request: gr.Request) -> str:
        context = shell.page_context(self.runs_dir, dict(request.query_params))
        return lines_of(context.run, context.query)

    def _begin_anew(self, chosen: str, request: gr.Request) -> tuple[str, str, Any]:
        context = shell.page_context(self.runs_dir, {**dict(request.query_params), "run": chosen, "segment": ""})
        return lines_of(context.run, context.query), status(""), gr.update(visible=False)


def _stopped() -> list[Any]:
    return [status("Stopped; nothing was kept."), gr.update(visible=False)]


def _waiting(count: int) -> tuple[Any, Any]:
    """Return what shows that one waits, and that too many do; `count` parts before the button stay as they are."""
    return (
        lambda said: (status(said, busy=True), *(gr.skip() for _ in range(count)), gr.update(visible=True)),
        lambda said: (status(said, bad=True), *(gr.skip() for _ in range(count)), gr.update(visible=False)),
    )
