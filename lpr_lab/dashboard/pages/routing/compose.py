"""What page `/routing` shows for an address: text, stage, comparison, and reasons where something is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.cache import cached
from lpr_lab.dashboard.pages.routing import render
from lpr_lab.dashboard.pages.routing.causal import show_causal
from lpr_lab.dashboard.pages.routing.guesses import show_guesses
from lpr_lab.dashboard.pages.routing.segments.show import hidden_segment, show_segment
from lpr_lab.dashboard.pages.routing.texts import OWN, examples, read, show_own, unknown
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.models import why_no_model
from lpr_lab.dashboard.server.unsaved_texts import trace_of
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import LprError
from lpr_lab.measure.trace import RoutingChange, RoutingTrace, routing_change
from lpr_lab.runs.model_ref import why_no_routing
from lpr_lab.runs.people.own_texts import is_own
from lpr_lab.runs.run import Run
from lpr_lab.text.splits import main_test_set
from lpr_lab.views.figures.layers import load_heatmap
from lpr_lab.views.figures.titles import take_title
from lpr_lab.views.html.tokens import StripChoices, render_token_strip
from lpr_lab.views.names import dataset_name

QUESTION = "Where did each token of this text go?"

# --------------------------------------------------------------------------------------------- compared with what


@dataclass(frozen=True)
class Beside:
    """What a trace is compared with, as far as that is possible."""

    before: RoutingTrace | None = None
    change: RoutingChange | None = None
    name: str = ""
    """Such as `G1 expand`, or the other run's title."""
    untraced: Run | None = None
    """A run that could trace this text but has not yet."""
    problem: str = ""
    """Why there is no comparison, in a sentence."""


def beside(context: PageContext, name: str, trace: RoutingTrace, stages: RoutingTrace) -> Beside:
    """Return what the address asks to compare with.

    Args:
        context: the page's.
        name: of the text.
        trace: what is shown.
        stages: the same text with all stages it was traced at.
    """
    query = context.query
    try:
        if query.run2:
            return _beside_run(context, name, trace)
        if query.stage2 and query.stage2 != trace.stage:
            before = stages.at(query.stage2)
            return Beside(before, routing_change(before, trace, same_model=True), query.stage2)
    except LprError as error:
        return Beside(problem=str(error))
    return Beside()


def _beside_run(context: PageContext, name: str, trace: RoutingTrace) -> Beside:
    query = context.query
    other = next((run for run in context.runs if run.id == query.run2 and run.problem is None), None)
    if other is None:
        return Beside(problem=f"Run “{query.run2}” isn't in this folder, so there is nothing to compare with.")
    stored = trace_of(other, name)
    if stored is None:
        reason = why_no_model(other)
        if reason is None:
            return Beside(untraced=other, problem=f"{_title(other)} has not traced this text yet.")
        return Beside(problem=f"{_title(other)} has not traced this text. {reason}")
    before = stored.at(query.stage2) if query.stage2 else stored
    return Beside(before, routing_change(before, trace, same_model=False), _title(other))


def _title(run: Run) -> str:
    return f"{run.title} ({run.id.rsplit('-', 1)[-1]})"


def comparisons(context: PageContext, name: str, trace: RoutingTrace, stages: RoutingTrace) -> list[tuple[str, str]]:
    """Return (label, value) of what a trace can be compared with: other stages, and runs from the same base."""
    choices = [(stage, f"stage:{stage}") for stage in stages.stage_names if stage and stage != trace.stage]
    base = trace.model.get("base") or (context.run.config.get("base") if context.run else None)
    for run in context.runs:
        mine = context.run is not None and run.id == context.run.id
        if run.problem is None and not mine and run.config.get("base") == base:
            if name in run.traces.names() or (why_no_model(run) is None and not why_no_routing(run)):
                choices.append((f"Run {_title(run)}", f"run:{run.id}"))
    return choices


def chosen_comparison(query: Query) -> str:
    """Return the value in `comparisons` that an address stands for."""
    return f"run:{query.run2}" if query.run2 else f"stage:{query.stage2}" if query.stage2 else ""


# ---------------------------------------------------------------------------------------------------- the page


