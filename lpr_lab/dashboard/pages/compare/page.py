"""Page `/compare`: what does the expanded model say that the base does not?"""

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare import render
from lpr_lab.dashboard.pages.compare.controls import Controls, side_choices
from lpr_lab.dashboard.pages.compare.sides import (
    PREFERENCES,
    address_of,
    choice_of,
    choices_in,
    choose_prompt,
    comparable,
    is_typed,
    speaker,
)
from lpr_lab.dashboard.pages.compare.state import QUESTION, Latest, done, halted, hint, hint_of, judge, may_judge
from lpr_lab.dashboard.parameters import NEW_TOKENS, PROMPT, SEED, TEMPERATURE
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.model_queue import queued
from lpr_lab.dashboard.server.models import MODELS, why_no_model
from lpr_lab.dashboard.shell import FILES, MODEL, PICK, PageContext, esc, html_block, in_order, status
from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.continuations import Continuation, Pair, exactness, pair_id, pairs
from lpr_lab.runs.model_ref import BASE, EXPANDED, ModelRef, analysed_run
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.continuations import describe_settings, finding, render_pair

UPDATES_PER_SECOND = 10
BLIND = "blind"
DEMO = shell.command("lpr-lab demo")


def compose(context: PageContext, runs_dir: Path) -> dict[str, Any]:
    """Return what each part of the page shows: the pair the address names, or the newest of its language."""
    run = context.run
    hide = gr.update(visible=False)
    blank: dict[str, Any] = dict.fromkeys(("language", "left", "right", "blind", "prompt", "settings"), hide)
    blank |= dict.fromkeys(("why", "pair", "hint", "tally", "kept"), "")
    blank |= dict.fromkeys(("tokens", "temperature", "seed"), gr.skip())
    blank |= {"go": gr.update(interactive=False), "votes": hide, "reveal": hide, "latest": None}
    if run is None:
        top = shell.head(QUESTION, more=context.notice, query=context.query)
        return blank | {"top": top, "pair": shell.no_runs(runs_dir)}
    try:
        return blank | _compose(context, run)
    except LprError as error:
        more = context.notice + shell.notice("bad", esc(str(error)))
        return blank | {"top": shell.head(QUESTION, more=more, query=context.query)}


