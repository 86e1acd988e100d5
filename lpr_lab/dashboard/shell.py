"""What all pages share: header, heads, notices, badges, the run picker, and the component that shows our HTML.

Most of it returns strings; only `html_block` and the functions below the last line know gradio. Text that came from a
file or a person goes through `esc`.
"""

import asyncio
import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr
from anyio import to_thread

from lpr_lab.dashboard.query import Query, refused
from lpr_lab.errors import LprError
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.housekeeping import tags_of
from lpr_lab.runs.model_ref import analysed_run
from lpr_lab.runs.run import Run, short_id
from lpr_lab.runs.status import seconds_since
from lpr_lab.text.languages import language_name
from lpr_lab.views.numbers import duration

PAGES = {
    "Runs": "/",
    "Routing": "/routing",
    "Experts": "/experts",
    "Retention": "/retention",
    "Compare": "/compare",
    "Plan": "/plan",
}
"""Name -> address of each page, whose folder in `pages/` has that name in lower case."""

BITS_PER_BYTE = (
    "Bits per byte: how many bits the model needs for a byte of text it has not seen; lower is better, whatever the "
    "tokenizer."
)
"""Said where a page first speaks of them."""

esc = html.escape


def html_block(value: str = "", **options: Any) -> gr.HTML:
    """Make the component that shows our HTML: no template language ever sees the value, one script brings it to life.

    Not a subclass of `gr.HTML`: gradio writes a stub file beside the source of every subclass.
    """
    return gr.HTML(
        value,
        html_template="${value}",
        apply_default_css=False,
        padding=False,
        js_on_load="window.lpr.attach(element, watch, trigger)",
        **options,
    )


def unchecked(component: Any) -> Any:
    """Let a component hand its value to the handler as it came, which checks it (`parameters`).

    gradio's own check of numbers is an error without a word, and where it is none it rounds.
    """
    component.preprocess = lambda payload: payload
    return component


# Reading files is quick and may happen side by side; models wait for one another, in the line of `turns`.
FILES: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# Every choice is sent at once: one made before the answer to another is there is neither dropped nor read later, when
# that answer may have changed the control. Handlers are wrapped by `in_order`.
PICK: dict[str, Any] = {**FILES, "trigger_mode": "multiple"}
MODEL: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": None,
    "show_progress": "hidden",
    "api_visibility": "private",
}


@dataclass(frozen=True)
class PageContext:
    """What a page is about right now: the runs there are, the one chosen, and what to tell the reader first."""

    runs: list[Run]
    run: Run | None
    query: Query
    notice: str = ""
    """HTML, or empty."""


def page_context(runs_dir: Path, params: Any) -> PageContext:
    """Find the run that an address asks for, or the newest readable one; a run that is not there is said, not fatal."""
    query = Query.parse(dict(params))
    left_out = "".join(notice("warn", esc(sentence)) for sentence in refused(dict(params)))
    try:
        runs = list_runs(runs_dir)
    except LprError as error:
        return PageContext([], None, query, left_out + notice("warn", esc(str(error))))
    readable = {run.id: run for run in runs if run.problem is None}
    asked = str(dict(params).get("run", ""))
    if query.run in readable:
        return PageContext(runs, readable[query.run], query, left_out)
    newest = next(iter(readable.values()), None)
    said = left_out
    if asked:
        broken = next((run.problem for run in runs if run.id == query.run and run.problem), None)
        reason = esc(broken) if broken else f"Run “{esc(asked[:80])}” isn't in this folder."
        said += notice("warn", reason + (" Showing the newest one instead." if newest else ""))
    chosen = Query.parse({**dict(params), "run": newest.id if newest else ""})
    return PageContext(runs, newest, chosen, said)


# ------------------------------------------------------------------------------------------------------- pieces


