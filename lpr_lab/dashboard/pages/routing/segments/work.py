"""Finds segments in the corpus of a run, reads those that are typed, and compares one in all its languages."""

import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.routing.segments.show import (
    SAMPLE,
    VIEW,
    drawn,
    full_trace_name,
    roles_of,
    sample_texts,
    segment_choices,
    shortened,
)
from lpr_lab.dashboard.parameters import TRACED, Text
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.server.segments import SEGMENTS, Listing
from lpr_lab.dashboard.server.unsaved_texts import UNSAVED
from lpr_lab.dashboard.shell import status
from lpr_lab.errors import LprError, UsageError
from lpr_lab.measure.segments.comparison import LanguageComparison, choose_reference
from lpr_lab.runs.people.own_texts import is_own
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import get_language, language_name
from lpr_lab.wording import counted

MOST_LANGUAGES = 24
"""Texts of one comparison."""

Step = tuple[Any, ...]
"""A status line, then what each of `VIEW` shows."""

_LINE = re.compile(r"\s*([A-Za-z]{2,3}(?:[-_][A-Za-z]{2,8})*)\s*[:：]\s*(.*)")


def find_segments(runs_dir: Path, params: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Look for segments in the run's corpus; yields (status line, the list to choose from, where they are from)."""
    run, keep = shell.page_context(runs_dir, params).run, gr.skip()
    try:
        if run is None:
            raise LprError("There is no run whose corpus could be read.")
        yield status("Reading the held-out text; what is not in the cache is fetched first…", busy=True), keep, keep
        listing = _listed(run)
    except Exception as error:  # whatever it is, the page says so
        yield _failed(error), keep, keep
        return
    count = len(listing.segments)
    said = f"{counted(count, 'segment')} to choose from." if count else "None was found."
    choices = segment_choices(run)
    yield status(said), gr.update(choices=choices, visible=bool(choices)), shell.caption(listing.reason)


def _listed(run: Run) -> Listing:
    """Return the segments of a run's corpus, reading it where nobody has yet."""
    held = SEGMENTS.get_list(run)
    if held is not None:
        return held
    codes = list(roles_of(run))
    if "corpus" not in run.config or len(codes) < 2:
        raise LprError("This run does not say which text and languages it was made from; paste texts below.")
    from lpr_lab.experiments.corpus import corpus_of
    from lpr_lab.measure.segments.aligned import MOST_CHARACTERS, aligned_segments

    corpus = corpus_of(run.config, codes)
    found = tuple(aligned_segments(corpus, codes))
    if found:
        reason = (
            f"From the {found[0].split} text of the corpus {corpus.name}: documents with the same id in two languages "
            "or more are taken for translations, those in most languages and the longest first. Read them to be sure."
        )
    else:
        names = ", ".join(map(language_name, codes))
        reason = (
            f"The corpus {corpus.name} has no aligned text: no two of {names} have a held-out document with the same "
            f"id and at most {MOST_CHARACTERS} characters. Paste texts below."
        )
    listing = Listing(found, reason)
    SEGMENTS.put_list(run, listing)
    return listing


def compare_chosen(runs_dir: Path, key: str | None, params: dict[str, Any]) -> Iterator[Step]:
    """Compare the languages of the segment with this key; yields as it gets on."""

    def texts(run: Run) -> tuple[str, dict[str, str]]:
        wanted = key or Query.parse(params).segment
        if not wanted:
            raise UsageError("No segment is chosen; choose one, or paste texts below.")
        return wanted, _texts_of(run, wanted)

    yield from _compare(runs_dir, params, texts)


def compare_typed(runs_dir: Path, typed: str, params: dict[str, Any]) -> Iterator[Step]:
    """Compare what was typed, a line per language; yields as it gets on."""

    def texts(run: Run) -> tuple[str, dict[str, str]]:
        found = read_lines(typed)
        digest = hashlib.sha256("\0".join(f"{code}\0{text}" for code, text in found.items()).encode())
        return f"own-{digest.hexdigest()[:32]}", found

    yield from _compare(runs_dir, params, texts)


def read_lines(typed: str) -> dict[str, str]:
    r"""Return language -> text of lines such as `el: Καλημέρα.`; languages without a text are left out.

    Raises:
        UsageError: a line without a code, an unknown or repeated language, a text that is too long, or fewer than two.

    >>> read_lines("en: Hello.\nes:\nel: Γεια.")
    {'en': 'Hello.', 'el': 'Γεια.'}
    """
    found: dict[str, str] = {}
    for number, line in enumerate(typed.splitlines(), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UsageError(
                f"Line {number}, “{shortened(line)}”, does not begin with a language and a colon, such as el: …; each "
                "text is one line."
            )
        language = get_language(match[1])
        if language.code in found:
            raise UsageError(f"Line {number} is a second text in {language.name}; give each language one line.")
        allowed = Text(f"The text in {language.name}", TRACED.most, may_be_empty=True)
        found[language.code] = allowed.read(match[2].strip())
    found = {code: text for code, text in found.items() if text}
    if not 2 <= len(found) <= MOST_LANGUAGES:
        raise UsageError(
            f"{len(found)} of the lines hold a text; expected the same text in 2 to {MOST_LANGUAGES} languages, each "
            "after its code and a colon."
        )
    return found


def _texts_of(run: Run, key: str) -> dict[str, str]:
    if key == SAMPLE:
        return sample_texts(run)
    if (held := SEGMENTS.texts(run, key)) is not None:
        return held
    if is_own(key):
        raise LprError("These texts are no longer held; paste them again.")
    found = next((one for one in _listed(run).segments if one.key == key), None)
    if found is None:
        raise LprError("This run's corpus has no segment of that name; find segments, and choose one.")
    return dict(found.texts)


def _compare(
    runs_dir: Path, params: dict[str, Any], texts_for: Callable[[Run], tuple[str, dict[str, str]]]
) -> Iterator[Step]:
    """Compare the texts that `texts_for` finds for the run, under the key that it gives them."""
    context = shell.page_context(runs_dir, params)
    try:
        run, stage = context.run, context.query.stage
        if run is None:
            raise LprError("There is no run to compare with.")
        loading = "Loading the model, once…" if not MODELS.is_loaded(run) else "Reading the texts…"
        yield status(loading, busy=True), *_unchanged()
        started = time.monotonic()
        key, texts = texts_for(run)
        compared = SEGMENTS.get(run, key, stage)
        if compared is None:
            for done, result in _steps(run, texts, stage):
                compared = result
                yield status(f"{done} of {len(texts)} languages…", busy=True), *_unchanged()
            assert compared is not None
            SEGMENTS.put(run, key, stage, compared)
    except Exception as error:  # whatever it is, the page says so and shows again what was there before
        yield _failed(error), *_unchanged()
        return
    query = context.query.urlencode(segment=key)
    yield status(f"Done in {time.monotonic() - started:.1f} s."), *drawn(run, compared, query)


def _steps(run: Run, texts: Mapping[str, str], stage: str) -> Iterator[tuple[int, LanguageComparison | None]]:
    """Compare language by language; the full trace of each, at all stages, is held for whoever follows its link."""
    from lpr_lab.measure.routing import trace
    from lpr_lab.measure.segments.compute import compare_steps
    from lpr_lab.model.stages import stage_names

    reference = choose_reference(list(texts), shell.languages_of(run)[0])
    with MODELS.use(run) as loaded:
        steps = compare_steps(loaded.model, loaded.tokenizer, texts, reference=reference, stage=stage or None)
    for code, text in texts.items():
        with MODELS.use(run) as loaded:  # for one language only: what was stopped must not keep the model
            step = next(steps)
            name = full_trace_name(run, code, text)
            if is_own(name) and UNSAVED.get(run, name) is None:
                every = stage_names(loaded.model)
                UNSAVED.put(run, name, trace(loaded.model, loaded.tokenizer, text, code, stages=every))
        yield step.done, step.result


def _unchanged() -> list[Any]:
    """Return updates that leave the view as it is; new ones each time, since gradio empties them."""
    return [gr.skip() for _ in VIEW]


def _failed(error: Exception) -> str:
    if isinstance(error, LprError):
        return status(str(error), bad=True)
    logging.getLogger(__name__).exception("Comparing a segment failed.")
    return status(f"This failed ({type(error).__name__}: {error}).", bad=True)
