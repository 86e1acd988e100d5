"""Notes and tags of the chosen run, written on page `/`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.shell import PageContext, html_block, status
from lpr_lab.errors import LprError
from lpr_lab.runs.housekeeping import retag, tags_of
from lpr_lab.runs.people.notes import MAX_CHARACTERS, read_notes, why_read_only, write_notes
from lpr_lab.runs.run import Run


@dataclass(frozen=True)
class Seen:
    """What the boxes were filled with: of which run, and what it said then."""

    run: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()


class WritingControls:
    """The widgets, made in the order in which the page shows them."""

    def __init__(self) -> None:
        with gr.Column(visible=False, elem_classes="lpr-writing") as self.column:
            with gr.Accordion("Write notes and tags", open=False, elem_classes="lpr-own"):
                self.notes = gr.Textbox(
                    label="Notes on this run, plain text",
                    lines=3,
                    max_lines=12,
                    elem_classes=["lpr-prompt", f"lpr-limit-{MAX_CHARACTERS}"],
                )
                with gr.Row(elem_classes="lpr-actions"):
                    self.tags = gr.Textbox(label="Tags, with blanks between them", max_lines=1, scale=0, min_width=280)
                    self.save = gr.Button("Save", scale=0)
                    self.line = html_block(status(""))
        self.seen = gr.State(Seen())

    @property
    def parts(self) -> list[Any]:
        """What `fill` and `save` return values for."""
        return [self.column, self.notes, self.tags, self.line, self.seen]


def fill(context: PageContext, seen: Seen) -> list[Any]:
    """Return what the widgets show for the chosen run; they keep what is being typed while the run is the same."""
    run = context.run
    if run is None or why_read_only(run):
        return [gr.update(visible=False), gr.skip(), gr.skip(), gr.skip(), Seen()]
    if run.id == seen.run:
        return [gr.skip() for _ in range(5)]
    now = _now(run)
    return [gr.update(visible=True), now.notes, " ".join(now.tags), status(""), now]


def save(runs_dir: Path, notes: str, tags: str, seen: Seen) -> tuple[str, Seen]:
    """Write notes and tags on the run that the boxes were filled for; returns what to say, and what is seen then."""
    try:
        run = Run.open(runs_dir, seen.run)
        # Tags first: they are what can be refused as written, and then nothing was changed.
        seen = replace(seen, tags=retag(run, tags.split(), seen.tags))
    except (LprError, OSError) as error:
        return shell.problem(f"Not saved: {error}"), seen
    try:
        now = write_notes(run, notes, seen.notes)
    except (LprError, OSError) as error:
        # What others wrote meanwhile is on the page now, so that saving again is done knowing it.
        return shell.problem(f"Not saved: {error}"), replace(seen, notes=read_notes(run))
    return status("Saved with the run, for everybody to see."), replace(seen, notes=now)


def _now(run: Run) -> Seen:
    return Seen(run.id, read_notes(run), tags_of(run))
