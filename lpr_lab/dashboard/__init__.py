"""The dashboard: six pages over run directories. Imports neither torch nor gradio until something is built.

    build(runs_dir)  -> the pages, as a `gradio.Blocks`
    serve(runs_dir)  -> the same, served on this machine

Begin with `app`, which assembles the pages; `shell` holds what they share. A page (`pages/NAME/page.py`) builds its
controls and handles their events; the modules beside it turn a run and a `Query` (what the address asks for) into HTML
and figures. Numbers come from run directories; models are loaded only when asked.
"""

import os
import secrets
import socket
import sys
import threading
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lpr_lab.errors import UsageError

if TYPE_CHECKING:
    import gradio

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def build(runs_dir: str | Path) -> "gradio.Blocks":
    """Build the dashboard on a folder of runs; the folder may be empty, or appear later."""
    # Read when gradio is imported; nothing may leave this machine.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")

    from lpr_lab.dashboard.server.quick_gradio import skip_type_stubs

    skip_type_stubs()
    from lpr_lab.dashboard import app

    return app.assemble(Path(runs_dir))


def new_token() -> str:
    """Return what a visitor must know where others than this machine can connect."""
    return secrets.token_urlsafe(32)


def address_with(address: str, token: str | None) -> str:
    """Return an address that lets a first visitor in; without a token, the address itself."""
    return address if token is None else f"{address}{'&' if '?' in address else '?'}{urlencode({'token': token})}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(
    runs_dir: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = 7860,
    page: str = "",
    open_browser: bool = True,
    block: bool = True,
    token: str | None = None,
    mcp: bool = False,
) -> str:
    """Serve the dashboard and return its address.

    Args:
        runs_dir: the folder of runs.
        host: this machine only (`127.0.0.1`, `localhost`, `::1`), or with a token any address of it (`0.0.0.0`: all).
        port: None takes any free one, never 7860, where people expect their own.
        page: what to open first, such as `routing?run=ID`.
        open_browser: open it in a browser, where this machine has a screen.
        block: wait until interrupted; otherwise serve in the background until the process ends.
        token: from `new_token`: what visitors must bring (`address_with`).
        mcp: offer the named endpoints to language-model clients too (needs the package `mcp`).

    Raises:
        UsageError: a host that others could reach and no token, a port in use, or no package `mcp`.
    """
    if host not in LOOPBACK and not token:
        raise UsageError(
            f"Refusing to serve on {host}: everyone who reaches it could read the runs and use the model, and there is "
            "no sign-in without a token. Serve on 127.0.0.1 and use an SSH tunnel, or give a token."
        )
    if mcp and find_spec("mcp") is None:
        raise UsageError("--mcp needs the package mcp: pip install mcp")
    demo = build(runs_dir)

    from lpr_lab.dashboard import app

    try:
        _, address, _ = demo.launch(
            server_name=host,
            server_port=port or _free_port(),
            prevent_thread_lock=True,
            quiet=True,
            **app.launch_options(Path(runs_dir), host, token=token, mcp=mcp),
        )
    except OSError as error:
        raise UsageError(f"Port {port} is in use; choose another with --port, or stop what serves there.") from error
    address = str(address).rstrip("/")
    threading.Thread(target=_warm_up, args=[Path(runs_dir)], daemon=True).start()
    if open_browser and _has_screen():
        webbrowser.open(address_with(f"{address}/{page.lstrip('/')}", token))
    if block:
        demo.block_thread()
    return address


def _has_screen() -> bool:
    # Without one, Python would start a text browser in the terminal.
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _warm_up(runs_dir: Path) -> None:
    """Import and read what the first page will need, while the browser is still opening."""
    import pandas
    import plotly.graph_objects

    from lpr_lab.runs.find import list_runs
    from lpr_lab.runs.selection import values_of
    from lpr_lab.views import theme

    theme.register()
    for run in list_runs(runs_dir):
        values_of(run)
    del pandas, plotly


__all__ = ["LOOPBACK", "address_with", "build", "new_token", "serve"]
