"""Page `/`: the runs, their state and their results."""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.cache import cached
from lpr_lab.dashboard.pages.runs.compare import chosen_runs, render_comparison
from lpr_lab.dashboard.pages.runs.curves import curves
from lpr_lab.dashboard.pages.runs.detail import render_detail
from lpr_lab.dashboard.pages.runs.listing import finding, render_list
from lpr_lab.dashboard.pages.runs.live import at_work, page_state_of, render_live
from lpr_lab.dashboard.pages.runs.writing import Seen, WritingControls, fill, save
from lpr_lab.dashboard.shell import FILES, PICK, PageContext, html_block, in_order

QUESTION = "What have I run, and what are the results?"
EVERY_SECONDS = 3
"""How often the page of a run at work is brought up to date."""


# ------------------------------------------------------------------------------------------------------- controls


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Build the page and connect its events."""
    html_block(shell.header("Runs"))
    top = html_block(shell.head(QUESTION))
    listing, compared, following, detail = (html_block() for _ in range(4))
    writing = WritingControls()
    with gr.Column(visible=False, elem_classes="lpr-card lpr-curves") as card:
        number = gr.Dropdown([], label="Training, number by number", elem_classes="lpr-narrow")
        said = html_block()
        plot = gr.Plot(show_label=False, elem_classes="lpr-plot")
    clock = gr.Timer(EVERY_SECONDS, active=False)
    drawn_for = gr.State("")

    def show(request: gr.Request) -> list[Any]:
        context = shell.page_context(runs_dir, request.query_params)
        return [*draw(context, runs_dir), *fill(context, Seen())]

    def follow(before: str, name: str, request: gr.Request) -> list[Any]:
        context = shell.page_context(runs_dir, request.query_params)
        followed = curves(context.run, name, picked=True, compared=chosen_runs(context))
        return [*keep_up(context, runs_dir, before), *followed]

    def show_curves(request: gr.Request) -> tuple[Any, Any, str, Any]:
        return chosen_curves(shell.page_context(runs_dir, request.query_params), runs_dir)

    def choose_number(name: str, request: gr.Request) -> list[Any]:
        return whole(shell.page_context(runs_dir, {**dict(request.query_params), "view": name}))

    def choose_run(seen: Seen, request: gr.Request) -> list[Any]:
        context = shell.page_context(runs_dir, request.query_params)
        return [*whole(context), *fill(context, seen)]

    def write(notes: str, tags: str, seen: Seen, request: gr.Request) -> list[Any]:
        said, seen = save(runs_dir, notes, tags, seen)
        return [said, seen, *draw(shell.page_context(runs_dir, request.query_params), runs_dir)]

    def whole(context: PageContext) -> list[Any]:
        return [*draw(context, runs_dir), *chosen_curves(context, runs_dir)]

    # Two events, so that the first text does not wait for curves. Later one answer draws both: between two, that to
    # another choice may come.
    text, drawn = [top, listing, compared, detail, following, clock, drawn_for], [card, number, said, plot]
    demo.load(show, None, [*text, *writing.parts], **FILES)
    demo.load(show_curves, None, drawn, **FILES)
    clock.tick(in_order(follow), [drawn_for, number], [*text, *drawn], **FILES)
    for links in (listing, compared, detail):
        links.click(in_order(choose_run), [writing.seen], [*text, *drawn, *writing.parts], **PICK)
    number.input(in_order(choose_number), [number], [*text, *drawn], **PICK)
    saving, shown = [writing.notes, writing.tags, writing.seen], [writing.line, writing.seen, *text]
    gr.on([writing.save.click, writing.tags.submit], in_order(write), saving, shown, **FILES)


# ------------------------------------------------------------------------------------------------- event handlers


@partial(cached, seconds=4)
def compose(context: PageContext, runs_dir: Path) -> list[str]:
    """Return heading, list, comparison and detail."""
    return [
        shell.head(QUESTION, finding(context), context.notice, query=context.query),
        render_list(context) if context.runs else shell.no_runs(runs_dir),
        render_comparison(context),
        render_detail(context.run, context.runs) if context.run else "",
    ]


@partial(cached, seconds=4)
def chosen_curves(context: PageContext, runs_dir: Path) -> tuple[Any, Any, str, Any]:
    """Return the curves of the number that the address asks for; see `curves`."""
    return curves(context.run, context.query.view, compared=chosen_runs(context))


def draw(context: PageContext, runs_dir: Path) -> list[Any]:
    """Return all text of the page, whether it follows a run, and what it was drawn for."""
    clock = gr.Timer(active=at_work(context))
    return [*compose(context, runs_dir), render_live(context.run), clock, page_state_of(context)]


def keep_up(context: PageContext, runs_dir: Path, before: str) -> list[Any]:
    """Return the same for a run at work: only its card, while nothing else is another than before.

    What a reader opened, ticked or typed stays as it is.
    """
    if before != page_state_of(context):
        return draw(context, runs_dir)
    return [*(gr.skip() for _ in range(4)), render_live(context.run), gr.skip(), gr.skip()]
