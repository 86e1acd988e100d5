"""The 404 page."""

from html import escape

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from lpr_lab.dashboard import about, shell, theme

_API = "/gradio_api"
_SHOWN = 80
"""Characters of an address."""


async def answer(request: Request, error: Exception) -> Response:
    """Answer what is not there: a page for people, a sentence as JSON for programs; the status is 404 for both."""
    detail = error.detail if isinstance(error, HTTPException) else "Not Found"
    path, wanted = request.url.path, request.headers.get("accept", "")
    if path.startswith(_API) or request.method not in ("GET", "HEAD") or "text/html" not in wanted:
        return JSONResponse({"detail": detail}, 404)
    return HTMLResponse(render(path), 404)


def render(path: str) -> str:
    """Return the page; `path` is what was asked for."""
    asked = path if len(path) <= _SHOWN else path[: _SHOWN - 1] + "…"
    links = "".join(f'<li><a href="{where}">{name}</a></li>' for name, where in shell.PAGES.items())
    top = shell.head("There is no such page", f"“{escape(asked)}” is none of the pages of this dashboard.")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>No such page · lpr_lab</title>'
        f'{theme.head()}</head><body class="lpr-static"><div class="gradio-container"><div class="main">'
        f'{shell.header("")}<main>{top}<p class="lpr-caption">These are:</p><ul class="lpr-apart">{links}</ul></main>'
        f"{about.footer()}</div></div></body></html>"
    )