def show_trace(
    run: Run,
    trace: RoutingTrace,
    name: str,
    query: Query,
    notice: str | Markup = "",
    other: Beside | None = None,
) -> tuple[Markup, Markup]:
    """Return the page's head and the token strip for one trace, beside another where there is one."""
    other = other or Beside()
    asked = StripChoices(query.layer, query.expert, query.tok, query.mode, query.view)
    choices = asked.within(trace, changed=other.change is not None)
    query = Query.parse(
        {**vars(query), **_in_address(choices), "run": run.id, "text": name, "lang": trace.language or ""}
    )
    sentence = render.finding(trace, render.role_of(run, trace.language)) + render.detail(trace)
    experts = Query(run=run.id, stage=query.stage, text=name, lang=query.lang).link("/experts")
    strip = render_token_strip(trace, choices, change=other.change, change_from=other.name, experts=experts)
    moved = Markup("")
    if other.change is not None and other.before is not None:
        words = render.what_moved(other.change, other.before, trace, other.name)
        moved = Markup('<p class="lpr-subfinding lpr-since">{}</p>').format(words)
    elif other.problem:
        moved = shell.notice("info", other.problem)
    head = shell.head(QUESTION, sentence, notice, query=query)
    return head, Markup('<div class="lpr-card">{}{}</div>').format(moved, strip)


def _in_address(choices: StripChoices) -> dict[str, Any]:
    """Return what a strip shows as the address says it: what is usual is left out."""
    usual, shows = vars(StripChoices()), vars(choices)
    keys = {"layer": "layer", "expert": "expert", "token": "tok", "mode": "mode", "colour": "view"}
    return {key: "" if shows[name] == usual[name] else shows[name] for name, key in keys.items()}


_OVERVIEW = Markup(
    '<section class="lpr-section"><h2>Over whole documents</h2><p class="lpr-subfinding">{}.</p>{}</section>'
)


def overview(run: Run | None) -> tuple[str | Markup, Any, str | Markup]:
    """Return heading, plot and table of the original expert's weight by layer and language, or an honest absence."""
    load = run.tables.read("load") if run else None
    if load is None or load.empty:
        return "", gr.update(visible=False, value=None), ""
    data = main_test_set(load["dataset"])
    rows = load[load["dataset"] == data]
    figure = load_heatmap(rows)
    title = take_title(figure)
    tokens = int(rows["n_tokens"].groupby(rows["language"]).first().sum())
    caption = (
        f"{dataset_name(data)}; {tokens:,} tokens in all; layer 0 on top, the original languages left of the line."
    )
    heading = _OVERVIEW.format(title, shell.caption(caption))
    return heading, gr.update(value=figure, visible=True), render.load_table(rows[rows["expert"] == 0])


def sample_traces(run: Run) -> dict[str, RoutingTrace]:
    """Return the traces of a run's sample texts, by language, in the run's order."""
    known = set(run.traces.names())
    original, expanded = shell.languages_of(run)
    return {code: run.traces.read(code) for code in (*original, *expanded) if code in known}


