"""Serve the dashboard on a folder of runs: `python app.py --runs-dir runs --port 7860`."""

import argparse
import os
import sys
import threading
from contextlib import suppress

from lpr_lab.dashboard import LOOPBACK, address_with, new_token, serve
from lpr_lab.errors import LprError

parser = argparse.ArgumentParser(description="Open the lpr_lab dashboard on a folder of runs.")
parser.add_argument("--runs-dir", default=os.environ.get("LPR_LAB_RUNS") or "runs", help="folder of runs")
parser.add_argument(
    "--host", default="127.0.0.1", help="on another address than this machine's own, a token is asked for"
)
parser.add_argument("--port", type=int, default=7860)
parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
parser.add_argument("--mcp", action="store_true", help="offer the endpoints to language-model clients")
given = parser.parse_args()
token = None if given.host in LOOPBACK else new_token()
try:
    address = serve(
        given.runs_dir,
        host=given.host,
        port=given.port,
        open_browser=not given.no_browser,
        block=False,
        token=token,
        mcp=given.mcp,
    )
except LprError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
print(f"Dashboard: {address_with(f'{address}/', token)}  (Ctrl-C stops it)", flush=True)
with suppress(KeyboardInterrupt):
    threading.Event().wait()
