"""Which text page `/routing` shows: samples of the run, texts that readers kept, and one that was just typed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing import render
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.unsaved_texts import UNSAVED, trace_of
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.runs.people.own_texts import imported_text, is_own, own_texts, suggested_name
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import LANGUAGES, language_name

OWN = "own"
"""Value of the text picker for a text of one's own, also where one is shown."""


def examples(run: Run) -> list[tuple[str, str]]:
    """Return (label, name) of the sample texts: languages first, in the run's order."""
    original, expanded = shell.languages_of(run)
    names = [name for name in run.traces.names() if not is_own(name)]
    ranked = [code for code in (*original, *expanded) if code in names]
    ranked += [name for name in names if name not in ranked]
    return [(language_name(name) if name in LANGUAGES else name.capitalize(), name) for name in ranked]


def read(run: Run, query: Query) -> tuple[str, RoutingTrace | None]:
    """Return the name of the text the address asks for, else of the first expanded language, and its trace."""
    if query.text and (found := trace_of(run, query.text)) is not None:
        return query.text, found
    if imported_text(run, query.text) is not None:
        return query.text, None
    names = [name for _, name in examples(run)]
    _, expanded = shell.languages_of(run)
    name = next((name for name in (query.lang, *expanded, *names) if name in names), "")
    return name, run.traces.read(name) if name else None


def say_unreadable(context: PageContext, params: Mapping[str, Any]) -> PageContext:
    """Say of an address whose `text` is no name at all that another one is shown."""
    asked = str(params.get("text", ""))
    if context.query.text or not asked:
        return context
    said = f"“{asked[:40]}” is not the name of a text, so another one is shown."
    return replace(context, notice=context.notice + shell.notice("warn", said))


def unknown(run: Run, asked: str, name: str) -> Markup:
    """Return the notice that another text is shown than the one asked for; empty where it is that one."""
    if asked in ("", OWN, name):
        return Markup("")
    shown = f" Showing {language_name(name)}." if name else ""
    if is_own(asked):
        said = "This run keeps no such text of a reader’s: it was never kept, or somebody deleted it."
    else:
        said = f"This run has no text “{language_name(asked) if asked in LANGUAGES else asked}”."
    return shell.notice("warn", said + shown)


def show_own(run: Run, name: str, stages: RoutingTrace | None) -> dict[str, Any]:
    """Return the parts that are there for texts of readers: those that are kept, and what can be done with this one."""
    texts = own_texts(run)
    kept = next((text for text in texts if text.id == name), None)
    choices = [(text.label if text.is_traced else f"{text.label} (not traced)", text.id) for text in texts]
    parts: dict[str, Any] = {
        "kept": gr.update(choices=choices, value=kept.id if kept else None, visible=bool(choices)),
    }
    if not is_own(name) or (stages is None and kept is None):
        return parts
    held = UNSAVED.get(run, name)
    edited = next((text for text in texts if held is not None and text.id == held.edited), None)
    words = kept if stages is None else stages
    assert words is not None
    text, language = words.text, words.language
    called = kept or edited
    writable = not run.is_example
    return parts | {
        "text": gr.update(value=text),
        "language": gr.update(value=language or ""),
        "keeping": gr.update(visible=writable),
        "note": render.WHO_SEES_TYPED if not kept else render.WHO_SEES_KEPT if kept.is_traced else render.NOT_TRACED,
        "name": gr.update(value=called.name if called else suggested_name(text), visible=True),
        "group": gr.update(value=called.group if called else "", visible=True),
        "keep": gr.update(visible=kept is None),
        "replace": gr.update(visible=edited is not None, value=f"Replace “{edited.name}”" if edited else ""),
        "rename": gr.update(visible=kept is not None),
        "delete": gr.update(visible=kept is not None),
    }
