"""One segment in many languages: what the page shows of it, and which segments can be chosen."""

import hashlib
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.page_data import PageData, opening
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.segments import SEGMENTS
from lpr_lab.dashboard.server.unsaved_texts import trace_of
from lpr_lab.measure.segments.comparison import LanguageComparison, choose_reference
from lpr_lab.runs.people.own_texts import is_own
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.text.sample_texts import TEXTS
from lpr_lab.views.figures.segments import divergence_by_layer, similarity_by_layer
from lpr_lab.views.figures.titles import take_title
from lpr_lab.views.html.segments import render_layers, render_segment

SAMPLE = "sample"
"""Key of our own sample text, which every run has."""
VIEW = ("segment_view", "segment_bits_head", "segment_bits", "segment_alike_head", "segment_alike", "segment_table")
"""The parts of the page that show a comparison."""

_LABEL_CHARACTERS = 56


def show_segment(run: Run, query: Query, *, can_run: bool) -> dict[str, Any]:
    """Return the parts of the page: which segments can be chosen, and the comparison where it was made."""
    parts = hidden_segment() | {"segment": gr.update(visible=can_run)}
    if not can_run:
        return parts
    choices = segment_choices(run)
    keys = [key for _, key in choices]
    known = query.segment if query.segment in keys else keys[0] if keys and not query.segment else None
    parts["segment_pick"] = gr.update(choices=choices, value=known, visible=bool(choices))
    listing = SEGMENTS.get_list(run)
    parts["segment_why"] = "" if listing is None else shell.caption(listing.reason)
    compared = SEGMENTS.get(run, query.segment, query.stage) if query.segment else None
    if compared is not None:
        return parts | dict(zip(VIEW, drawn(run, compared), strict=True))
    if query.segment:
        said = "This address shows a segment in many languages: compare it to see it again."
        parts["segment_view"] = shell.notice("info", said)
    return parts


def hidden_segment() -> dict[str, Any]:
    """Return the parts of the page where nothing can be compared."""
    plots = dict.fromkeys(("segment_bits", "segment_alike"), gr.update(visible=False, value=None))
    texts = dict.fromkeys(VIEW, "")
    return texts | plots | {"segment": gr.update(visible=False), "segment_pick": gr.update(), "segment_why": ""}


def drawn(run: Run, compared: LanguageComparison, query: str = "") -> tuple[Any, ...]:
    """Return what each of `VIEW` shows of a comparison; `query` as in `render_segment`."""
    roles, table = roles_of(run), compared.to_frame()
    bits, alike = divergence_by_layer(table, roles), similarity_by_layer(table, roles)
    has_router = len(compared.layers) > 0
    return (
        render_segment(compared, roles, _links(run, compared), query=query),
        _heading(take_title(bits), _BITS) if has_router else "",
        gr.update(value=bits, visible=has_router),
        _heading(take_title(alike), _ALIKE),
        gr.update(value=alike, visible=True),
        render_layers(compared),
    )


_BITS = (
    "Divergence of the routing from that of the reference language, layer by layer. Filled marks are above 95 % of "
    "random deals of the same tokens, which the dotted lines show; open ones are not."
)
_ALIKE = (
    "Mean cosine over all pairs of a token of a language and one of the reference, of what routers read; dotted: of "
    "two tokens of the reference’s own text."
)


def _heading(title: str, note: str) -> Markup:
    heading = Markup('<section class="lpr-section"><h3 class="lpr-subfinding">{}.</h3>{}</section>')
    return heading.format(title, shell.caption(note))


def roles_of(run: Run) -> dict[str, str]:
    """Return language -> `original` or `expanded`, original ones first."""
    original, expanded = shell.languages_of(run)
    return dict.fromkeys(original, "original") | dict.fromkeys(expanded, "expanded")


def segment_choices(run: Run) -> list[tuple[str, str]]:
    """Return (label, key) of the segments that can be chosen: our own sample text, then those found in the corpus."""
    choices = [("Our own sample text", SAMPLE)] if len(sample_texts(run)) > 1 else []
    listing, codes = SEGMENTS.get_list(run), list(roles_of(run))
    for segment in listing.segments if listing is not None else ():
        first = segment.texts[choose_reference(list(segment.texts), shell.languages_of(run)[0])]
        missing = [language_name(code) for code in codes if code not in segment.texts]
        without = f" · without {', '.join(missing)}" if missing else ""
        choices.append((shortened(first) + without, segment.key))
    return choices


def shortened(text: str) -> str:
    """Return the beginning of a text, in one line."""
    words = " ".join(text.split())
    return words if len(words) <= _LABEL_CHARACTERS else words[:_LABEL_CHARACTERS].rstrip() + "…"


def sample_texts(run: Run) -> dict[str, str]:
    """Return our own sample text in the languages of a run that it is written in."""
    return {code: TEXTS[code] for code in roles_of(run) if code in TEXTS}


def lines_of(run: Run | None, query: Query) -> str:
    """Return what stands in the box for texts of one's own: a line per language, with the texts that are shown."""
    if run is None:
        return ""
    texts = (SEGMENTS.texts(run, query.segment) if is_own(query.segment) else None) or {}
    codes = list(dict.fromkeys([*roles_of(run), *texts]))
    return "\n".join(f"{code}: {' '.join(texts.get(code, '').split())}" for code in codes)


def segment_data(run: Run, query: Query, runs_dir: Path) -> PageData | None:
    """Return the comparison that is shown as tables, as JSON and as a cell of Python; None where none is."""
    compared = SEGMENTS.get(run, query.segment, query.stage) if query.segment else None
    if compared is None:
        return None
    texts = {code: trace.text for code, trace in compared.traces.items()}
    cell = (
        f"import lpr_lab as lab\n{opening(run, runs_dir)}"
        "model, tokenizer = lab.load_trained(run.path), lab.load_tokenizer(run.path)\n"
        f"texts = {texts!r}\n"
        f"found = lab.compare_languages(model, tokenizer, texts, reference={compared.reference!r}, "
        f"stage={compared.stage!r})\nfound.to_frame()\n"
    )
    return PageData(cell, {"segment": compared.to_frame}, {"segment": compared.to_plain})


def _links(run: Run, compared: LanguageComparison) -> dict[str, str]:
    links = {}
    for code, trace in compared.traces.items():
        name = full_trace_name(run, code, trace.text)
        full = trace_of(run, name)
        if full is not None:
            stage = "" if compared.stage == full.stage else compared.stage
            links[code] = Query(run=run.id, text=name, lang=code, stage=stage).link("/routing")
    return links


def full_trace_name(run: Run, code: str, text: str) -> str:
    """Return the name of the full trace of a text: of the run's own sample, or the id of one to be held in memory."""
    if code in run.traces.names() and run.traces.read(code).text == text:
        return code
    digest = hashlib.sha256("\0".join(("segment", code, text)).encode()).hexdigest()
    return f"own-{digest[:32]}"
