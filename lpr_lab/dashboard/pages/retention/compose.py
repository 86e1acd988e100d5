"""What page `/retention` shows for an address: two sides, their changes, and what is behind a change."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.cache import cached
from lpr_lab.dashboard.pages.retention import causes, document, render
from lpr_lab.dashboard.pages.retention.causes import Causes
from lpr_lab.dashboard.pages.retention.controls import controls
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import LprError
from lpr_lab.runs.compare import paired_scores
from lpr_lab.runs.compare.paired_scores import PairedChange
from lpr_lab.runs.compare.paired_tasks import compare_tasks
from lpr_lab.runs.compare.trade_off import trade_off
from lpr_lab.runs.lineage import members_of
from lpr_lab.runs.model_ref import BASE, ModelRef, analysed_run, baseline_of, stages_of, title_of_final
from lpr_lab.runs.run import Run, short_id
from lpr_lab.views import Table
from lpr_lab.views.figures.retention import before_and_after, gain_against_forgetting
from lpr_lab.views.figures.titles import take_title
from lpr_lab.views.html.run_overview import lost_text
from lpr_lab.views.names import dataset_name, datasets
from lpr_lab.views.numbers import NOT_MEASURED

QUESTION = "What did it gain, what did it forget, and is that real?"
LIFELONG = "lifelong"
RUN = "run:"
"""Before the id of another run, in the picker of what to compare with."""


def sides(run: Run, query: Query, others: Iterable[Run]) -> tuple[ModelRef, ModelRef]:
    """Return (before, after) that an address asks for; what it cannot have is as if it were not asked for.

    `stage` is what the run's model is looked at (the newest by default), `run2` and `stage2` what it is compared with:
    the base of the same run by default.
    """
    known = stages_of(run)
    after = ModelRef(run, query.stage if query.stage in known[:-1] else "")
    other = next((one for one in others if one.id == query.run2 and one.id != run.id), None)
    if other is not None:
        return ModelRef(other, query.stage2 if query.stage2 in [*stages_of(other)[:-1], BASE] else ""), after
    return ModelRef(run, query.stage2 if query.stage2 in (BASE, *known) else baseline_of(run)), after


def shown_dataset(table: Table, query: Query) -> str:
    """Return the data set that an address asks for; the first of a table where it asks for none that is there."""
    names = datasets(table)
    return query.data if query.data in names else names[0]


@cached
def compose(context: PageContext, runs_dir: Path) -> dict[str, Any]:
    """Return what each part of the page shows."""
    nothing: dict[str, Any] = {"plot": gr.update(visible=False, value=None), "title": "", "table": ""}
    nothing |= dict.fromkeys(("before", "after", "data", "why", "lang", "doc", "read"), gr.update(visible=False))
    nothing |= {"causes": "", "why_not": ""}
    if context.run is None:
        top = shell.head(QUESTION, more=context.notice, query=context.query)
        return nothing | {"top": top, "table": shell.no_runs(runs_dir)}
    try:
        if context.run.kind == LIFELONG:
            return nothing | _lifelong(context, context.run)
        return nothing | _two_sides(context, context.run)
    except (LprError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, LprError) else f"A table of this run has another form ({error})."
        more = context.notice + shell.notice("bad", reason)
        return nothing | {"top": shell.head(QUESTION, more=more, query=context.query)}


def _not_measured(context: PageContext, run: Run) -> dict[str, Any]:
    top = shell.head(QUESTION, NOT_MEASURED, context.notice, query=context.query)
    return {"top": top, "table": render.not_measured(run)}


def _two_sides(context: PageContext, run: Run) -> dict[str, Any]:
    before, after = sides(run, context.query, context.runs)
    found = paired_scores.compare(before, after)
    if found is None:
        return _not_measured(context, run)
    pickers = _pickers(context, run, before, after)
    if found.rows is None:
        query = _view(context, before, after, context.query.data)
        lead = "These two cannot be compared." + shell.more(render.sides_line(found))
        top = shell.head(QUESTION, lead, context.notice, query=query)
        return pickers | {"top": top, "table": render.refused(found)}
    names, chosen = datasets(found.rows), shown_dataset(found.rows, context.query)
    rows = found.rows[found.rows["dataset"] == chosen]
    called = before.title(run), after.title(run)
    figure = before_and_after(rows, before=called[0], after=called[1])
    take_title(figure)
    from_base = before.run.id == run.id and before.stage == BASE
    more = shell.more(render.worst(rows), render.sides_line(found), lost_text(run)) + render.DEFINITIONS
    query = _view(context, before, after, chosen)
    return (
        pickers
        | _causes(context, run, query)
        | {
            "top": shell.head(QUESTION, render.finding(rows, from_base=from_base) + more, context.notice, query=query),
            "data": gr.update(choices=[(dataset_name(name), name) for name in names], value=chosen, visible=True),
            "title": _hidden_title(f"Before and after, {dataset_name(chosen)}"),
            "plot": gr.update(value=figure, visible=True),
            "table": render.change_table(rows, *called, from_base=from_base),
        }
    )


def compared_causes(context: PageContext, run: Run, dataset: str) -> tuple[Causes, PairedChange] | None:
    """Return what is behind the change of one language between the two that are compared; None where they are not."""
    before, after = sides(run, context.query, context.runs)
    found = paired_scores.compare(before, after, dataset)
    if found is None or found.rows is None or found.rows.empty:
        return None
    behind = causes.causes_of(found, dataset, context.query)
    return None if behind is None else (behind, found)


def _causes(context: PageContext, run: Run, query: Query) -> dict[str, Any]:
    """Return the parts that say where the change of one language comes from."""
    both = compared_causes(context, run, query.data)
    if both is None:
        return {}
    behind, found = both
    choices, known = causes.document_choices(behind), behind.document(query.doc) is not None
    reason = document.why_no_tokens(found.before, found.after) if choices else ""
    return {
        "why": gr.update(visible=True),
        "lang": gr.update(choices=causes.language_choices(found.rows), value=behind.language, visible=True),
        "causes": causes.render_causes(behind, found, query),
        "doc": gr.update(choices=choices, value=query.doc if known else "", visible=bool(choices)),
        "read": gr.update(visible=bool(choices) and not reason, interactive=known),
        "why_not": document.no_tokens(run, reason) if reason else "",
    }


def _view(context: PageContext, before: ModelRef, after: ModelRef, dataset: str) -> Query:
    """Return what is shown as an address; what is so by default is left out."""
    other = before.run.id if before.run.id != after.run.id else ""
    stage2 = "" if before.stage == baseline_of(before.run) and not other else before.stage
    changed = {"run2": other, "stage": after.stage, "stage2": stage2, "data": dataset}
    return Query.parse({**vars(context.query), **changed})


def _pickers(context: PageContext, run: Run, before: ModelRef, after: ModelRef) -> dict[str, Any]:
    stages = stages_of(run)
    newest = title_of_final(run)
    was = [("base model", BASE), *((name, name) for name in stages)]
    for other in context.runs:
        if other.problem is None and other.id != run.id and other.kind != LIFELONG:
            was.append((f"another run: {other.title} · {short_id(other.id)}", f"{RUN}{other.id}"))
    chosen = before.stage if before.run.id == run.id else f"{RUN}{before.run.id}"
    now = [(newest, ""), *((name, name) for name in stages[:-1])]
    return {
        "before": gr.update(choices=was, value=chosen, visible=True),
        "after": gr.update(choices=now, value=after.stage, visible=len(now) > 1),
    }


def earlier(chosen: str) -> dict[str, str]:
    """Return the part of an address that says what the picker says: a stage, the base, or another run."""
    other = chosen.removeprefix(RUN) if chosen.startswith(RUN) else ""
    return {"run2": other, "stage2": "" if other else chosen}


def _lifelong(context: PageContext, run: Run) -> dict[str, Any]:
    from lpr_lab.views.figures import stages

    table = run.tables.read("retention_by_stage")
    if table is None or table.empty:
        return _not_measured(context, run)
    names, chosen = datasets(table), shown_dataset(table, context.query)
    rows = table[table["dataset"] == chosen]
    figure = stages.retention_by_stage(rows)
    found = take_title(figure) + "."
    link = Markup('<a href="{}">G{}</a>')
    links = [link.format(Query(run=member).link("/retention"), n) for n, member in enumerate(members_of(run), 1)]
    more = shell.more(Markup("The runs of the groups: {}.").format(Markup(", ").join(links)) if links else "")
    query = Query.parse({**vars(context.query), "data": chosen, "run2": "", "stage": "", "stage2": ""})
    return {
        "top": shell.head(QUESTION, found + more + render.DEFINITIONS, context.notice, query=query),
        "data": gr.update(choices=[(dataset_name(name), name) for name in names], value=chosen, visible=True),
        "title": _hidden_title(f"Stage after stage, {dataset_name(chosen)}"),
        "plot": gr.update(value=figure, visible=True),
        "table": render.stage_table(rows),
    }


def _hidden_title(text: str) -> Markup:
    return Markup('<h2 class="lpr-hidden">{}</h2>').format(text)


_AMONG = Markup(
    '<section class="lpr-section"><h2>Gain against forgetting, over runs</h2>'
    '<p class="lpr-subfinding">{}.</p></section>'
)


def compose_more(context: PageContext) -> dict[str, Any]:
    """Return what stands below: tasks, the documents that moved, the controls, and this run among the others."""
    blank = {"tasks": "", "moved": "", "controls": "", "among": "", "points": ""}
    blank |= {"scatter": gr.update(visible=False, value=None)}
    run = context.run
    if run is None or run.kind == LIFELONG:
        return blank
    try:
        before, after = sides(run, context.query, context.runs)
        found: PairedChange | None = paired_scores.compare(before, after)
        if found is None or found.rows is None:
            return blank
        chosen = shown_dataset(found.rows, context.query)
        here = paired_scores.compare(before, after, chosen)
        moved = render.moved_documents(here, context.query) if here is not None else ""
        of_forgetting = controls(run, context.runs, chosen) if not analysed_run(run) else ""
        tasks = render.tasks_section(compare_tasks(before, after), before, after)
        trade = trade_off(run, context.runs, chosen)
    except (LprError, KeyError, ValueError):
        return blank  # the upper half says what is wrong
    if trade is None:
        return blank | {"tasks": tasks, "moved": moved, "controls": of_forgetting}
    figure = gain_against_forgetting(trade.points)
    alone = len(trade.points) < 2
    return {
        "tasks": tasks,
        "moved": moved,
        "controls": of_forgetting,
        "among": _AMONG.format(take_title(figure)),
        "scatter": gr.update(visible=False, value=None) if alone else gr.update(visible=True, value=figure),
        "points": render.trade_off_table(trade, context.query),
    }


def shown_tokens(context: PageContext) -> str | Markup:
    """Return the tokens of the document that an address asks for, where it was read; else nothing."""
    both = _chosen(context)
    if both is None:
        return ""
    try:
        return document.render_document(both[0], both[1].before, both[1].after, context.query)
    except (LprError, KeyError, ValueError) as error:
        return shell.notice("bad", str(error))


def read_chosen(context: PageContext) -> Iterator[tuple[Any, ...]]:
    """Read the document that an address asks for; yields a status line, its tokens, and the button that cancels."""
    both = _chosen(context)
    if both is None:
        yield shell.status("Choose a document first.", bad=True), "", gr.update(visible=False)
        return
    for line, shown in document.read_document(both[0], both[1].before, both[1].after, context.query):
        yield line, shown, gr.update(visible=shell.is_busy(line))


def _chosen(context: PageContext) -> tuple[Causes, PairedChange] | None:
    if context.run is None or context.run.kind == LIFELONG or context.query.doc is None:
        return None
    try:
        before, after = sides(context.run, context.query, context.runs)
        found = paired_scores.compare(before, after)
        if found is None or found.rows is None:
            return None
        return compared_causes(context, context.run, shown_dataset(found.rows, context.query))
    except (LprError, KeyError, ValueError):
        return None  # the page says what is wrong
