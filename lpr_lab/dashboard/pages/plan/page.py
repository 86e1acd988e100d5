"""Page `/plan`: its components, event handlers, and what they show for an address."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.cache import cached
from lpr_lab.dashboard.pages.plan.changes import changed
from lpr_lab.dashboard.pages.plan.costs import ROUNDING, RULES, Plan, costs, make_plan
from lpr_lab.dashboard.pages.plan.editor import render_editor, render_table
from lpr_lab.dashboard.pages.plan.facts import BaseFacts, Similarity, facts_of, parse_similarity
from lpr_lab.dashboard.pages.plan.render import finding, render_costs, render_export
from lpr_lab.dashboard.parameters import Text
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.shell import FILES, PICK, PageContext, html_block, in_order, notice
from lpr_lab.errors import LprError
from lpr_lab.method.scores.table import KINDS
from lpr_lab.runs.run import Run
from lpr_lab.views.numbers import count

TYPED = Text("Similarity", 8000, may_be_empty=True)
QUESTION = "How many experts per layer, and what will they cost?"
MEASURE = "lpr-lab run 02_plan_experts"


def known(context: PageContext) -> BaseFacts:
    """Return what is known of the chosen run's base, with the similarity that was typed, if any."""
    facts = facts_of(context.run, context.runs) if context.run else BaseFacts("")
    if context.query.similarity and not _wrong_similarity(context.query.similarity, facts):
        values = parse_similarity(context.query.similarity)
        return replace(facts, similarity=Similarity(values), num_layers=len(values))
    return facts


def _wrong_similarity(text: str, facts: BaseFacts) -> str:
    """Return why a typed similarity cannot be used, in a sentence; empty where it can."""
    try:
        values = parse_similarity(text)
    except ValueError as error:
        return str(error)
    if facts.num_layers not in (None, len(values)):
        return f"That is {len(values)} numbers, and the base has {facts.num_layers} layers."
    return ""


@cached
def compose(context: PageContext, runs_dir: Path) -> dict[str, Any]:
    """Return what the page shows, by name: HTML, and updates of the controls."""
    facts = known(context)
    plan = make_plan(facts, context.query)
    controls = _controls(facts, plan)
    if context.query.similarity and (wrong := _wrong_similarity(context.query.similarity, facts)):
        context = replace(context, notice=context.notice + notice("warn", f"Similarity in the address: {wrong}"))
    if plan is None:
        why = shell.no_runs(runs_dir) if context.run is None else _unknown(facts)
        top = shell.head(QUESTION, more=context.notice, query=context.query)
        return {"top": top, **controls, "editor": why, "costs": "", "export": "", "source": ""}
    cost = costs(facts, plan.experts, plan.top_k, plan.tokens)
    query = replace(
        context.query,
        run=context.run.id if context.run else "",
        rule=plan.rule,
        experts=",".join(map(str, plan.experts)) if plan.rule == "own" else "",
        budget=plan.budget,
        topk=plan.top_k,
    )
    return {
        "top": shell.head(QUESTION, finding(facts, plan, cost), context.notice, query=query),
        **controls,
        "editor": render_editor(plan.experts, facts.similarity if _fits(facts) else None),
        "costs": render_costs(facts, plan, cost),
        "export": render_table(plan.experts, facts.similarity if _fits(facts) else None)
        + render_export(facts, plan, context.run),
        "source": _source(facts, context.runs),
    }


def _fits(facts: BaseFacts) -> bool:
    return facts.similarity is not None and len(facts.similarity.values) == facts.num_layers


def _controls(facts: BaseFacts, plan: Plan | None) -> dict[str, Any]:
    if plan is None:
        hidden = gr.update(visible=False)
        return dict.fromkeys(("rule", "rounding", "budget", "top_k", "tokens"), hidden)
    always = ("uniform", "own")
    rules = [
        (text, name)
        for name, text in RULES.items()
        if name in always or (name in facts.scores if name in KINDS else _fits(facts))
    ]
    return {
        "rule": gr.update(choices=rules, value=plan.rule, visible=True),
        "rounding": gr.update(value=plan.rounding, visible=True),
        "budget": gr.update(value=plan.budget, visible=True),
        "top_k": gr.update(value=plan.top_k, visible=True),
        "tokens": gr.update(value=plan.tokens, visible=True),
    }


def _unknown(facts: BaseFacts) -> Markup:
    base = facts.base or "this run's base"
    return shell.missing(
        f"How many layers {base} has is not known yet",
        "A finished run on the same base tells it. Measuring how alike languages look in each layer takes about three "
        "minutes on two cores; or paste one similarity per layer below.",
        measure_command(facts.base),
    )


def measure_command(base: str) -> str:
    """Return what to type to have a base measured."""
    return f"{MEASURE} -p {shlex.quote(f'base={base}')}" if base else MEASURE


def _source(facts: BaseFacts, runs: list[Run]) -> Markup:
    similarity = facts.similarity
    if similarity is None:
        command = shell.command(measure_command(facts.base))
        text = Markup("How alike languages look in the layers of {} was not measured: {}").format(facts.base, command)
        return notice("info", text)
    if not similarity.run:
        return notice("info", "Similarity is the list that was typed below.")
    title = next((run.title for run in runs if run.id == similarity.run), similarity.run)
    link = Markup('<a href="/?{}">{}</a>').format(Query(run=similarity.run).urlencode(), title)
    tokens = f", {count(similarity.num_tokens)} tokens per language" if similarity.num_tokens else ""
    return shell.caption(Markup("Similarity: {}{}.").format(link, tokens))


