"""The addresses `/data/PAGE/FILE?…`: what a page shows at an address, as files and as a cell of Python.

    /data/retention/index.json?run=…    the cell, and the names of the files that there are
    /data/retention/change.csv?run=…    a table of the page
    /data/routing/trace.json?run=…      what is no table
    /data/retention/view.py?run=…       the cell as a file

The query is that of the page itself, so whoever has the address of a view has its numbers. Each page says in its
`as_data.py` what it shows. A cell runs in any notebook on this machine and ends with the first table.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lpr_lab.dashboard.shell import PAGES, page_context
from lpr_lab.errors import LprError, MissingError
from lpr_lab.runs.run import Run
from lpr_lab.views import Table

PATH = "/data"
INDEX, CELL = "index.json", "view.py"


@dataclass(frozen=True)
class PageData:
    """What a page shows at an address.

    Attributes:
        cell: Python whose last line is a table, the first of `tables` where there are any.
        tables: by the name of their file, the one that the page is about first. Called for the one that is asked for;
            `ready` gives what was needed anyway.
        documents: what JSON holds and no table does, by the name of its file; made when asked for.
    """

    cell: str
    tables: Mapping[str, Callable[[], Table]] = field(default_factory=dict)
    documents: Mapping[str, Callable[[], Any]] = field(default_factory=dict)


def data_of(page: str, runs_dir: Path, params: Mapping[str, Any]) -> PageData:
    """Return what a page shows at the address with these parameters.

    Raises:
        MissingError: no such page, or it shows nothing that could be taken along.
    """
    if page not in [name.lower() for name in PAGES]:
        raise MissingError(f"There is no page {page!r}; expected one of {', '.join(PAGES).lower()}.")
    module = import_module(f"lpr_lab.dashboard.pages.{page}.as_data")
    context = page_context(runs_dir, params)
    if context.run is None:
        raise MissingError(f"There is no run in {runs_dir}. Make one: lpr-lab demo")
    return module.as_data(context, context.run, runs_dir)


def data_route(runs_dir: Path) -> Route:
    """Return the route; it reads runs of this folder only, by id."""

    async def answer(request: Request) -> Response:
        page, file = request.path_params["page"], request.path_params["file"]
        try:
            return await run_in_threadpool(_answer, runs_dir, page, file, dict(request.query_params))
        except MissingError as error:
            return PlainTextResponse(str(error), 404)
        except LprError as error:
            return PlainTextResponse(str(error), 400)

    return Route(f"{PATH}/{{page}}/{{file}}", answer, methods=["GET"])


def opening(run: Run, runs_dir: Path) -> str:
    """Return the lines with which every cell begins: they open the run as `run`."""
    return f"from lpr_lab.runs.run import Run\n\nruns = {str(runs_dir.resolve())!r}\nrun = Run.open(runs, {run.id!r})\n"


def ready(table: Table) -> Callable[[], Table]:
    """Return a table that is there already as `PageData.tables` has it."""
    return lambda: table


def _answer(runs_dir: Path, page: str, file: str, params: dict[str, str]) -> Response:
    found = data_of(page, runs_dir, params)
    if file == INDEX:
        names = [*(f"{name}.csv" for name in found.tables), *(f"{name}.json" for name in found.documents)]
        return JSONResponse({"cell": found.cell, "files": names})
    if file == CELL:
        return _file(found.cell, f"lpr_lab_{page}.py", "text/x-python")
    name, _, ending = file.rpartition(".")
    if ending == "csv" and name in found.tables:
        # Every digit of a float that is needed to read the same one again.
        return _file(found.tables[name]().to_csv(index=False), file, "text/csv")
    if ending == "json" and name in found.documents:
        text = json.dumps(found.documents[name](), ensure_ascii=False, allow_nan=False)
        return _file(text, file, "application/json")
    raise MissingError(f"The page {page!r} has no file {file!r} at this address; /data/{page}/{INDEX} names them.")


def _file(text: str, name: str, kind: str) -> Response:
    return Response(text, 200, {"content-disposition": f'attachment; filename="{name}"'}, f"{kind}; charset=utf-8")
