"""Page `/`: what have I run, where does it stand, and what came of it?"""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.cache import cached
from lpr_lab.dashboard.pages.runs.compare import render_comparison, toggle
from lpr_lab.dashboard.pages.runs.detail import render_detail
from lpr_lab.dashboard.pages.runs.live import at_work, metrics_of, render_live, standing_of
from lpr_lab.dashboard.pages.runs.sweep import figure_of, points_of
from lpr_lab.dashboard.shell import BITS_PER_BYTE, FILES, PICK, PageContext, esc, html_block, in_order
from lpr_lab.errors import LprError
from lpr_lab.experiments.sweep.grid import KIND as SWEEP
from lpr_lab.measure.significance import ADAPTATION, UNCLEAR
from lpr_lab.runs.housekeeping import tags_of
from lpr_lab.runs.model_ref import analysed_run
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.figures.titles import take_title
from lpr_lab.views.figures.training import metric_names, training_curves
from lpr_lab.views.html.run_overview import mean_of
from lpr_lab.views.numbers import NOT_MEASURED, change, duration

QUESTION = "What have I run, and what came of it?"
MAX_ROWS = 200
SEARCH_FROM = 8
EVERY_SECONDS = 3
"""How often the page of a run at work is brought up to date."""


def headline(run: Run) -> dict[str, float]:
    """Return mean change of bits per byte in per cent by role, on held-out text where there is any; empty when none."""
    summary = run.results.get("summary") or {}
    by_role = summary.get("heldout") or next(iter(summary.values()), {})
    found = {}
    for role in ("expanded", "original"):
        value = by_role.get(role, {}).get("mean_change_percent") if isinstance(by_role, dict) else None
        if isinstance(value, int | float):
            found[role] = float(value)
    return found


def finding(context: PageContext) -> str:
    """Return the page's answer in a sentence about the chosen run, and one about the others."""
    run = context.run
    if run is None:
        return ""
    try:
        numbers, (original, expanded) = headline(run), shell.languages_of(run)
        base = str((run.results or run.config).get("base") or "The base")
    except LprError as error:
        return esc(str(error))
    taught = f'<span class="lpr-expanded">{esc(_list(expanded))}</span>'
    kept = f'<span class="lpr-original">{esc(_list(original))}</span>'
    more = _inventory(context)
    if numbers:
        parts = [f"{esc(base)} learned {taught}"]
        if "expanded" in numbers:
            parts[0] += f": {_amount(run, 'expanded', numbers, ' bits per byte')}"
        if "original" in numbers:
            parts.append(f"{kept}: {_amount(run, 'original', numbers)}")
        text = "; ".join(parts) + "."
        more = " ".join(filter(None, [BITS_PER_BYTE, ADAPTATION if numbers.get("original", 0) < 0 else "", more]))
    else:
        text = _standing(run, esc(base), taught if expanded else esc(run.title))
    return text + f'<span class="lpr-more">{esc(more)}</span>'


def _standing(run: Run, base: str, taught: str) -> str:
    """Say where an unmeasured run stands."""
    status = run.status
    where = esc((status.stage or "its start").replace("_", " "))
    if run.kind == SWEEP:
        return f"A sweep of {esc(str(run.config.get('notebook')))} over every point of a grid: {esc(status.state)}."
    match status.state:
        case "running":
            return f"{base} is learning {taught}: at {where} now."
        case "stalled":
            silence = duration(status.heartbeat_age_seconds)
            return f"{base} was learning {taught} and has shown no sign of life for {silence}."
        case "interrupted":
            return f"{base} was learning {taught} and was interrupted at {where}."
        case "failed":
            return f"{base} was learning {taught} and failed at {where}."
        case "queued":
            return f"{base} is to learn {taught}; nothing was started yet."
    match run.kind:
        case "plan":
            return f"{base} has a plan for {taught}."
        case "upcycle":
            return f"{base} was given new experts; nothing was trained yet."
        case "text":
            return f"Text for {taught} was read by the tokenizer of {base}."
    if analysed_run(run):
        return f"This {esc(run.kind)} looked at a finished run. {shell.elsewhere(run, '/')}"
    return f"{base} learned {taught}; nothing was measured."


def _amount(run: Run, role: str, numbers: dict[str, float], unit: str = "") -> str:
    value = numbers[role]
    if not mean_of(run.results, role).direction:
        return f"{UNCLEAR} ({change(value)})"
    return f"{abs(value):.1f}% {'fewer' if value < 0 else 'more'}{unit}"


def _list(codes: list[str]) -> str:
    names = [language_name(code) for code in codes]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "no language"