@cached
def compose(context: PageContext, runs_dir: Path) -> dict[str, Any]:
    """Return what each part of the page shows."""
    hidden = gr.update(visible=False)
    parts: dict[str, Any] = {
        "picker": hidden,
        "stage": hidden,
        "other": hidden,
        "also": hidden,
        "kept": hidden,
        "own": hidden,
        "text": gr.skip(),
        "language": gr.skip(),
        "keeping": hidden,
        "note": "",
        **dict.fromkeys(
            ("name", "group", "keep", "replace", "rename", "delete", "sure", "sure_group", "never_mind"), hidden
        ),
        "why": "",
        "go": gr.update(interactive=False),
        "languages": "",
        "overview": "",
        "plot": gr.update(visible=False, value=None),
        "table": "",
        "what_if": hidden,
        "expert": gr.skip(),
        "changed": "",
        "causal": hidden,
        "causal_map": "",
        "causal_cell": "",
        "guesses": hidden,
        "guesses_grid": "",
        **hidden_segment(),
    }
    run = context.run
    if run is None:
        top = shell.head(QUESTION, more=context.notice, query=context.query)
        return parts | {"top": top, "strip": shell.no_runs(runs_dir)}
    if dense := why_no_routing(run):
        top = shell.head(QUESTION, more=context.notice, query=context.query)
        return parts | {"top": top, "strip": _no_routing(run, dense)}
    reason = why_no_model(run)
    try:
        choices = examples(run)
        asks_own = context.query.text == OWN or not (choices or trace_of(run, context.query.text))
        name, stages = (OWN, None) if asks_own else read(run, context.query)
        parts["overview"], parts["plot"], parts["table"] = overview(run)
        parts["languages"] = render.across_languages(run, sample_traces(run))
        parts |= show_segment(run, context.query, can_run=reason is None)
    except LprError as error:
        more = context.notice + shell.notice("bad", str(error))
        return parts | {"top": shell.head(QUESTION, more=more, query=context.query), "strip": ""}
    typed = name == OWN or is_own(name)
    picker = [*choices, ("Your own text", OWN)]
    parts["picker"] = gr.update(choices=picker, value=OWN if typed else name, visible=True)
    parts["own"] = gr.update(visible=typed)
    parts |= show_own(run, name, stages)
    context = replace(context, notice=context.notice + unknown(run, context.query.text, name))
    parts["go"] = gr.update(interactive=reason is None)
    if reason is not None:
        parts["why"] = shell.notice("info", shell.no_model(run, reason, "/routing", "A new text"))
    if stages is None:
        lead = "Type a sentence in any language." if reason is None else ""
        lead = "This text is kept with the run and was not traced yet." if is_own(name) else lead
        strip = "" if choices or reason is None else _no_trace(run)
        return parts | {"top": shell.head(QUESTION, lead, context.notice, query=context.query), "strip": strip}
    return parts | show_stage(context, run, name, stages, can_run=reason is None)


def show_stage(context: PageContext, run: Run, name: str, stages: RoutingTrace, *, can_run: bool) -> dict[str, Any]:
    """Return the parts that depend on the text, the stage and what is compared."""
    notice = context.notice
    try:
        trace = stages.at(context.query.stage) if context.query.stage else stages
    except LprError as error:
        trace, notice = stages, notice + shell.notice("warn", f"{error} Showing the newest.")
    other = beside(context, name, trace, stages)
    top, strip = show_trace(run, trace, name, context.query, notice, other)
    named = [stage for stage in stages.stage_names if stage]
    ways = comparisons(context, name, trace, stages)
    value = chosen_comparison(context.query)
    if value and value not in [way for _, way in ways]:
        value = ""
    experts = range(int(trace.num_experts.max(initial=1)))
    return {
        "top": top,
        "strip": strip,
        "stage": gr.update(choices=named, value=trace.stage or None, visible=len(named) > 1),
        "other": gr.update(choices=[("Nothing", ""), *ways], value=value, visible=bool(ways)),
        "also": gr.update(visible=other.untraced is not None),
        "what_if": gr.update(visible=can_run and len(trace.layers) > 0),
        "expert": gr.update(choices=expert_choices(experts), value=0),
        **show_causal(run, trace, context.query, can_run=can_run),
        **show_guesses(run, trace, context.query, can_run=can_run),
    }


def expert_choices(experts: Sequence[int]) -> list[tuple[str, int]]:
    """Return (label, number) of the experts to force or ban."""
    return [(f"Expert {e}, {'the original' if e == 0 else 'new'}", e) for e in experts]


def _no_routing(run: Run, reason: str) -> Markup:
    links = [
        Markup('<a href="{}">{}</a>').format(Query(run=run.id).link(path), name)
        for path, name in (("/retention", "What it gained and forgot"), ("/compare", "What it writes beside its base"))
    ]
    return shell.card("No routing", Markup("{} {}").format(reason, Markup(" · ").join(links)))


def _no_trace(run: Run) -> Markup:
    if there := shell.elsewhere(run, "/routing"):
        return shell.card("No text was traced in this run", there)
    return shell.missing(
        "No text was traced in this run",
        "Sample texts are traced near the end of a run. Start the same command again: it goes on where it stopped.",
        "lpr-lab demo",
    )
