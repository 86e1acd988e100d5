"""What all pages share: header, headings, notices, badges, the run picker, and the component that shows HTML.

Most of it returns `Markup`, HTML whose values are escaped; only `html_block` and what stands below the last line know
gradio.
"""

import asyncio
from abc import ABCMeta
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import gradio as gr
from anyio import to_thread
from markupsafe import Markup

from lpr_lab.dashboard.query import Query, refused
from lpr_lab.errors import LprError
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.housekeeping import tags_of
from lpr_lab.runs.model_ref import analysed_run
from lpr_lab.runs.run import Run, short_id
from lpr_lab.runs.status import seconds_since
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.templates import notice, render
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


def hand_on_as_chosen(component: Any) -> None:
    """Let a component hand its value to the handler as it came; handlers check it (`parameters`, `Query`).

    gradio's own check of numbers is an error without a word, and where it is none it rounds. Its check of choices
    refuses one that was made before the answer to another changed what is offered. The class is changed, not the
    component: gradio makes a component anew from its class whenever a visitor's page changes it.
    """
    component.__class__ = _handing_on(type(component))


@cache
def _handing_on(kind: Any) -> Any:
    # Not through gradio's metaclass, which writes a stub file for every class.
    return ABCMeta.__new__(type(kind), kind.__name__, (kind,), {"preprocess": lambda self, payload: payload})


# Reading files is quick and may happen side by side; what needs a model waits in `server.model_queue`.
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
    """The runs there are, the one that the address chooses, and notices to show first."""

    runs: list[Run]
    run: Run | None
    query: Query
    notice: Markup = field(default_factory=Markup)


def page_context(runs_dir: Path, params: Any) -> PageContext:
    """Find the run that an address asks for, or the newest readable one; a run that is not there is said, not fatal."""
    params = dict(params)
    query = Query.parse(params)
    said = Markup("").join(notice("warn", sentence) for sentence in refused(params))
    try:
        runs = list_runs(runs_dir)
    except LprError as error:
        return PageContext([], None, query, said + notice("warn", str(error)))
    readable = {run.id: run for run in runs if run.problem is None}
    if query.run in readable:
        return PageContext(runs, readable[query.run], query, said)
    newest = next(iter(readable.values()), None)
    if asked := str(params.get("run", "")):
        broken = next((run.problem for run in runs if run.id == query.run and run.problem), None)
        reason = broken or f"Run “{asked[:80]}” isn't in this folder."
        said += notice("warn", reason + (" Showing the newest one instead." if newest else ""))
    return PageContext(runs, newest, Query.parse({**params, "run": newest.id if newest else ""}), said)


# ------------------------------------------------------------------------------------------------------- pieces


def header(active: str) -> Markup:
    """Return the top of every page: name, pages, brightness. The script keeps run and language in the links."""
    return render("dashboard/header.html.j2", pages=PAGES, active=active)


def head(question: str, finding: str | Markup = "", more: str | Markup = "", *, query: Query | None = None) -> Markup:
    """Return a page's heading: the question it answers, the answer in a sentence, and notices.

    With a query the page counts as ready, and the script writes the query into the address.
    """
    ready = Markup(' data-lpr-page="ready" data-query="{}"').format(query.urlencode()) if query is not None else ""
    lead = Markup('<p class="lpr-finding">{}</p>').format(finding) if finding else ""
    start = Markup('<div class="lpr-head" id="lpr-main" tabindex="-1"{}><h1>{}</h1>').format(ready, question)
    return start + lead + more + Markup("</div>")


def more(*texts: str | Markup) -> Markup:
    """Return what a finding says in small print, joined by blanks; nothing where there is nothing to say."""
    said = Markup(" ").join(filter(None, texts))
    return Markup('<span class="lpr-more">{}</span>').format(said) if said else Markup("")


def caption(text: str | Markup) -> Markup:
    """Return a line in small print."""
    return Markup('<p class="lpr-caption">{}</p>').format(text)


def command(line: str) -> Markup:
    """Return a command with a button that copies it."""
    return Markup(
        '<span class="lpr-command"><code>{0}</code>'
        '<button type="button" data-copy aria-label="Copy the command {0}">Copy</button></span>'
    ).format(line)


