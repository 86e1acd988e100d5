"""Texts that a reader types or imports on page `/routing`: trace, keep, group, edit and delete them."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing.compose import QUESTION, show_trace
from lpr_lab.dashboard.parameters import LANGUAGE, TRACED
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.server.unsaved_texts import UNSAVED
from lpr_lab.dashboard.shell import html_block, status
from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.people.own_texts import (
    MAX_CHARACTERS,
    MAX_LINES,
    add_texts,
    by_group,
    delete_group,
    delete_text,
    imported_text,
    is_kept,
    is_own,
    keep_text,
    new_id,
    own_texts,
    read_lines,
    rename_text,
)
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import LANGUAGES
from lpr_lab.wording import counted

Step = tuple[str, Any, Any]
"""A status line, then what two parts of the page show."""


def trace_own(runs_dir: Path, text: str, language: str | None, params: dict[str, Any]) -> Iterator[Step]:
    """Trace a text of the reader's with the run's model; yields (status line, head, strip) as it gets on.

    The newest stage comes first, because it is quickly drawn; the base and earlier stages follow. Nothing is written.
    """
    context = shell.page_context(runs_dir, params)
    run, same = context.run, gr.skip()
    if run is None:
        yield status("There is no run to trace with."), same, same
        return
    try:
        text, language = TRACED.read(text).strip(), LANGUAGE.read(language or "")
    except UsageError as error:
        yield status(str(error), bad=True), same, same
        return
    first = not MODELS.is_loaded(run)
    said = "Loading the model, once…" if first else "Tracing…"
    yield status(said, busy=True), shell.head(QUESTION, said), ""
    started = time.monotonic()
    try:
        with MODELS.use(run) as loaded:
            seconds, device = loaded.seconds, loaded.device
        if first:
            yield status(f"Model loaded in {seconds:.1f} s; tracing…", busy=True), same, same
        from lpr_lab.measure.routing import trace as trace_text
        from lpr_lab.measure.routing import trace_stages

        asked = time.monotonic()
        with MODELS.use(run) as loaded:
            trace = trace_text(loaded.model, loaded.tokenizer, text, language or None, base=False)
        took = time.monotonic() - asked
        asks = context.query
        name, query = new_id(), Query(run=run.id, mode=asks.mode, layer=asks.layer, expert=asks.expert)
        edited = asks.text if is_kept(run, asks.text) else ""
        UNSAVED.put(run, name, trace, edited)
        count = int(trace.is_text.sum())
        done = f"{counted(count, 'token')} in {took:.1f} s on {device}"
        yield status(f"{done}; the base and earlier stages follow…", busy=True), *show_trace(run, trace, name, query)
        with MODELS.use(run) as loaded:
            trace = trace_stages(loaded.model, loaded.tokenizer, trace)
    except Exception as error:  # whatever it is, the page says so and shows again what was there before
        said = str(error) if isinstance(error, LprError) else f"The tracing failed ({type(error).__name__}: {error})."
        if not isinstance(error, LprError):
            logging.getLogger(__name__).exception("Tracing a text with run %s failed.", run.id)
        yield status(said, bad=True), same, same
        return
    UNSAVED.put(run, name, trace, edited)
    # What is shown of it is drawn from the address then: the reader may have chosen a token or a layer meanwhile.
    yield status(f"{done} ({time.monotonic() - started:.1f} s in all); not kept."), same, same


# ------------------------------------------------------------------------------------- keep, rename, delete


@dataclass(frozen=True)
class Called:
    """What the boxes say of a text: how it is called, its group, and its words as they stand in the box."""

    name: str
    group: str = ""
    text: str = ""


def keep_own(
    runs_dir: Path, called: Called, params: dict[str, Any], *, replace: bool = False
) -> tuple[str, dict[str, Any]]:
    """Keep the typed text that is shown, or put it in place of the kept one that it was made from.

    Returns:
        What to say, and the params of the address that shows it then.
    """
    try:
        run, text_id = _shown(runs_dir, params)
        held = UNSAVED.get(run, text_id)
        if held is None:
            raise LprError("This text is no longer held; trace it again, then keep it.")
        kept = held.edited if replace and held.edited else text_id
        keep_text(run, kept, called.name, held.trace, called.group)
    except (LprError, OSError) as error:
        return status(f"Not kept: {error}", bad=True), params
    UNSAVED.drop(text_id)
    return status("Kept with this run, for everybody to see."), {**params, "text": kept}


def rename_own(runs_dir: Path, called: Called, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Give the kept text that is shown another name and group, and other words where it was not traced yet.

    Returns as `keep_own`.
    """
    try:
        run, text_id = _shown(runs_dir, params)
        is_traced = imported_text(run, text_id) is None
        text = None if is_traced else TRACED.read(called.text)
        rename_text(run, text_id, called.name, called.group, text)
    except (LprError, OSError) as error:
        return status(f"Not saved: {error}", bad=True), params
    return status("Name and group saved." if is_traced else "Saved."), params