# ------------------------------------------------------------------------------------------------------- controls


class Controls:
    """The components, made in the order in which the page shows them."""

    def __init__(self) -> None:
        self.top = html_block(shell.head(QUESTION))
        with gr.Row(elem_classes="lpr-controls"):
            self.run = shell.run_picker()
            self.rule = gr.Radio([], label="Give more experts to", visible=False)
        with gr.Row(elem_classes="lpr-settings"):
            box: dict[str, Any] = {"visible": False, "scale": 0}
            self.budget = gr.Number(label="New experts in all", min_width=170, **box)
            self.top_k = gr.Number(label="At work on a token (top-k)", min_width=190, **box)
            self.tokens = gr.Number(label="Tokens of stage 1", min_width=170, **box)
            choices = [(text, name) for name, text in ROUNDING.items()]
            self.rounding = gr.Radio(choices, label="Rounding", visible=False)
        self.said = html_block()
        self.editor = html_block()
        self.source = html_block()
        self.costs = html_block()
        self.export = html_block()
        with gr.Accordion("A similarity of your own", open=False, elem_classes="lpr-own"):
            self.typed = gr.Textbox(
                label="One number above 0 per layer",
                placeholder="0.31 0.42 0.40 …",
                lines=2,
                elem_classes=f"lpr-limit-{TYPED.most}",
            )
            with gr.Row(elem_classes="lpr-actions"):
                self.use = gr.Button("Divide by this", scale=0)
                self.line = html_block(shell.status(""))

    @property
    def shown(self) -> list[Any]:
        """What `draw` fills, in its order."""
        return [getattr(self, name) for name in SHOWN]


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Build the page and connect its events."""
    html_block(shell.header("Plan"))
    made = Controls()

    def load(request: gr.Request) -> list[Any]:
        return draw(runs_dir, dict(request.query_params))

    def step(request: gr.Request) -> list[Any]:
        return ["", *load(request)]

    def choose(name: str) -> Any:
        def chosen(value: Any, request: gr.Request) -> list[Any]:
            return change(runs_dir, name, value, dict(request.query_params))

        return in_order(chosen)

    def divide(text: Any, request: gr.Request) -> list[Any]:
        return divide_by(runs_dir, text, dict(request.query_params))

    demo.load(load, None, made.shown, **FILES)
    for name, control in (("run", made.run), ("rule", made.rule), ("round", made.rounding)):
        control.input(choose(name), [control], [made.said, *made.shown], **PICK)
    for name, control in (("budget", made.budget), ("topk", made.top_k), ("tokens", made.tokens)):
        gr.on([control.submit, control.blur], choose(name), [control], [made.said, *made.shown], **PICK)
    # Drawing puts back what a control showed before a value was refused: what was said of that value goes with it.
    made.editor.click(in_order(step), None, [made.said, *made.shown], **PICK)
    made.use.click(divide, [made.typed], [made.line, made.said, *made.shown], **FILES)


# ------------------------------------------------------------------------------------------------- event handlers


SHOWN = ("top", "rule", "rounding", "budget", "top_k", "tokens", "costs", "export", "source", "run", "editor")
"""The components that the address decides."""


def draw(runs_dir: Path, params: dict[str, Any]) -> list[Any]:
    """Return what the components in `SHOWN` show for an address."""
    context = shell.page_context(runs_dir, params)
    found = compose(context, runs_dir) | {"run": shell.show_runs(context)}
    return [found[name] for name in SHOWN]


def change(runs_dir: Path, name: str, value: Any, params: dict[str, Any]) -> list[Any]:
    """Return a message, then what is shown after a control changed; a refused value leaves all as it was.

    Args:
        runs_dir: the folder of runs.
        name: the key of the address that the control sets.
        value: of the control.
        params: of the address.
    """
    same = [gr.skip() for _ in SHOWN]
    context = shell.page_context(runs_dir, params)
    try:
        changes = changed(name, value, make_plan(known(context), context.query))
    except LprError as error:
        return [shell.problem(str(error)), *same]
    return ["", *(same if changes is None else draw(runs_dir, {**params, **changes}))]


def divide_by(runs_dir: Path, text: Any, params: dict[str, Any]) -> list[Any]:
    """Return what is said of a typed similarity and of other controls, then what the budget divided by it shows."""
    try:
        values = parse_similarity(TYPED.read(text))
        context = shell.page_context(runs_dir, params)
        layers = facts_of(context.run, context.runs).num_layers if context.run else None
        if values and layers not in (None, len(values)):
            raise ValueError(f"That is {len(values)} numbers, and the base has {layers} layers.")
    except (ValueError, LprError) as error:
        return [shell.status(str(error), bad=True), gr.skip(), *(gr.skip() for _ in SHOWN)]
    said = f"{len(values)} layers." if values else "Back to what was measured."
    changes = {"similarity": ",".join(f"{value:.6g}" for value in values), "rule": "similarity", "experts": ""}
    return [shell.status(said), "", *draw(runs_dir, {**params, **changes})]
