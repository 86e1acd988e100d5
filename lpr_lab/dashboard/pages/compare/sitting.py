"""A sitting on page `/compare`: prompts chosen, written two ahead at most, judged blind, counted at the end."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.compare.generate import UPDATES_PER_SECOND, read_asked, write
from lpr_lab.dashboard.parameters import PROMPT
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.server.sittings import SITTINGS
from lpr_lab.dashboard.shell import PageContext, status
from lpr_lab.errors import LprError, MissingError, UsageError
from lpr_lab.runs.people.continuations import Pair
from lpr_lab.runs.people.own_texts import by_group, own_texts
from lpr_lab.runs.people.sittings import Sitting, begin, delete_sitting, keep_sitting
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import LANGUAGES, language_name
from lpr_lab.text.sample_texts import PROMPTS

SAMPLES, ALL, GROUP = "samples", "all", "group:"
AHEAD = 2
"""Prompts that one event writes at most: the one that is waited for, and the next while the reader reads."""

Option = tuple[str, str]


def sources(run: Run) -> list[Option]:
    """Return (label, value) of the sets of prompts there are: groups of kept texts, all of them, and our samples."""
    texts, found = own_texts(run), []
    for name, ones in by_group(texts).items():
        if name:
            found.append((f"{name} ({len(ones)})", f"{GROUP}{name}"))
    if texts:
        found.append((f"All texts kept with this run ({len(texts)})", ALL))
    return [*found, (f"Samples in the languages of this run ({len(_samples(run))})", SAMPLES)]


def prompts_in(run: Run, source: str) -> list[Option]:
    """Return (label, value) of the prompts of a set; the value of a kept text is its id, of a sample its language."""
    if source == SAMPLES:
        return [(f"{language_name(code)}: {PROMPTS[code]}", code) for code in _samples(run)]
    texts = own_texts(run)
    if source.startswith(GROUP):
        texts = [text for text in texts if text.group == source.removeprefix(GROUP)]
    return [(text.name if source.startswith(GROUP) else text.label, text.id) for text in texts]


def _samples(run: Run) -> list[str]:
    original, expanded = shell.languages_of(run)
    return [code for code in (*expanded, *original) if code in PROMPTS]


def begin_sitting(runs_dir: Path, chosen: Any, asked: Mapping[str, Any], params: Any) -> Sitting:
    """Begin a sitting with the chosen prompts and hold it.

    Args:
        runs_dir: the folder of runs.
        chosen: values of `prompts_in`.
        asked: the controls of a generation, by name.
        params: of the address.

    Raises:
        UsageError: nothing was chosen, or something that is refused.
        MissingError: there is no run.
    """
    context = shell.page_context(runs_dir, params)
    run = context.run
    if run is None:
        raise MissingError("There is no run.")
    kept = {text.id: (text.text, text.language or "") for text in own_texts(run)}
    known = kept | {code: (PROMPTS[code], code) for code in _samples(run)}
    names = [name for name in (chosen if isinstance(chosen, list) else []) if isinstance(name, str)]
    if gone := [name for name in names if name not in known]:
        raise UsageError(f"{len(gone)} of the chosen prompts are not there any more; choose again.")
    if not names:
        raise UsageError("No prompt was chosen; tick one at least.")
    prompts = []
    for name in names:
        text, language = known[name]
        prompts.append((PROMPT.read(text), language if language in LANGUAGES else ""))
    plain = {key: value for key, value in asked.items() if key not in ("prompt", "language", "blind")}
    sitting = begin(read_asked(context, run, plain).names, prompts, plain)
    SITTINGS.put(run, sitting)
    return sitting


def find(context: PageContext, sitting_id: str) -> Sitting | None:
    """Return the sitting of that id, as it stands; None where there is none."""
    if context.run is None or not sitting_id:
        return None
    return SITTINGS.get(context.run, sitting_id)


def write_on(runs_dir: Path, sitting_id: str, params: Any) -> Iterator[tuple[str, Sitting | None]]:
    """Write the prompt that is waited for, and the next one; yields (status line, the sitting where it is another)."""
    context = shell.page_context(runs_dir, params)
    run = context.run
    for _ in range(AHEAD):
        sitting = find(context, sitting_id)
        if run is None or sitting is None or (place := _to_write(sitting)) is None:
            break
        try:
            for line in _written(context, run, sitting, place):
                yield line, None
        except Exception as error:  # whatever it is, the page says so, and the sitting can be taken up again
            said = str(error) if isinstance(error, LprError) else f"Writing failed ({type(error).__name__}: {error})."
            if not isinstance(error, LprError):
                logging.getLogger(__name__).exception("A sitting of run %s failed.", run.id)
            yield status(f"{said} “Go on” tries it again.", bad=True), find(context, sitting_id)
            return
        yield status(""), find(context, sitting_id)
    # Also where nothing was left to write: another event, or another window, may have written what this one waited for.
    yield status(""), find(context, sitting_id)


def _to_write(sitting: Sitting) -> int | None:
    """Return the place of the prompt to write next: the current one, or the one after it; None where both are."""
    current = sitting.current
    if current is None:
        return None
    return next(
        (place for place in range(current, min(current + 2, len(sitting.prompts))) if not _is_done(sitting, place)),
        None,
    )


def _is_done(sitting: Sitting, place: int) -> bool:
    return sitting.prompts[place].is_written


def _written(context: PageContext, run: Run, sitting: Sitting, place: int) -> Iterator[str]:
    one, told = sitting.prompts[place], read_asked(context, run, sitting.asked)
    if told.names != sitting.models:
        raise UsageError(
            f"This sitting is between {' and '.join(sitting.models)}, and one of them is not there any more."
        )
    number = f"{place + 1} of {len(sitting.prompts)}"
    ahead = place != sitting.current
    yield (
        ""
        if ahead
        else status("Loading the model, once…" if not MODELS.is_loaded(run) else f"Writing prompt {number}…", busy=True)
    )
    pair = Pair(one.text, one.language, names=told.names, is_running=True)
    said_at = time.monotonic()
    for grown, _ in write(pair, told, run):
        pair = grown
        if not ahead and time.monotonic() - said_at > 5 / UPDATES_PER_SECOND:
            said_at = time.monotonic()
            longest = max(pair.left.tokens or 0, pair.right.tokens or 0)
            yield status(f"Writing prompt {number}: {longest} tokens…", busy=True)
    SITTINGS.change(run, sitting.id, lambda now: now.with_written(place, pair.left.text, pair.right.text))


def judge(runs_dir: Path, sitting_id: str, place: Any, choice: str, params: Any) -> tuple[str, Sitting | None]:
    """Take down what the reader prefers at a place; returns (status line, the sitting as it is then)."""
    context = shell.page_context(runs_dir, params)
    try:
        if context.run is None or not isinstance(place, int):
            raise MissingError("There is nothing to judge here.")
        return status(""), SITTINGS.change(context.run, sitting_id, lambda now: now.with_choice(place, choice))
    except (LprError, OSError) as error:
        return status(f"Not taken down: {error}", bad=True), find(context, sitting_id)


def end(runs_dir: Path, sitting_id: str, params: Any) -> tuple[str, Sitting | None]:
    """End a sitting before its last prompt; returns as `judge`."""
    context = shell.page_context(runs_dir, params)
    try:
        if context.run is None:
            raise MissingError("There is no run.")
        return status(""), SITTINGS.change(context.run, sitting_id, lambda now: replace(now, ended=True))
    except (LprError, OSError) as error:
        return status(f"Not ended: {error}", bad=True), find(context, sitting_id)


def keep(runs_dir: Path, sitting_id: str, params: Any) -> tuple[str, Sitting | None]:
    """Keep a sitting with its run; returns as `judge`."""
    context = shell.page_context(runs_dir, params)
    sitting = find(context, sitting_id)
    try:
        if context.run is None or sitting is None:
            raise MissingError("This sitting is no longer held.")
        keep_sitting(context.run, sitting)
    except (LprError, OSError) as error:
        return status(f"Not kept: {error}", bad=True), sitting
    return status("Kept with this run, for everybody to see; what you judge from now on is kept as well."), sitting


def forget(runs_dir: Path, sitting_id: str, params: Any) -> tuple[str, None]:
    """Delete a sitting, kept or not."""
    context = shell.page_context(runs_dir, params)
    if context.run is not None:
        try:
            delete_sitting(context.run, sitting_id)
        except MissingError:
            pass  # it was not kept
        except (LprError, OSError) as error:
            return status(f"Not deleted: {error}", bad=True), None
        SITTINGS.drop(context.run, sitting_id)
    return status("Deleted."), None