def header(active: str) -> str:
    """Return the top of every page: name, pages, brightness. The script keeps run and language in the links."""
    links = "".join(
        f'<a href="{path}" data-page="{path}"{" aria-current=page" if name == active else ""}>{name}</a>'
        for name, path in PAGES.items()
    )
    return (
        '<header class="lpr-header"><a class="lpr-skip" href="#" data-skip>Skip to content</a>'
        '<a class="lpr-brand" href="/" aria-label="lpr_lab, all runs">'
        '<svg viewBox="0 0 28 20" aria-hidden="true"><circle cx="10" cy="10" r="8.5" fill="var(--lpr-original)"/>'
        '<circle cx="18" cy="10" r="7.5" fill="none" stroke="var(--lpr-new)" stroke-width="2.5" '
        'stroke-dasharray="3.4 2.1"/></svg>lpr_lab</a>'
        f'<nav aria-label="Pages">{links}</nav>'
        '<button type="button" class="lpr-theme" data-theme-toggle aria-label="Light or dark">'
        '<svg viewBox="0 0 20 20" aria-hidden="true"><circle cx="10" cy="10" r="7" fill="none" stroke="currentColor" '
        'stroke-width="1.8"/><path d="M10 3a7 7 0 0 1 0 14z" fill="currentColor"/></svg></button></header>'
    )


def head(question: str, finding: str = "", more: str = "", *, query: Query | None = None) -> str:
    """Return a page's heading: the question it answers, and, as HTML, the answer in a sentence and notices."""
    ready = f' data-lpr-page="ready" data-query="{esc(query.urlencode())}"' if query is not None else ""
    lead = f'<p class="lpr-finding">{finding}</p>' if finding else ""
    return f'<div class="lpr-head" id="lpr-main" tabindex="-1"{ready}><h1>{esc(question)}</h1>{lead}{more}</div>'


def notice(kind: str, text: str) -> str:
    """Return a notice; `kind` is `info`, `warn` or `bad`, which the first word says too."""
    word = {"info": "Note", "warn": "Notice", "bad": "Failed"}[kind]
    return f'<p class="lpr-notice lpr-{kind}" role="note"><b>{word}.</b> {text}</p>'


def command(line: str) -> str:
    """Return a command with a button that copies it."""
    return (
        f'<span class="lpr-command"><code>{esc(line)}</code>'
        f'<button type="button" data-copy aria-label="Copy the command {esc(line)}">Copy</button></span>'
    )


def no_runs(runs_dir: Path) -> str:
    """Return what a page shows when there is no run at all: how to make one."""
    return (
        '<section class="lpr-card lpr-empty"><h2>No runs yet</h2>'
        f"<p>There is no run in <code>{esc(str(runs_dir))}</code>. Make the first one: it takes about ten minutes on "
        f"two processor cores and opens here when it is done.</p>{command('lpr-lab demo')}</section>"
    )


def card(what: str, body: str) -> str:
    """Return a card that says what is not there; `body` is HTML."""
    return f'<section class="lpr-card lpr-empty"><h2>{esc(what)}</h2><p>{body}</p></section>'


def elsewhere(run: Run, path: str) -> str:
    """Return, as HTML, where the model is that a run only analysed; empty for a run with a model of its own."""
    subject = analysed_run(run)
    if not subject:
        return ""
    link = esc(Query(run=subject).link(path))
    return f'See <a href="{link}">the run it analysed</a>, {esc(subject)}.'


def missing(what: str, how: str, line: str = "") -> str:
    """Return a card that says which result is not there and how to get it."""
    return (
        f'<section class="lpr-card lpr-empty"><h2>{esc(what)}</h2><p>{esc(how)}</p>'
        f"{command(line) if line else ''}</section>"
    )


def status(text: str, *, busy: bool = False, bad: bool = False) -> str:
    """Return the status line of what is being computed."""
    kind = " lpr-busy" if busy else " lpr-bad-line" if bad else ""
    return f'<p class="lpr-status-line{kind}" role="status">{esc(text)}</p>'


