"""The address `/tour`: six steps through the pages on the example that came with the code, from what this is to a word.

A document like `/concepts`. Every step is a link to a page at an address, with what to look for there; its numbers are
read from the run. No weights are needed.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from lpr_lab.dashboard import about, shell, theme
from lpr_lab.dashboard.query import Query
from lpr_lab.errors import LprError
from lpr_lab.measure.significance import mean_change
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.text.splits import main_test_set
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import change, percent

PATH = about.TOUR
TITLE = "What is this, and what does it do to a word?"


@dataclass(frozen=True)
class Step:
    """One step: what one asks, where the answer is, and what to look for there."""

    question: str
    link: str
    look: str


def tour_route(runs_dir: Path) -> Route:
    """Return the route of `/tour`."""

    async def answer(request: Request) -> HTMLResponse:
        return HTMLResponse(await run_in_threadpool(render_tour, runs_dir))

    return Route(PATH, answer, methods=["GET"])


def render_tour(runs_dir: Path) -> Markup:
    """Return the page, or why there is nothing to walk through."""
    try:
        run = next((run for run in list_runs(runs_dir) if _is_whole(run)), None)
        body = shell.no_runs(runs_dir) if run is None else render("dashboard/tour.html.j2", steps=steps(run), run=run)
    except LprError as error:
        body = shell.notice("bad", str(error))
    top = shell.head(TITLE, "Two minutes, six steps. Each opens a page; come back here for the next.", query=Query())
    page = {"head": theme.head(), "header": shell.header(""), "top": top, "footer": about.footer(), "title": "Tour"}
    return render("dashboard/document.html.j2", body=body, others=(), renews=False, **page)


def _is_whole(run: Run) -> bool:
    """Whether a run came with the code and has all that the steps show."""
    if run.problem is not None or not run.is_example:
        return False
    original, expanded = shell.languages_of(run)
    traced = run.traces.names()
    return any(code in traced for code in original) and any(code in traced for code in expanded)


def steps(run: Run) -> list[Step]:
    """Return the six steps on a run that has traces of a sentence in an original and in an expanded language."""
    original, expanded = shell.languages_of(run)
    known = next(code for code in original if code in run.traces.names())
    taught = next(code for code in expanded if code in run.traces.names())
    of_known, of_taught = run.traces.read(known), run.traces.read(taught)
    place, gain = clearest_gain(of_taught)
    layer = int(of_taught.layers[len(of_taught.layers) // 2])
    at = Query(run=run.id)
    names = {code: language_name(code) for code in (known, taught)}
    return [
        Step(
            "What was done here?",
            at.link("/"),
            f"A model that knew {_listed(original)} was taught {_listed(expanded)}. Below the list: settings, curves, "
            "and whether the promises were kept.",
        ),
        Step("Did it learn, and did it forget?", at.link("/retention"), _gained(run)),
        Step(
            f"Where did each token of a sentence in {names[taught]} go?",
            at.link("/routing", text=taught),
            f"Blue is the base's own expert, orange a new one. Here {percent(1 - of_taught.original_share())} of the "
            "weight is on new experts.",
        ),
        Step(
            f"And in {names[known]}, which it knew before?",
            at.link("/routing", text=known),
            f"Here {percent(of_known.original_share())} of the weight stays on the base's own expert, so little "
            "changes.",
        ),
        Step(
            f"Who works in layer {layer}, and for which languages?",
            at.link("/experts", layer=layer, expert=1),
            "Each column is a language. The new expert is busy where the languages are new.",
        ),
        Step(
            "What did the new experts do to this word?",
            at.link("/routing", text=taught, view="gain", tok=place),
            f"“{of_taught.tokens[place].strip()}” takes {gain:.1f} bits fewer than in the base: the colour is now the "
            "gain of every token, and the panel has the experts of this one in every layer.",
        ),
    ]


def clearest_gain(trace: RoutingTrace) -> tuple[int, float]:
    """Return (token, bits) of the whole-word token that the expanded model predicts most better than the base."""
    if trace.log_prob is None or trace.base_log_prob is None:
        return 1, 0.0
    bits = np.nan_to_num((trace.log_prob - trace.base_log_prob) / math.log(2), nan=-np.inf)
    readable = np.array([len(token.strip()) > 1 and "⟨" not in token for token in trace.tokens])
    bits = np.where(readable & trace.is_text, bits, -np.inf) if readable.any() else bits
    place = int(bits.argmax())
    return place, float(bits[place])


def _gained(run: Run) -> str:
    table = run.tables.read("change")
    if table is None or table.empty:
        return "This run was not measured."
    rows = table[table["dataset"] == main_test_set(table["dataset"])]
    said = []
    for role in ("expanded", "original"):
        part = rows[rows["role"] == role].to_dict("records")
        if part:
            said.append(f"{change(mean_change(part).value)} on {role} languages")
    return f"Bits per byte, lower is better: {', '.join(said)}. Every number has its interval."


def _listed(codes: list[str]) -> str:
    names = [language_name(code) for code in codes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