def _inventory(context: PageContext) -> str:
    own = [run for run in context.runs if not run.is_example]
    examples = len(context.runs) - len(own)
    parts = [f"{len(own)} run{'s' if len(own) != 1 else ''} in this folder" if own else "No run of your own yet"]
    states = [run.status.state for run in own if run.problem is None]
    parts += [f"{states.count(state)} {state}" for state in shell.STATES if state != "finished" and state in states]
    if examples:
        parts.append(f"{examples} example{'s' if examples != 1 else ''} that came with the code")
    return ", ".join(parts) + "."


def shown_runs(context: PageContext) -> list[Run]:
    """Return the runs of the kind, state and tag that the address asks for; unreadable ones are always there.

    Where nothing is asked for, the points of a sweep stand for themselves only in the sweep's own table.
    """
    query = context.query
    sweeps = set() if query.kind or query.state or query.tag else set(points_of(context.runs))
    chosen = context.run.id if context.run else ""
    return [
        run
        for run in context.runs
        if run.problem is not None
        or (
            (run.id == chosen or sweeps.isdisjoint(run.parents))
            and (not query.kind or run.kind == query.kind)
            and (not query.state or run.status.state == query.state)
            and (not query.tag or query.tag in tags_of(run))
        )
    ]


def _filters(context: PageContext) -> str:
    """Return the choices of kind and state, where there is one to make, of tags, and the search of a long list."""
    readable = [run for run in context.runs if run.problem is None]
    parts = []
    for name, values in (
        ("kind", [run.kind for run in readable]),
        ("state", [run.status.state for run in readable]),
        ("tag", sorted(word for run in readable for word in tags_of(run))),
    ):
        there = list(dict.fromkeys(values))
        if len(there) > (name != "tag") or getattr(context.query, name):
            choices = "".join(_choice(context, name, value, values.count(value)) for value in there)
            parts.append(
                f'<p role="group" aria-label="Only {name}">{_choice(context, name, "", len(readable))}{choices}</p>'
            )
    if len(context.runs) > SEARCH_FROM:
        parts.append(
            '<label class="lpr-search"><span class="lpr-hidden">Search the list</span>'
            '<input type="search" placeholder="Search" data-search=".lpr-runs tbody tr"></label>'
        )
    return f'<div class="lpr-filters">{"".join(parts)}</div>' if parts else ""


def _choice(context: PageContext, name: str, value: str, number: int) -> str:
    params = esc(context.query.urlencode(**{name: value}))
    current = ' aria-current="true"' if getattr(context.query, name) == value else ""
    shown = esc(value or f"every {name}")
    return f'<a href="/?{params}" data-pick="{params}"{current}>{shown} <small>{number}</small></a>'


def render_list(context: PageContext) -> str:
    """Return the table of runs; choosing one shows it below."""
    if not context.runs:
        return ""
    runs = shown_runs(context)
    rows = "".join(_row(run, context) for run in runs[:MAX_ROWS])
    more = len(runs) - MAX_ROWS
    cap = f'<p class="lpr-note">Showing the newest {MAX_ROWS} of {len(runs)} runs.</p>' if more > 0 else ""
    none = "" if runs else '<p class="lpr-note">No run is of this kind, in this state and with this tag.</p>'
    hidden = 0 if len(runs) == len(context.runs) else sum(points_of(context.runs).values())
    if hidden and not (context.query.kind or context.query.state or context.query.tag):
        none += f'<p class="lpr-note">{hidden} runs of sweeps are listed in their sweep; choose a kind to see all.</p>'
    return (
        f'{_filters(context)}<div class="lpr-scroll"><table class="lpr-table lpr-runs">'
        '<caption class="lpr-hidden">Runs, newest first</caption>'
        '<thead><tr><th scope="col">Run</th><th scope="col">State</th><th scope="col">Languages</th>'
        '<th scope="col" class="lpr-number"><abbr title="Mean change of bits per byte on the expanded languages; below '
        'zero is better">Expanded</abbr></th><th scope="col" class="lpr-number"><abbr title="Mean change of bits per '
        'byte on the original languages; below zero is better">Original</abbr></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{none}{cap}"
        '<p class="lpr-caption">Expanded, original: mean change of bits per byte on held-out text against the base; '
        f"below zero is better. There is {UNCLEAR} where the 95% interval of the mean contains zero or is not known. "
        "Tick runs to see in what they differ.</p>"
    )


