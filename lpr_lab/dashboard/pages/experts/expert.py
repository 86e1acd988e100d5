"""One expert of one layer: its shares, its contexts in held-out text, what leaving it out costs, who is alike.

Contexts are found by the model, on demand. Their tables are kept with the run, as what else is counted of experts is:
they hold ids, places and single tokens. Sentences are texts of others, so they are held in memory only, and are found
again without a forward pass when the tables are there already.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.experts.data import Selection, read
from lpr_lab.dashboard.pages.experts.render import ANCHOR, NUMBER_CHOICES, link_to
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.context_tokens import CONTEXT_TOKENS
from lpr_lab.dashboard.server.models import MODELS, why_no_model
from lpr_lab.dashboard.shell import status
from lpr_lab.errors import LprError
from lpr_lab.measure.contexts.expert_contexts import BITS, WEIGHT, ExpertContexts
from lpr_lab.runs.expert_contexts import read_contexts
from lpr_lab.views import Table
from lpr_lab.views.html.expert_contexts import (
    effect_in_words,
    render_contexts,
    render_effects,
    render_neighbours,
)
from lpr_lab.views.html.templates import render
from lpr_lab.views.names import expert_name
from lpr_lab.views.numbers import NOT_MEASURED, duration, percent

PARTS = ("expert", "find", "leave_out", "contexts")


_WHAT = (
    "The model reads the run’s test text: one pass finds the tokens on which every expert weighs most, and who is "
    "alike; to leave this one out is a second. Tables are kept with the run, sentences are not."
)


def hidden() -> dict[str, Any]:
    """Return the parts where no expert is shown."""
    off = {name: gr.update(visible=False) for name in ("find", "leave_out")}
    return {"expert": "", "contexts": "", **off}


def of_expert(table: Table, layer: int, expert: int) -> Table:
    """Return the rows of one expert."""
    return table[(table["layer"] == layer) & (table["expert"] == expert)].reset_index(drop=True)


def shares(selection: Selection) -> Table:
    """Return the chosen expert's share of each language shown, at every stage: language, role, and a column per stage.

    The number is the one that the page counts load as; NaN for a stage at which there was no such expert.
    """
    rows = of_expert(selection.load, selection.layer, selection.expert)
    rows = rows[(rows["dataset"] == selection.data) & rows["language"].isin(selection.languages)]
    wide = rows.pivot_table(index="language", columns="stage", values=selection.number)
    wide = wide.reindex(index=list(selection.languages), columns=list(selection.stages))
    wide.insert(0, "role", [selection.roles[code] for code in selection.languages])
    return wide.rename_axis(columns=None).reset_index()


def contexts_of(selection: Selection) -> ExpertContexts | None:
    """Return what the run keeps of its experts' contexts at what is shown, with the tokens where they are held."""
    found = read_contexts(selection.run, selection.data, selection.stage)
    return None if found is None else replace(found, tokens=CONTEXT_TOKENS.get(selection.run, selection.data))


# ---------------------------------------------------------------------------------------------------- what is shown


def show_expert(selection: Selection, query: Query) -> dict[str, Any]:
    """Return the parts of the page that show the chosen expert."""
    found, reason = contexts_of(selection), why_not(selection)
    has_effects = found is not None and len(of_expert(found.effects, selection.layer, selection.expert)) > 0
    has_sentences = found is not None and len(found.tokens) > 0
    find = "Show them in their sentences" if found is not None else "Find its contexts"
    return {
        "expert": _head(selection, query),
        "find": gr.update(visible=not (reason or has_sentences), value=find),
        "leave_out": gr.update(visible=not (reason or has_effects)),
        "contexts": _contexts(selection, query, found, reason),
    }


def why_not(selection: Selection) -> str | Markup:
    """Return why the contexts of a run's experts cannot be found here, in a sentence, or nothing."""
    run = selection.run
    if reason := why_no_model(run):
        there = shell.elsewhere(run, "/experts") or "Finding contexts needs a run with weights."
        return Markup("{} {}").format(reason, there)
    if not {"corpus", "original", "expanded"} <= set(run.config):
        return "This run does not say which text it was made from, so contexts of its experts cannot be found."
    return ""


