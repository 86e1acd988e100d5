"""Generates the two continuations of a prompt, step by step, as the page shows them."""

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare.sides import (
    comparable,
    speaker,
)
from lpr_lab.dashboard.pages.compare.state import Latest, done, halted, show_growing
from lpr_lab.dashboard.pages.compare.steering import SIDES, Wish, Written, named, refuse_without_experts, wish_of
from lpr_lab.dashboard.parameters import NEW_TOKENS, PROMPT, SEED, TEMPERATURE
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.shell import PageContext, status
from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.model_ref import BASE, EXPANDED, ModelRef
from lpr_lab.runs.people.continuations import Continuation, Pair
from lpr_lab.runs.run import Run

UPDATES_PER_SECOND = 10


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
        prompt, told = PROMPT.read(asked["prompt"]), read_asked(context, run, asked)
    except UsageError as error:
        yield status(str(error), bad=True), same, same, same
        return
    blind = bool(asked.get("blind"))
    # From the system's own randomness: the seed of the sampling is on the page, this one is nowhere.
    swapped = blind and secrets.randbelow(2) == 1
    settings = told.settings
    pair = Pair(prompt, asked["language"] or "", names=told.names, is_running=True, swapped=swapped, hidden=blind)
    latest = Latest(run.id, pair, settings, was_blind=blind)
    said = status("Loading the model, once…" if not MODELS.is_loaded(run) else "Writing…", busy=True)
    yield said, *show_growing(pair, run), latest
    try:
        for grown, written in write(pair, told, run):
            done_to = {
                f"{side}_steering": one.steering for side, one in zip(SIDES, written, strict=True) if one.steering
            }
            latest, pair = replace(latest, pair=grown, written=written, settings=settings | done_to), grown
            longest = max(pair.left.tokens or 0, pair.right.tokens or 0)
            line = status(f"Writing: {longest} of at most {settings['max_new_tokens']} tokens each…", busy=True)
            if pair.is_running:
                yield line, *show_growing(pair, run), latest
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


@dataclass(frozen=True)
class Told:
    """What the controls ask for, read: who writes, steered how, and the settings of the sampling."""

    names: tuple[str, str]
    speakers: tuple[ModelRef, ModelRef]
    wishes: tuple[Wish | None, ...]
    settings: dict[str, Any]


def read_asked(context: PageContext, run: Run, asked: dict[str, Any]) -> Told:
    """Return what the controls ask for, but for the prompt.

    Raises:
        UsageError: a value that is refused.
    """
    others = comparable(run, context.runs)
    left = speaker(asked.get("left") or BASE, run, others, BASE)
    right = speaker(asked.get("right") or EXPANDED, run, others, EXPANDED)
    settings = {"max_new_tokens": NEW_TOKENS.read(asked["tokens"])}
    settings |= {"temperature": TEMPERATURE.read(asked["temperature"]), "seed": SEED.read(asked["seed"])}
    wishes = tuple(wish_of(asked, side) for side in SIDES)
    for side, wish in zip((left, right), wishes, strict=True):
        refuse_without_experts(side, wish)
    names = named(left.name(run), wishes[0]), named(right.name(run), wishes[1])
    return Told(names, (left, right), wishes, settings)


def write(pair: Pair, asked: Told, run: Run) -> Iterator[tuple[Pair, tuple[Written, Written]]]:
    """Yield the pair as it grows with who wrote it, some times a second, and whole at the end."""
    from lpr_lab.measure.generation import generate_pair, layer_experts

    speakers, wishes, settings = asked.speakers, asked.wishes, asked.settings
    with ExitStack() as held:
        mine = held.enter_context(MODELS.use(run))
        models = [held.enter_context(MODELS.use(side.run)).model for side in speakers]
        stages = dict(zip(("left", "right"), (side.stage or EXPANDED for side in speakers), strict=True))
        given: dict[str, Any] = dict(zip(("left_model", "right_model"), models, strict=True))
        told = [
            None if wish is None else wish.told(layer_experts(model, stage))
            for wish, model, stage in zip(wishes, models, stages.values(), strict=True)
        ]
        given |= {f"{side}_steering": one for side, one in zip(SIDES, told, strict=True)}
        steps = generate_pair(mine.model, mine.tokenizer, pair.prompt, **settings, **stages, **given)
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
            states = zip(speakers, (step.left, step.right), told, strict=True)
            left, right = (Written(side.run, side.stage, state.ids, one) for side, state, one in states)
            yield pair, (left, right)