def _row(run: Run, context: PageContext) -> str:
    if run.problem is not None:
        return _broken_row(run, run.problem)
    try:
        numbers = headline(run)
        original, expanded = shell.languages_of(run)
        recipe = str((run.results or run.config).get("recipe") or run.kind)
    except LprError as error:
        return _broken_row(run, str(error))
    chosen = context.run is not None and context.run.id == run.id
    params = esc(context.query.urlencode(run=run.id, text="", tok=None))
    current = ' aria-current="true"' if chosen else ""
    cells = [
        f'{toggle(context, run)}<span><a href="/?{params}" data-pick="{params}"{current}>{esc(run.title)}</a> '
        f"{shell.example_badge(run)}{shell.tag_chips(run)}"
        f"<small>{esc(recipe.replace('_', ' '))} · {esc(shell.age(run.created))}</small></span>",
        shell.state_badge(run.status.state),
        shell.language_chips(original, "original") + shell.language_chips(expanded, "expanded"),
    ]
    body = f'<th scope="row"><div class="lpr-named">{cells[0]}</div></th>'
    body += "".join(f"<td>{cell}</td>" for cell in cells[1:])
    for role in ("expanded", "original"):
        value = numbers.get(role)
        text = change(value) if value is not None else f'<span title="not measured">{NOT_MEASURED}</span>'
        if value is not None and not mean_of(run.results, role).direction:
            text += f"<small>{UNCLEAR}</small>"
        body += f'<td class="lpr-number" data-label="{role}">{text}</td>'
    return f'<tr class="{"lpr-chosen" if chosen else ""}">{body}</tr>'


def _broken_row(run: Run, reason: str) -> str:
    mark = '<span class="lpr-state lpr-state-failed"><i aria-hidden="true">⚠</i> unreadable</span>'
    return f'<tr class="lpr-broken"><th scope="row">{esc(run.id)}</th><td colspan="4">{mark} {esc(reason)}</td></tr>'


def curves(run: Run | None, name: str | None) -> tuple[Any, Any, str, Any]:
    """Return the updates of card, picker of numbers, finding and plot; all hidden while nothing was recorded."""
    metrics, settings = metrics_of(run), figure_of(run)
    if settings is not None:
        title = f'<h2 class="lpr-subfinding">{esc(take_title(settings).replace("<br>", " "))}</h2>'
        return gr.update(visible=True), gr.update(visible=False), title, settings
    if metrics is None:
        return gr.update(visible=False), gr.skip(), "", gr.update(value=None)
    names = metric_names(metrics)
    shown = name if name in names else names[0]
    figure = training_curves(metrics, shown)
    title = f'<h2 class="lpr-subfinding">{esc(take_title(figure))}</h2>'
    return gr.update(visible=True), gr.update(choices=names, value=shown, visible=True), title, figure


# ------------------------------------------------------------------------------------------------------- controls


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Build the page and connect its events."""
    html_block(shell.header("Runs"))
    top = html_block(shell.head(QUESTION))
    listing, compared, following, detail = (html_block() for _ in range(4))
    with gr.Column(visible=False, elem_classes="lpr-card lpr-curves") as card:
        number = gr.Dropdown([], label="Training, number by number", elem_classes="lpr-narrow")
        said = html_block()
        plot = gr.Plot(show_label=False, elem_classes="lpr-plot")
    clock = gr.Timer(EVERY_SECONDS, active=False)
    drawn_for = gr.State("")

    def show(request: gr.Request) -> list[Any]:
        return draw(shell.page_context(runs_dir, request.query_params), runs_dir)

    def follow(before: str, request: gr.Request) -> list[Any]:
        return keep_up(shell.page_context(runs_dir, request.query_params), runs_dir, before)

    def show_curves(request: gr.Request) -> tuple[Any, Any, str, Any]:
        return chosen_curves(shell.page_context(runs_dir, request.query_params), runs_dir)

    def follow_curves(name: str, request: gr.Request) -> tuple[Any, Any, str, Any]:
        return curves(shell.page_context(runs_dir, request.query_params).run, name)

    def choose_number(name: str, request: gr.Request) -> list[Any]:
        context = shell.page_context(runs_dir, {**dict(request.query_params), "view": name})
        return [*draw(context, runs_dir), *chosen_curves(context, runs_dir)]

    # Two events, so that the text does not wait for curves.
    text, drawn = [top, listing, compared, detail, following, clock, drawn_for], [card, number, said, plot]
    demo.load(show, None, text, **FILES)
    demo.load(show_curves, None, drawn, **FILES)
    clock.tick(follow, [drawn_for], text, **FILES)
    clock.tick(follow_curves, [number], drawn, **FILES)
    for links in (listing, compared, detail):
        links.click(in_order(show), None, text, **PICK)
        links.click(in_order(show_curves), None, drawn, **PICK)
    number.input(in_order(choose_number), [number], [*text, *drawn], **PICK)


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
    return curves(context.run, context.query.view)


def draw(context: PageContext, runs_dir: Path) -> list[Any]:
    """Return all text of the page, whether it follows a run, and what it was drawn for."""
    clock = gr.Timer(active=at_work(context))
    return [*compose(context, runs_dir), render_live(context.run), clock, standing_of(context)]


def keep_up(context: PageContext, runs_dir: Path, before: str) -> list[Any]:
    """Return the same for a run at work: only its card, while nothing else is another than before.

    What a reader opened, ticked or typed stays as it is.
    """
    if before != standing_of(context):
        return draw(context, runs_dir)
    return [*(gr.skip() for _ in range(4)), render_live(context.run), gr.skip(), gr.skip()]
