"""The address `/report.html?run=…` (or `?runs=…,…`): the report of `lpr-lab export`, made when it is asked for.

Not a page: a file to keep. One is made at a time, in a thread of its own, so that pages stay quick meanwhile.
"""

import asyncio
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lpr_lab.dashboard.view import View
from lpr_lab.errors import LprError, MissingError, UsageError
from lpr_lab.experiments.runs import Run, list_runs

PATH = "/report.html"


def report_route(runs_dir: Path) -> Route:
    """Return the route; it reads runs of this folder only, by id."""
    one_at_a_time = asyncio.Lock()

    async def answer(request: Request) -> Response:
        view = View.from_query(dict(request.query_params))
        ids = view.compared or ((view.run,) if view.run else ())
        try:
            async with one_at_a_time:
                text = await run_in_threadpool(_render, runs_dir, ids)
        except LprError as error:
            status = 404 if isinstance(error, MissingError) else 400 if isinstance(error, UsageError) else 500
            return PlainTextResponse(str(error), status)
        name = f"{ids[0]}-report.html" if len(ids) == 1 else "report.html"
        # As a file: opened in place it would fall under the dashboard's own policy for scripts.
        return Response(text, 200, {"content-disposition": f'attachment; filename="{name}"'}, "text/html")

    return Route(PATH, answer, methods=["GET"])


def _render(runs_dir: Path, ids: tuple[str, ...]) -> str:
    from lpr_lab.views.report import render_report

    runs = [Run.open(runs_dir, run_id) for run_id in dict.fromkeys(ids)]
    return render_report(runs, around=list_runs(runs_dir))
