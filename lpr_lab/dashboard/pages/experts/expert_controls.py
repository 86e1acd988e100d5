"""The components that show one expert on page `/experts`, and the events that find its contexts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard.pages.experts.expert import PARTS, find_now
from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.shell import FILES, MODEL, html_block, is_busy, status


class ExpertControls:
    """The widgets, made in the order in which the page shows them."""

    def __init__(self) -> None:
        self.head = html_block()
        with gr.Row(elem_classes="lpr-actions"):
            self.find = gr.Button("Find its contexts", scale=0, visible=False)
            self.leave_out = gr.Button("Leave it out and score again", scale=0, visible=False)
            self.stop = gr.Button("Stop", scale=0, visible=False)
            self.line = html_block(status(""))
        self.contexts = html_block()

    @property
    def parts(self) -> dict[str, Any]:
        """What the page fills, by name."""
        return dict(zip(PARTS, (self.head, self.find, self.leave_out, self.contexts), strict=True))

    def connect(self, runs_dir: Path, draw: Callable[[gr.Request], list[Any]]) -> None:
        """Let the buttons find contexts, in the queue for models.

        Args:
            runs_dir: the folder of runs.
            draw: returns what `parts` show for the address as it is then.
        """
        shown = [self.line, self.stop]
        waiting = (
            lambda said: (status(said, busy=True), gr.update(visible=True)),
            lambda said: (status(said, bad=True), gr.update(visible=False)),
        )
        working = []
        for button, leave_out in ((self.find, False), (self.leave_out, True)):
            work = button.click(queued(_finding(runs_dir, leave_out), *waiting), None, shown, **MODEL)
            # Drawn from the address as it is by then: the reader may have chosen another expert meanwhile.
            work.success(draw, None, list(self.parts.values()), **FILES)
            working.append(work)
        halted = self.stop.click(None, None, None, cancels=working, **FILES)
        halted.then(lambda: [status("Stopped; nothing was kept."), gr.update(visible=False)], None, shown, **FILES)


def _finding(runs_dir: Path, leave_out: bool) -> Callable[[gr.Request], Iterator[tuple[Any, Any]]]:
    def find(request: gr.Request) -> Iterator[tuple[Any, Any]]:
        for line in find_now(runs_dir, dict(request.query_params), leave_out=leave_out):
            yield line, gr.update(visible=is_busy(line))

    return find
