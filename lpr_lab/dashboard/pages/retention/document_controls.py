"""The components below the table of page `/retention`: where a change comes from, and the tokens of one document."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.shell import FILES, MODEL, html_block, status

_HEADING = Markup(
    '<section class="lpr-section" id="lpr-causes"><h2>Where does the change come from?</h2>'
    '<p class="lpr-caption">One language at a time: by slice of its tokens, by document, and token by token in one '
    "document.</p></section>"
)


class DocumentControls:
    """The widgets, made in the order in which the page shows them, and the event that reads a document."""

    def __init__(self) -> None:
        with gr.Column(visible=False) as self.column:
            html_block(_HEADING)
            with gr.Row(elem_classes="lpr-controls"):
                self.language = gr.Radio([], label="Language", visible=False, elem_classes="lpr-grow")
            self.causes = html_block()
            with gr.Row(elem_classes="lpr-controls"):
                self.document = gr.Dropdown(
                    [], label="Document", visible=False, interactive=True, elem_classes="lpr-run", min_width=300
                )
            with gr.Row(elem_classes="lpr-actions"):
                self.read = gr.Button("Colour its tokens by change", scale=0, visible=False, interactive=False)
                self.stop = gr.Button("Cancel", scale=0, visible=False)
                self.line = html_block(status(""))
            self.why_not = html_block()
            self.tokens = html_block(elem_id="lpr-document")

    @property
    def parts(self) -> dict[str, Any]:
        """What the page fills, by name."""
        return {
            "why": self.column,
            "lang": self.language,
            "causes": self.causes,
            "doc": self.document,
            "read": self.read,
            "why_not": self.why_not,
            "tokens": self.tokens,
        }

    def connect(self, read: Callable[..., Iterator[tuple[Any, ...]]]) -> Any:
        """Let the button read the document, in the queue for models; returns the event."""
        shown = [self.line, self.tokens, self.stop]
        waiting = (
            lambda said: (status(said, busy=True), gr.skip(), gr.update(visible=True)),
            lambda said: (status(said, bad=True), gr.skip(), gr.update(visible=False)),
        )
        reading = self.read.click(queued(read, *waiting), None, shown, **MODEL)
        halted = self.stop.click(None, None, None, cancels=[reading], **FILES)
        halted.then(lambda: [status("Cancelled."), gr.update(visible=False)], None, [self.line, self.stop], **FILES)
        return reading

    def silence(self, event: Any) -> None:
        """Clear what is said of one document when another one is chosen."""
        event.then(lambda: [status(""), gr.update(visible=False)], None, [self.line, self.stop], **FILES)
