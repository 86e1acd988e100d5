"""The 404 page."""

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from lpr_lab.dashboard import about, shell, theme
from lpr_lab.views.html.templates import render

_API = "/gradio_api"
_SHOWN = 80
"""Characters of an address."""


async def answer(request: Request, error: Exception) -> Response:
    """Answer what is not there: a page for people, a sentence as JSON for programs; the status is 404 for both."""
    detail = error.detail if isinstance(error, HTTPException) else "Not Found"
    path, wanted = request.url.path, request.headers.get("accept", "")
    if path.startswith(_API) or request.method not in ("GET", "HEAD") or "text/html" not in wanted:
        return JSONResponse({"detail": detail}, 404)
    return HTMLResponse(render_page(path), 404)


def render_page(path: str) -> Markup:
    """Return the page; `path` is what was asked for."""
    asked = path if len(path) <= _SHOWN else path[: _SHOWN - 1] + "…"
    return render(
        "dashboard/not_found.html.j2",
        head=theme.head(),
        header=shell.header(""),
        top=shell.head("There is no such page", f"“{asked}” is none of the pages of this dashboard."),
        pages=shell.PAGES,
        footer=about.footer(),
    )
