"""The address `/claims/bases`: the verdicts on all bases side by side, and over small worlds of several seeds."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.claims import BASES, PATH, links_of, range_words, with_interval
from lpr_lab.dashboard.claims_document import document, made_or_waiting, stamps_of
from lpr_lab.dashboard.making import PATIENCE, Documents, DocumentStep
from lpr_lab.dashboard.query import Query
from lpr_lab.errors import LprError
from lpr_lab.experiments.scorecard.bases import compare_steps
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.verdict import FAILS, HOLDS
from lpr_lab.views.html.forest import SIGNS
from lpr_lab.views.html.templates import render

TITLE = "Do the claims hold on every base?"


def bases_route(runs_dir: Path) -> Route:
    """Return the route of `/claims/bases`."""
    documents = Documents(bases_steps)

    def page() -> Markup:
        making = documents.of(runs_dir, stamps_of(runs_dir))
        top = shell.head(TITLE, "The scorecards of all bases are being computed.")
        return made_or_waiting(making, PATIENCE, TITLE, top)

    async def answer(request: Request) -> HTMLResponse:
        return HTMLResponse(await run_in_threadpool(page))

    return Route(BASES, answer, methods=["GET"])


def bases_steps(runs_dir: Path, stamps: tuple[Any, ...] = ()) -> Iterator[DocumentStep]:
    """Make the page step by step; the last step has it.

    Args:
        runs_dir: the folder of runs.
        stamps: of the runs; a page is made anew when one of them is another.
    """
    body, top = Markup(), shell.head(TITLE, "Nothing was measured yet.")
    runs: Sequence[Run] = ()
    try:
        runs = list_runs(runs_dir)
        for step in compare_steps(runs, runs_dir):
            yield DocumentStep(step.done, step.total)
            if step.result is not None:
                top = shell.head(TITLE, agreement(step.result["claims"]), query=Query())
                body = render("dashboard/claims_bases.html.j2", **_values(step.result))
    except LprError as error:
        body = shell.card("No scorecard", str(error))
    yield DocumentStep(1, 1, document(TITLE, top, body, links_of(runs)))


def agreement(claims: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence on how many claims the bases that decide them agree.

    >>> agreement([{"bases": {"a": "holds", "b": "not decidable here"}}, {"bases": {"a": "holds", "b": "fails"}}])
    'Of 2 claims 1 holds and 0 fail wherever they can be decided, 1 holds on one base and fails on another.'
    """
    found = [{*row["bases"].values()} & {HOLDS, FAILS} for row in claims]
    holds, fails, both = (sum(one == wanted for one in found) for wanted in ({HOLDS}, {FAILS}, {HOLDS, FAILS}))
    hold, fail = ("holds" if holds == 1 else "hold"), ("fails" if fails == 1 else "fail")
    parted = "holds on one base and fails" if both == 1 else "hold on one base and fail"
    return (
        f"Of {len(claims)} claims {holds} {hold} and {fails} {fail} wherever they can be decided, {both} {parted} on "
        "another."
    )


def _values(found: Mapping[str, Any]) -> dict[str, Any]:
    links = {base: Query(base=base).link(PATH) for base in found["bases"]}
    others = [base for base in found["bases"] if base not in found["worlds"]]
    claims = [{**row, "parts": [_part(part) for part in row["parts"]]} for row in found["claims"]]
    return {
        # The empty name is that of all worlds together, beside those that it is of.
        "columns": [*found["worlds"], *([""] if found["worlds"] else []), *others],
        "worlds": found["worlds"],
        "claims": claims,
        "links": links,
        "sources": found["sources"],
        "signs": SIGNS,
    }


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    of_bases = {base: {**of, "number": with_interval(of)} for base, of in part["bases"].items()}
    over = part["over_worlds"]
    return {
        "text": part["text"],
        "range": range_words(part["above"], part["below"]),
        "bases": of_bases,
        "over_worlds": over and {**over, "number": with_interval(over)},
    }
