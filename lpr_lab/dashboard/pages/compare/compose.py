"""What page `/compare` shows for an address: pair, models to choose, and reasons where something is missing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare import render
from lpr_lab.dashboard.pages.compare.controls import side_choices
from lpr_lab.dashboard.pages.compare.sides import (
    PREFERENCES,
    choice_of,
    choices_in,
    choose_prompt,
    comparable,
    speaker,
)
from lpr_lab.dashboard.pages.compare.state import QUESTION, Latest, hint, may_judge
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.models import why_no_model
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import LprError
from lpr_lab.runs.model_ref import BASE, EXPANDED, ModelRef, analysed_run
from lpr_lab.runs.people.continuations import Pair, exactness, pair_id, pairs
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.continuations import describe_settings, finding, render_pair

BLIND = "blind"


def compose(context: PageContext, runs_dir: Path) -> dict[str, Any]:
    """Return what each part of the page shows: the pair the address names, or the newest of its language."""
    run = context.run
    hide = gr.update(visible=False)
    blank: dict[str, Any] = dict.fromkeys(("language", "left", "right", "blind", "prompt", "settings"), hide)
    blank |= dict.fromkeys(("why", "pair", "hint", "tally", "kept", "strips"), "")
    blank |= dict.fromkeys(("tokens", "temperature", "seed"), gr.skip())
    blank |= {"go": gr.update(interactive=False), "votes": hide, "reveal": hide, "trace": hide, "latest": None}
    if run is None:
        top = shell.head(QUESTION, more=context.notice, query=context.query)
        return blank | {"top": top, "pair": shell.no_runs(runs_dir)}
    try:
        return blank | _compose(context, run)
    except LprError as error:
        more = context.notice + shell.notice("bad", str(error))
        return blank | {"top": shell.head(QUESTION, more=more, query=context.query)}


def shown_pair(context: PageContext, run: Run) -> dict[str, Any] | None:
    """Return the kept pair that the page shows at its address, as the run keeps it; None where it shows none."""
    return _asked(context, run, _sides(context, run))[0]


def _sides(context: PageContext, run: Run) -> tuple[ModelRef, ModelRef]:
    others = comparable(run, context.runs)
    asked = zip(choices_in(context.query), (BASE, EXPANDED), strict=True)
    left, right = (speaker(choice, run, others, default) for choice, default in asked)
    return left, right


def _asked(context: PageContext, run: Run, sides: tuple[ModelRef, ModelRef]) -> tuple[dict[str, Any] | None, str, str]:
    """Return the pair that the address names, else the newest of its language and models; then language and prompt."""
    kept = pairs(run)
    original, expanded = shell.languages_of(run)
    record = kept.get(context.query.text)
    if record is not None:
        return record, str(record.get("language") or ""), str(record["prompt"])
    names = sides[0].name(run), sides[1].name(run)
    language, prompt = choose_prompt((*expanded, *original), context.query.lang)
    same = [one for one in kept.values() if (one.get("language") or language) == language]
    same = [one for one in same if Pair.from_record(one).names == names]
    if analysed_run(run):  # it was made for its pairs, whoever wrote them
        same = [one for one in kept.values() if one.get("language") in ("", language)] or list(kept.values())
    record = next((one for one in reversed(same) if one["prompt"] == prompt), same[-1] if same else None)
    return record, language, str(record["prompt"]) if record else prompt


def _compose(context: PageContext, run: Run) -> dict[str, Any]:
    kept = pairs(run)
    original, expanded = shell.languages_of(run)
    if context.query.text and context.query.text not in kept:
        said = f"This run keeps no pair “{context.query.text}”. Showing another one, if there is any."
        context = replace(context, notice=context.notice + shell.notice("warn", said))
    others = comparable(run, context.runs)
    left, right = _sides(context, run)
    record, language, prompt = _asked(context, run, (left, right))
    reason = why_no_model(run)
    choices = side_choices(run, others)
    found = {
        "language": gr.update(choices=_languages(original, expanded, kept), value=language, visible=True),
        "left": gr.update(choices=choices, value=choice_of(left, run), visible=reason is None),
        "right": gr.update(choices=choices, value=choice_of(right, run), visible=reason is None),
        "blind": gr.update(value=context.query.mode == BLIND, visible=reason is None),
        "prompt": gr.update(value=prompt, visible=True),
        "settings": gr.update(visible=True),
        "go": gr.update(interactive=reason is None),
        "tally": render.preferences(run, run.generations.read(PREFERENCES)),
    }
    text = pair_id(record) if record else ""
    query = Query.parse({**vars(context.query), "lang": language, "text": text})
    found["kept"] = render.kept_pairs(kept, query)
    if reason is None:
        found["hint"] = hint(run, record.get("max_new_tokens") or 48 if record else 48, prompt)
    else:
        found["why"] = shell.notice("info", shell.no_model(run, reason, "/compare", "A new generation"))
    if record is None:
        lead = "Both continue one prompt, from one copy of the weights." if reason is None else ""
        return found | {"top": shell.head(QUESTION, lead, context.notice, query=query)}
    pair = Pair.from_record(record)
    more = shell.more(f"Kept with this run: {describe_settings(record)}.")
    settings = {key: record.get(key) for key in ("max_new_tokens", "temperature", "seed")}
    latest = Latest(run.id, pair, settings, is_kept=True)
    return found | {
        "top": shell.head(QUESTION, finding(pair) + more, context.notice, query=query),
        "pair": render_pair(pair, exactness(run)),
        "tokens": gr.update(value=settings["max_new_tokens"] or 48),
        "temperature": gr.update(value=settings["temperature"] or 0),
        "seed": gr.update(value=settings["seed"] or 0),
        "votes": gr.update(visible=may_judge(latest, run)),
        "latest": latest,
    }


def _languages(original: list[str], expanded: list[str], kept: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    codes = [*original, *expanded, *(str(record.get("language") or "") for record in kept.values())]
    return [(language_name(code), code) for code in dict.fromkeys(codes) if code]