def _head(selection: Selection, query: Query) -> Markup:
    table = shares(selection)
    cells = {
        code: [NOT_MEASURED if share != share else percent(share) for share in row]
        for code, *row in table.drop(columns="role").itertuples(index=False)
    }
    stage = "" if selection.stage == selection.stages[-1] else selection.stage
    own = Query(run=selection.run.id, stage=stage, text="own", layer=selection.layer, expert=selection.expert)
    return render(
        "dashboard/pages/experts/expert.html.j2",
        anchor=ANCHOR,
        name=expert_name(selection.expert),
        layer=selection.layer,
        number=NUMBER_CHOICES[selection.number],
        stages=[name or "Newest stage" for name in selection.stages],
        roles=selection.roles,
        cells=cells,
        own=own.link("/routing"),
        back=_back(query),
    )


def _back(query: Query) -> dict[str, Any] | None:
    """Return the link to the token from which the reader came here, and its number; None where it was none."""
    if not query.text or query.tok is None:
        return None
    known = {name: getattr(query, name) for name in ("run", "stage", "text", "lang", "layer", "tok", "mode")}
    return {"link": Query(**known).link("/routing"), "token": query.tok + 1}


def _contexts(selection: Selection, query: Query, found: ExpertContexts | None, reason: str | Markup) -> Markup:
    place = selection.layer, selection.expert
    roles = {code: selection.roles[code] for code in selection.languages}
    if found is None:
        return shell.notice("info", reason) if reason else shell.caption(_WHAT)
    effects = of_expert(found.effects, *place)
    effects = effects[effects["language"].isin(roles)]
    near = of_expert(found.neighbours, *place)
    near = near[near["correlation"] > 0]  # the closest of few may still be unlike it

    def choose(layer: int, expert: int | None) -> dict[str, str]:
        return link_to(selection, query, layer, expert or 0)

    return render(
        "dashboard/pages/experts/contexts.html.j2",
        by_weight=render_contexts(found, *place, roles, WEIGHT),
        without="" if reason or found.tokens else "Single tokens: what stands around them is not kept with a run.",
        reason=reason,
        said=effect_in_words(effects) if len(effects) else "",
        effects=render_effects(effects, roles) if len(effects) else "",
        by_bits=render_contexts(found, *place, roles, BITS) if len(effects) else "",
        near=render_neighbours(near, choose),
    )


# ------------------------------------------------------------------------------------------------------ on demand


def find_now(runs_dir: Path, params: dict[str, Any], *, leave_out: bool) -> Iterator[Markup]:
    """Find the contexts of a run's experts, or only their sentences again; yields status lines as it gets on.

    Args:
        runs_dir: the folder of runs.
        params: of the address: run, stage, test set, layer and expert.
        leave_out: whether the chosen expert is left out, too.
    """
    context = shell.page_context(runs_dir, params)
    try:
        selection = read(context.run, context.query) if context.run else None
        if selection is None:
            raise LprError("There is no expert to look at; count them first.")
        if reason := why_not(selection):
            yield status(reason, bad=True)
            return
        run, place = selection.run, (selection.layer, selection.expert)
        yield status("Reading…" if MODELS.is_loaded(run) else "Loading the model, once…", busy=True)
        from lpr_lab.experiments.expert_contexts import find_contexts, find_tokens

        started = time.monotonic()
        if not leave_out and contexts_of(selection) is not None:
            CONTEXT_TOKENS.put(run, selection.data, find_tokens(run, lambda: MODELS.use(run), selection.data))
            yield status(f"Sentences found in {duration(time.monotonic() - started)}; nothing of them is saved.")
            return
        without = place if leave_out else None
        asked = {"dataset": selection.data, "stage": selection.stage, "without": without}
        for step in find_contexts(run, lambda: MODELS.use(run), **asked):
            if step.result is not None:
                CONTEXT_TOKENS.put(run, selection.data, step.result.tokens)
                break
            spent = time.monotonic() - started
            left = f", {duration(spent / step.done * (step.total - step.done))} left" if step.done > 1 else ""
            yield status(f"{step.done} of {step.total} parts of the text{left}", busy=True)
    except OSError as error:
        yield status(f"The tables could not be written ({error.strerror or error}).", bad=True)
        return
    except Exception as error:  # whatever it is, the page says so and shows again what was there before
        if not isinstance(error, LprError):
            logging.getLogger(__name__).exception("Finding contexts of run %s failed.", context.query.run)
        said = str(error) if isinstance(error, LprError) else f"This failed ({type(error).__name__}: {error})."
        yield status(said, bad=True)
        return
    what = f"Layer {place[0]}, {expert_name(place[1])}" if leave_out else "All experts"
    yield status(f"{what}: done in {duration(time.monotonic() - started)}; kept with the run, without the sentences.")