def _compose(context: PageContext, run: Run) -> dict[str, Any]:
    kept = pairs(run)
    original, expanded = shell.languages_of(run)
    record = kept.get(context.query.text)
    if context.query.text and record is None:
        said = f"This run keeps no pair “{esc(context.query.text)}”. Showing another one, if there is any."
        context = replace(context, notice=context.notice + shell.notice("warn", said))
    language = str(record.get("language") or "") if record else context.query.lang
    others = comparable(run, context.runs)
    asked = zip(choices_in(context.query), (BASE, EXPANDED), strict=True)
    left, right = (speaker(choice, run, others, default) for choice, default in asked)
    names = left.name(run), right.name(run)
    if record is None:
        language, prompt = choose_prompt((*expanded, *original), language)
        same = [one for one in kept.values() if (one.get("language") or language) == language]
        same = [one for one in same if Pair.from_record(one).names == names]
        if analysed_run(run):  # it was made for its pairs, whoever wrote them
            same = [one for one in kept.values() if one.get("language") in ("", language)] or list(kept.values())
        record = next((one for one in reversed(same) if one["prompt"] == prompt), same[-1] if same else None)
    else:
        prompt = str(record["prompt"])
    prompt = str(record["prompt"]) if record else prompt
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
        more = shell.elsewhere(run, "/compare") or f"A new generation needs a run with weights: {DEMO}"
        line = f"{esc(reason)} {more}"
        found["why"] = shell.notice("info", line)
    if record is None:
        lead = "Both continue one prompt, from one copy of the weights." if reason is None else ""
        return found | {"top": shell.head(QUESTION, lead, context.notice, query=query)}
    pair = Pair.from_record(record)
    more = f'<span class="lpr-more">Kept with this run: {esc(describe_settings(record))}.</span>'
    settings = {key: record.get(key) for key in ("max_new_tokens", "temperature", "seed")}
    latest = Latest(run.id, pair, settings, is_kept=True)
    return found | {
        "top": shell.head(QUESTION, f"{finding(pair)}{more}", context.notice, query=query),
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


# -------------------------------------------------------------------------------------------------- generating


def generate(
    runs_dir: Path,
    asked: dict[str, Any],
    params: Any,
) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Write both continuations; yields (status line, head, panes, the pair as it stands) some times a second.

    Args:
        runs_dir: the folder of runs.
        asked: prompt, language, tokens, temperature, seed, left, right and blind, as the controls say.
        params: of the address.
    """
    context, same = shell.page_context(runs_dir, params), gr.skip()
    run = context.run
    if run is None:
        yield status("There is no run."), same, same, same
        return
    try:
        prompt = PROMPT.read(asked["prompt"])
        settings = {"max_new_tokens": NEW_TOKENS.read(asked["tokens"])}
        settings |= {"temperature": TEMPERATURE.read(asked["temperature"]), "seed": SEED.read(asked["seed"])}
    except UsageError as error:
        yield status(str(error), bad=True), same, same, same
        return
    others = comparable(run, context.runs)
    left = speaker(asked.get("left") or BASE, run, others, BASE)
    right = speaker(asked.get("right") or EXPANDED, run, others, EXPANDED)
    blind = bool(asked.get("blind"))
    # From the system's own randomness: the seed of the sampling is on the page, this one is nowhere.
    swapped = blind and secrets.randbelow(2) == 1
    names = left.name(run), right.name(run)
    pair = Pair(prompt, asked["language"] or "", names=names, is_running=True, swapped=swapped, hidden=blind)
    latest = Latest(run.id, pair, settings, was_blind=blind)
    empty = shell.head(QUESTION, finding(pair)), render_pair(pair, exactness(run))
    yield status("Loading the model, once…" if not MODELS.is_loaded(run) else "Writing…", busy=True), *empty, latest
    try:
        for grown in _write(pair, (left, right), run, settings):
            latest, pair = replace(latest, pair=grown), grown
            longest = max(pair.left.tokens or 0, pair.right.tokens or 0)
            line = status(f"Writing: {longest} of at most {settings['max_new_tokens']} tokens each…", busy=True)
            if pair.is_running:
                yield line, shell.head(QUESTION, finding(pair)), render_pair(pair, exactness(run)), latest
    except Exception as error:  # whatever it is, the page says so, keeps what was written, and the next one can start
        said = (
            str(error) if isinstance(error, LprError) else f"The generation failed ({type(error).__name__}: {error})."
        )
        if not isinstance(error, LprError):
            logging.getLogger(__name__).exception("A generation of run %s failed.", run.id)
        line, top, panes, latest = halted(latest, run)
        yield status(f"{said} {line}".strip(), bad=True), top, panes, latest
        return
    yield done(latest, run, context.query)


def _write(pair: Pair, speakers: tuple[ModelRef, ModelRef], run: Run, settings: dict[str, Any]) -> Iterator[Pair]:
    """Yield the pair as it grows, some times a second, and whole at the end."""
    from lpr_lab.measure.generation import generate_pair

    with ExitStack() as held:
        mine = held.enter_context(MODELS.use(run))
        models = [held.enter_context(MODELS.use(side.run)).model for side in speakers]
        named = dict(zip(("left", "right"), (side.stage or EXPANDED for side in speakers), strict=True))
        given = dict(zip(("left_model", "right_model"), models, strict=True))
        steps = generate_pair(mine.model, mine.tokenizer, pair.prompt, **settings, **named, **given)
    shown_at = 0.0
    while True:
        # Held for one step only: a generation that was stopped must not keep the model from the next one.
        with ExitStack() as held:
            for side in speakers:
                held.enter_context(MODELS.use(side.run))
            step = next(steps, None)
        if step is None:
            return
        both = [Continuation(one.text, len(one.ids), one.seconds) for one in (step.left, step.right)]
        grown = {"left": both[0], "right": both[1], "diverged_at": step.diverged_at, "seconds": step.seconds}
        pair = replace(pair, **grown, is_running=not step.finished)
        if step.finished or time.monotonic() - shown_at >= 1 / UPDATES_PER_SECOND:
            shown_at = time.monotonic()
            yield pair


def page(demo: gr.Blocks, runs_dir: Path) -> None:
    """Wire the page."""
    html_block(shell.header("Compare"))
    top = html_block(shell.head(QUESTION))
    controls = Controls()
    latest = gr.State(None)
    shown = {"top": top, **controls.parts, "latest": latest}

    def draw(params: dict[str, Any]) -> list[Any]:
        context = shell.page_context(runs_dir, params)
        found = compose(context, runs_dir) | {"run": shell.show_runs(context)}
        return [found.get(name, gr.skip()) for name in shown]

    def load(request: gr.Request) -> list[Any]:
        return draw(dict(request.query_params))

    def choose_run(chosen: str, request: gr.Request) -> list[Any]:
        nothing = {"text": "", "run2": "", "stage": "", "stage2": ""}
        return draw({**dict(request.query_params), **nothing, "run": chosen})

    def choose_language(code: str, prompt: str, request: gr.Request) -> list[Any]:
        params = {**dict(request.query_params), "lang": code, "text": ""}
        run = shell.page_context(runs_dir, params).run
        found = dict(zip(shown, draw(params), strict=True))
        if run is not None and is_typed(prompt, run):
            found |= {"prompt": gr.skip(), "line": status("Your prompt stays; only its language is another.")}
        return list(found.values())

    def set_address(
        left: str, right: str, blind: bool, seed: Any, tokens: Any, prompt: str, request: gr.Request
    ) -> str:
        context = shell.page_context(runs_dir, dict(request.query_params))
        if context.run is None:
            return ""
        changed: dict[str, Any] = {**address_of(left or BASE, right or EXPANDED), "text": ""}
        changed |= {"mode": BLIND if blind else ""}
        try:
            changed |= {"seed": SEED.read(seed) or ""}
        except UsageError as error:  # the address stays as it is, and so does what was typed
            return hint_of(str(error))
        return hint(context.run, tokens, prompt, Query.parse({**vars(context.query), **changed}))

    def write(
        prompt: str,
        language: str,
        tokens: float,
        temperature: float,
        seed: float,
        left: str,
        right: str,
        blind: bool,
        request: gr.Request,
    ) -> Iterator[tuple[Any, Any, Any, Any]]:
        asked = {"prompt": prompt, "language": language, "tokens": tokens, "temperature": temperature, "seed": seed}
        asked |= {"left": left, "right": right, "blind": blind}
        yield from generate(runs_dir, asked, dict(request.query_params))

    def working() -> tuple[Any, ...]:
        return gr.update(interactive=False), gr.update(interactive=True), gr.update(visible=False)

    def resting(now: Latest | None, limit: Any, prompt: str, request: gr.Request) -> tuple[Any, ...]:
        context = shell.page_context(runs_dir, dict(request.query_params))
        run = context.run
        can_write = run is not None and why_no_model(run) is None
        whole = now is not None and not now.pair.is_running and run is not None
        hidden = now is not None and now.pair.hidden
        judged = may_judge(now, run)
        return (
            gr.update(interactive=can_write),
            gr.update(interactive=False),
            gr.update(visible=judged),
            gr.update(visible=whole and hidden),
            render.kept_pairs(pairs(run), context.query) if run is not None else "",
            hint(run, limit, prompt, latest=now) if run is not None and can_write else "",
        )

    def stopped(now: Latest | None, request: gr.Request) -> tuple[Any, ...]:
        run = shell.page_context(runs_dir, dict(request.query_params)).run
        if now is None and run is not None:  # it still waited for its turn
            found = compose(shell.page_context(runs_dir, dict(request.query_params)), runs_dir)
            return status("Stopped; nothing was written."), found["top"], found["pair"], found["latest"]
        if now is None or run is None or not now.pair.is_running:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        said, head, panes, now = halted(now, run)
        return status(f"Stopped; {said[:1].lower()}{said[1:]}" if said else "Stopped."), head, panes, now

    def prefer(choice: str) -> Any:
        def handle(now: Latest | None, request: gr.Request) -> list[Any]:
            found = judge(runs_dir, now, choice, dict(request.query_params))
            hide = {"reveal": gr.update(visible=False)} if found else {}
            return [(found | hide).get(name, gr.skip()) for name in shown]

        return handle

    demo.load(load, None, list(shown.values()), **FILES)
    address = [controls.left, controls.right, controls.blind, controls.seed, controls.tokens, controls.prompt]
    changes = [one.input for one in address[:-2]] + [controls.tokens.release, controls.prompt.blur]
    gr.on(changes, in_order(set_address), address, [controls.hint], **PICK)
    buttons = [controls.go, controls.stop, controls.votes]
    begin = gr.on([controls.go.click, controls.prompt.submit], working, None, buttons, **FILES)
    # Not "once": a generation that was just stopped still counts as pending for a moment, and the next one would be
    # dropped without a word. The button is off while one is being written, so there are never two from one page.
    outputs = [controls.line, top, controls.pair, latest]

    def waiting(said: str) -> tuple[Any, ...]:
        return status(said, busy=True), shell.head(QUESTION, esc(said)), "", None

    def refused(said: str) -> tuple[Any, ...]:
        return status(said, bad=True), gr.skip(), gr.skip(), gr.skip()

    writing = begin.then(queued(write, waiting, refused), controls.asked, outputs, trigger_mode="multiple", **MODEL)
    after, known = [*buttons, controls.reveal, controls.kept, controls.hint], [latest, controls.tokens, controls.prompt]
    writing.then(resting, known, after, **FILES)
    # Said only once the cancelling is through: what still streams in would write over it, and a generation begun too
    # early would be cancelled with the one before.
    halting = controls.stop.click(None, None, None, cancels=[writing], **FILES)
    halting.then(stopped, [latest], outputs, **FILES).then(resting, known, after, **FILES)
    # What is still being written is not shown under what was chosen since.
    everything = list(shown.values())
    pickers = (controls.run, choose_run, []), (controls.language, choose_language, [controls.prompt])
    for control, choose, more in pickers:
        given_up = control.input(None, None, None, cancels=[writing], **PICK)
        chosen = given_up.then(in_order(choose), [control, *more], everything, **PICK)
        chosen.then(resting, known, after, **FILES)
    given_up = controls.kept.click(None, None, None, cancels=[writing], **PICK)
    given_up.then(in_order(load), None, everything, **PICK).then(resting, known, after, **FILES)
    for choice, button in controls.choices.items():
        button.click(prefer(choice), [latest], list(shown.values()), **FILES)
    controls.reveal.click(prefer(""), [latest], list(shown.values()), **FILES)