def import_own(
    runs_dir: Path, lines: str, group: str, language: str | None, params: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Keep one text for each line with the run, in a group; returns as `keep_own`, with the first of them shown."""
    try:
        run = shell.page_context(runs_dir, params).run
        if run is None:
            raise LprError("There is no run to keep texts with.")
        texts = read_lines(lines)
        made = add_texts(run, texts, group, LANGUAGE.read(language or ""))
    except (LprError, OSError) as error:
        return shell.problem(f"Nothing was imported: {error}"), params
    left = len(texts) - len(made)
    said = f"{counted(len(made), 'text')} kept with this run, for everybody to see"
    said += f"; {left} that the group has already {'were' if left != 1 else 'was'} left out." if left else "."
    shown = {"text": made[0].id, "lang": "", "tok": ""} if made else {}
    return status(said), {**params, **shown}


def delete_own(runs_dir: Path, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Delete the own text that is shown, kept or not; returns as `keep_own`."""
    try:
        run, text_id = _shown(runs_dir, params)
        if UNSAVED.get(run, text_id) is None:
            delete_text(run, text_id)
        UNSAVED.drop(text_id)
    except (LprError, OSError) as error:
        return status(f"Not deleted: {error}", bad=True), params
    return status("Deleted."), {**params, "text": "", "lang": "", "tok": ""}


def group_of_shown(runs_dir: Path, params: dict[str, Any]) -> tuple[str, int]:
    """Return the group of the kept text that is shown and how many texts are in it; empty and 0 where it has none."""
    try:
        run, text_id = _shown(runs_dir, params)
    except LprError:
        return "", 0
    for group, texts in by_group(own_texts(run)).items():
        if group and text_id in {text.id for text in texts}:
            return group, len(texts)
    return "", 0


def delete_shown_group(runs_dir: Path, params: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Delete all kept texts of the group of the one that is shown; returns as `keep_own`."""
    try:
        run, _ = _shown(runs_dir, params)
        group, _ = group_of_shown(runs_dir, params)
        count = delete_group(run, group)
    except (LprError, OSError) as error:
        return status(f"Not deleted: {error}", bad=True), params
    return status(f"{counted(count, 'text')} of “{group}” deleted."), {**params, "text": "", "lang": "", "tok": ""}


def _shown(runs_dir: Path, params: dict[str, Any]) -> tuple[Run, str]:
    context = shell.page_context(runs_dir, params)
    if context.run is None or not is_own(context.query.text):
        raise LprError("No text of your own is shown.")
    return context.run, context.query.text


# ------------------------------------------------------------------------------------------------- the widgets


_FILE = Markup(
    '<label class="lpr-file">Open a file <input type="file" accept=".txt,text/plain" data-lines=".lpr-import textarea">'
    '</label><p class="lpr-caption" role="alert" data-said></p><p class="lpr-caption">UTF-8, one text a line, at most '
    "{} texts of {:,} characters each; empty lines are left out. It is read in your browser into the box below; only "
    "“Import” keeps the texts with the run.</p>"
)


class OwnControls:
    """The widgets for a text of one's own, made in the order in which the page shows them."""

    def __init__(self) -> None:
        with gr.Column(visible=False, elem_classes="lpr-own") as self.column:
            self.text = gr.Textbox(
                label="Your text, in any language",
                lines=3,
                elem_classes=["lpr-prompt", f"lpr-limit-{TRACED.most}"],
                placeholder="Καλημέρα, κόσμε.",
            )
            with gr.Row(elem_classes="lpr-actions"):
                known = [(f"{one.name}, {one.endonym}", code) for code, one in sorted(LANGUAGES.items())]
                self.language = gr.Dropdown(
                    [("Not said", ""), *known], value="", label="Its language", scale=0, min_width=240
                )
                self.go = gr.Button("Trace this text", variant="primary", scale=0, interactive=False)
                self.stop = gr.Button("Cancel", scale=0, visible=False)
                self.line = html_block(status(""))
            self.why = html_block()
            with gr.Column(visible=False, elem_classes="lpr-keeping") as self.keeping:
                self.note = html_block()
                with gr.Row(elem_classes="lpr-actions"):
                    self.name = gr.Textbox(label="Its name", max_lines=1, scale=0, min_width=240)
                    self.group = gr.Textbox(label="Its group", max_lines=1, scale=0, min_width=180)
                    self.keep = gr.Button("Keep this text", scale=0)
                    self.replace = gr.Button("Replace the kept one", scale=0)
                    self.rename = gr.Button("Save changes", scale=0)
                    self.delete = gr.Button("Delete…", scale=0)
                    self.sure = gr.Button("Delete for everybody", variant="stop", scale=0, visible=False)
                    self.sure_group = gr.Button("Delete its group", variant="stop", scale=0, visible=False)
                    self.never_mind = gr.Button("Leave it", scale=0, visible=False)
            with gr.Accordion("Import a file of texts, one a line", open=False, elem_classes="lpr-import"):
                html_block(_FILE.format(MAX_LINES, MAX_CHARACTERS))
                self.lines = gr.Textbox(label="Texts, one a line", lines=4, max_lines=12, elem_classes="lpr-prompt")
                with gr.Row(elem_classes="lpr-actions"):
                    self.into = gr.Textbox(label="Group", max_lines=1, scale=0, min_width=180)
                    self.spoken = gr.Dropdown(
                        [("Not said", ""), *known], value="", label="Language of the texts", scale=0, min_width=240
                    )
                    self.bring = gr.Button("Import", scale=0)
                    self.brought = html_block(status(""))
        self.kept_line = html_block(status(""))  # outside: what was deleted is no longer shown above it

    @property
    def waiting(self) -> tuple[Callable[[str], tuple[Any, ...]], Callable[[str], tuple[Any, ...]]]:
        """What shows that this visitor waits, without the text that was there before, and that too many wait."""
        same = gr.skip()
        return (
            lambda said: (status(said, busy=True), shell.head(QUESTION, said), "", gr.update(visible=True)),
            lambda said: (status(said, bad=True), same, same, gr.update(visible=False)),
        )

    @property
    def parts(self) -> dict[str, Any]:
        """What `compose` fills, by name."""
        names = "text language go why keeping note name group keep replace rename delete sure sure_group never_mind"
        return {"own": self.column, **{name: getattr(self, name) for name in names.split()}}
