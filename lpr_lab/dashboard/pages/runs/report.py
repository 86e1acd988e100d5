"""The address `/report.html?run=…` (or `?runs=…,…`): the report of `lpr-lab report`, made when it is asked for.

Not a page: a file to keep. One is made at a time, in a thread of its own, so that pages stay quick meanwhile. What
people typed is in it only where the address says so (`own_texts=1`, `compare_pairs=1`), which two boxes do.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lpr_lab.dashboard.query import Query
from lpr_lab.errors import LprError, MissingError, UsageError
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.people.continuations import pairs, typed_by_reader
from lpr_lab.runs.people.own_texts import own_texts
from lpr_lab.runs.run import Run
from lpr_lab.views.html.templates import render

PATH = "/report.html"
TYPED = {"own_texts": "Texts kept on Routing", "compare_pairs": "Pairs kept on Compare"}
"""What people typed, by the name in the address that asks for it."""


def report_route(runs_dir: Path) -> Route:
    """Return the route; it reads runs of this folder only, by id."""
    one_at_a_time = asyncio.Lock()

    async def answer(request: Request) -> Response:
        query = Query.parse(dict(request.query_params))
        ids = query.compared or ((query.run,) if query.run else ())
        typed = {name: request.query_params.get(name) == "1" for name in TYPED}
        try:
            async with one_at_a_time:
                text = await run_in_threadpool(_render, runs_dir, ids, **typed)
        except LprError as error:
            status = 404 if isinstance(error, MissingError) else 400 if isinstance(error, UsageError) else 500
            return PlainTextResponse(str(error), status)
        name = f"{ids[0]}-report.html" if len(ids) == 1 else "report.html"
        # As a file: opened in place it would fall under the dashboard's own policy for scripts.
        return Response(text, 200, {"content-disposition": f'attachment; filename="{name}"'}, "text/html")

    return Route(PATH, answer, methods=["GET"])


def report_link(runs: Sequence[Run], text: str) -> Markup:
    """Return what leads to the report of these runs: a link, or where people typed something, a choice."""
    query = Query(run=runs[0].id) if len(runs) == 1 else Query(runs=",".join(run.id for run in runs))
    typed = {"own_texts": 0, "compare_pairs": 0}
    for run in runs:
        try:
            typed["own_texts"] += sum(text.is_traced for text in own_texts(run))
            typed["compare_pairs"] += sum(typed_by_reader(run, record) for record in pairs(run).values())
        except LprError:
            continue  # what cannot be read is not exported either; the report says so
    if not any(typed.values()):
        link = Markup('<a class="lpr-button" href="{}" download>{}</a>')
        return link.format(query.link(PATH), text)
    key, value = ("run", query.run) if len(runs) == 1 else ("runs", query.runs)
    boxes = [(name, TYPED[name], number) for name, number in typed.items() if number]
    template = "dashboard/pages/runs/report_link.html.j2"
    return render(template, text=text, address=PATH, key=key, value=value, boxes=boxes)


def _render(runs_dir: Path, ids: tuple[str, ...], **typed: bool) -> str:
    from lpr_lab.views.report.page import render_report

    runs = [Run.open(runs_dir, run_id) for run_id in dict.fromkeys(ids)]
    told: dict[str, Any] = {"around": list_runs(runs_dir), **typed}
    return render_report(runs, **told)
