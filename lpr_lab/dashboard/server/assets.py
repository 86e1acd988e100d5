"""Serves gradio's scripts and style sheets: compressed once per process, and kept by browsers.

Gradio itself compresses every file anew for every visitor, in the thread that also answers everybody else, and says
nothing about how long a file stays good. The 56 files of a first visit take 60 ms of processor time here and 274 ms
there. Their names contain a hash of the contents, so what a browser has it need never ask for again.
"""

import gzip
import os
from functools import lru_cache
from pathlib import Path

import gradio as gr
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
KEPT = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
"""What gets smaller by compression; fonts are compressed already."""


def assets_route() -> Mount:
    """Return the route of `/assets`, which goes before gradio's own."""
    return Mount("/assets", _Assets(directory=FOLDER))


class _Assets(StaticFiles):
    """Files of a folder, whose names change with their contents."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        media_type = _TYPES.get(Path(full_path).suffix)
        if media_type and "gzip" in Headers(scope=scope).get("accept-encoding", ""):
            body = _compressed(str(full_path), stat_result.st_mtime_ns)
            response = Response(body, status_code, {"content-encoding": "gzip"}, media_type)
        else:
            response = FileResponse(full_path, status_code, media_type=media_type, stat_result=stat_result)
        response.headers["cache-control"] = KEPT
        response.headers["vary"] = "Accept-Encoding"
        return response


@lru_cache(maxsize=256)  # a visitor of all pages fetches about a hundred
def _compressed(path: str, modified_ns: int) -> bytes:
    """Return a file compressed; `modified_ns` makes it another one when the file has changed."""
    return gzip.compress(Path(path).read_bytes(), compresslevel=6, mtime=0)