def no_runs(runs_dir: Path) -> Markup:
    """Return what a page shows when there is no run at all: how to make one."""
    body = Markup(
        "<p>There is no run in <code>{}</code>. Make the first one: it takes ten minutes to half an hour on two "
        "processor cores and opens here when it is done.</p>{}"
    ).format(runs_dir, command("lpr-lab demo"))
    return _card("No runs yet", body)


def _card(what: str, body: Markup) -> Markup:
    return Markup('<section class="lpr-card lpr-empty"><h2>{}</h2>{}</section>').format(what, body)


def card(what: str, body: str | Markup) -> Markup:
    """Return a card that says what is not there."""
    return _card(what, Markup("<p>{}</p>").format(body))


def missing(what: str, how: str, line: str = "") -> Markup:
    """Return a card that says which result is not there and how to get it."""
    return _card(what, Markup("<p>{}</p>{}").format(how, command(line) if line else ""))


def elsewhere(run: Run, path: str) -> Markup:
    """Return where the model is that a run only analysed; empty for a run with a model of its own."""
    subject = analysed_run(run)
    if not subject:
        return Markup("")
    return Markup('See <a href="{}">the run it analysed</a>, {}.').format(Query(run=subject).link(path), subject)


def no_model(run: Run, reason: str, path: str, what: str) -> Markup:
    """Return why no model of a run can be used, and how to get one.

    Args:
        run: without a model of its own.
        reason: a sentence.
        path: of the page, where the model that the run analysed is shown.
        what: needs a model, such as `A new text`.
    """
    demo = Markup("{} needs a run with weights: {}").format(what, command("lpr-lab demo"))
    return Markup("{} {}").format(reason, elsewhere(run, path) or demo)


def status(text: str, *, busy: bool = False, bad: bool = False) -> Markup:
    """Return the status line of what is being computed."""
    kind = " lpr-busy" if busy else " lpr-bad-line" if bad else ""
    return Markup('<p class="lpr-status-line{}" role="status">{}</p>').format(kind, text)


def is_busy(line: str) -> bool:
    """Whether a status line says that something is being computed or waited for."""
    return "lpr-busy" in line


def problem(text: str) -> Markup:
    """Return a line that says what is wrong with what was typed, where there is none otherwise; it is read out."""
    return Markup('<p class="lpr-status-line lpr-bad-line" role="alert">{}</p>').format(text)


STATES = {
    "finished": ("●", "finished"),
    "running": ("◐", "running"),
    "queued": ("○", "queued"),
    "interrupted": ("‖", "interrupted"),
    "failed": ("✕", "failed"),
    "stalled": ("?", "stalled?"),
}


def state_badge(state: str) -> Markup:
    """Return a run's state as glyph and word."""
    glyph, word = STATES.get(state, ("?", state))
    return Markup('<span class="lpr-state lpr-state-{}"><i aria-hidden="true">{}</i> {}</span>').format(
        state, glyph, word
    )


def example_badge(run: Run) -> Markup:
    """Return the badge of a run that came with the code, or nothing."""
    if not run.is_example:
        return Markup("")
    return Markup('<span class="lpr-badge" title="Came with the code: read only, without weights">example</span>')


def tag_chips(run: Run) -> Markup:
    """Return a run's tags as chips."""
    return Markup("").join(Markup('<bdi class="lpr-badge lpr-tag">{}</bdi> ').format(word) for word in tags_of(run))


def language_chips(codes: Iterable[str], role: str) -> Markup:
    """Return languages as chips: solid underline for original ones, dashed for expanded ones."""
    chip = Markup('<span class="lpr-chip-lang lpr-{0}" title="{0} language">{1}</span>')
    return Markup("").join(chip.format(role, language_name(code)) for code in codes)


def age(timestamp: str | None) -> str:
    """Return how long ago a UTC time was: `12 s ago`, `3 h 5 min ago`."""
    seconds = seconds_since(timestamp)
    return "" if seconds is None else f"{duration(seconds)} ago"


def languages_of(run: Run, results: dict[str, Any] | None = None) -> tuple[list[str], list[str]]:
    """Return a run's original and expanded languages, from its results, read or given, or else its settings."""
    source = (run.results if results is None else results) or run.config
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