def is_busy(line: str) -> bool:
    """Whether a status line says that something is being computed or waited for."""
    return "lpr-busy" in line


def problem(text: str) -> str:
    """Return a line that says what is wrong with what was typed, where there is none otherwise; it is read out."""
    return f'<p class="lpr-status-line lpr-bad-line" role="alert">{esc(text)}</p>'


STATES = {
    "finished": ("●", "finished"),
    "running": ("◐", "running"),
    "queued": ("○", "queued"),
    "interrupted": ("‖", "interrupted"),
    "failed": ("✕", "failed"),
    "stalled": ("?", "stalled?"),
}


def state_badge(state: str) -> str:
    """Return a run's state as glyph and word."""
    glyph, word = STATES.get(state, ("?", state))
    return f'<span class="lpr-state lpr-state-{esc(state)}"><i aria-hidden="true">{glyph}</i> {esc(word)}</span>'


def example_badge(run: Run) -> str:
    """Return the badge of a run that came with the code, or nothing."""
    if not run.is_example:
        return ""
    return '<span class="lpr-badge" title="Came with the code: read only, without weights">example</span>'


def tag_chips(run: Run) -> str:
    """Return a run's tags as chips."""
    return "".join(f'<bdi class="lpr-badge lpr-tag">{esc(word)}</bdi> ' for word in tags_of(run))


def language_chips(codes: Iterable[str], role: str) -> str:
    """Return languages as chips: solid underline for original ones, dashed for expanded ones."""
    return "".join(
        f'<span class="lpr-chip-lang lpr-{role}" title="{esc(role)} language">{esc(language_name(code))}</span>'
        for code in codes
    )


def age(timestamp: str | None) -> str:
    """Return how long ago a UTC time was: `12 s ago`, `3 h 5 min ago`."""
    seconds = seconds_since(timestamp)
    return "" if seconds is None else f"{duration(seconds)} ago"


def languages_of(run: Run) -> tuple[list[str], list[str]]:
    """Return a run's original and expanded languages, from its results or else its settings."""
    source = run.results or run.config
    pick = [source.get(role) or run.config.get(role) or [] for role in ("original", "expanded")]
    return [str(code) for code in pick[0]], [str(code) for code in pick[1]]


# ---------------------------------------------------------------------------------------------------- with gradio


def run_choices(runs: list[Run]) -> list[tuple[str, str]]:
    """Return (label, id) of the readable runs for the picker, newest first."""
    choices = []
    for run in runs:
        if run.problem is None:
            mark = " · example" if run.is_example else ""
            choices.append((f"{run.title}  ·  {run.created[:10]} {short_id(run.id)}{mark}", run.id))
    return choices


def run_picker() -> gr.Dropdown:
    """Make the run picker; `show_runs` fills it."""
    return gr.Dropdown([], label="Run", elem_classes="lpr-run", interactive=True, min_width=300, scale=0)


def show_runs(context: PageContext) -> Any:
    """Return the update that fills the run picker."""
    choices = run_choices(context.runs)
    return gr.update(choices=choices, value=context.run.id if context.run else None, visible=bool(choices))


def in_order(choose: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler of a choice that answers a visitor's choices one after the other, in the order they were made.

    Every answer draws the whole page, its controls too, from one address. So whichever comes last, the page agrees with
    itself; and because of the order it is the one to the last choice.

    Args:
        choose: takes the inputs and, last, a `gr.Request`.
    """

    @wraps(choose)
    async def handle(*given: Any) -> Any:
        request = next((one for one in given if isinstance(one, gr.Request)), None)
        key = getattr(request, "session_hash", None) or ""
        lock = _orders.setdefault(key, asyncio.Lock())  # held here and by those who wait, gone with the last of them
        async with lock:
            return await to_thread.run_sync(partial(choose, *given))

    return handle


_orders: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
