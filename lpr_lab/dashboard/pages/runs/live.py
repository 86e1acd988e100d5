"""Live progress of a running run, read once for all visitors."""

import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import LprError
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch.live import Follower, Snapshot
from lpr_lab.views.html import live

if TYPE_CHECKING:
    import pandas as pd

AT_WORK = ("running", "stalled")
FOLLOWED = 16
"""Runs whose numbers are kept in memory."""
FRESH_SECONDS = 1.0
"""How long what one visitor's look found is good enough for the others."""


class _Followed:
    """One run, and what was last seen of it."""

    def __init__(self, run: Run) -> None:
        self._follower = Follower(run)
        self._lock = threading.Lock()
        self._seen: Snapshot | None = None
        self._at = 0.0

    def snapshot(self) -> Snapshot:
        with self._lock:
            if self._seen is None or time.monotonic() - self._at >= FRESH_SECONDS:
                self._seen = self._follower.snapshot()
                self._at = time.monotonic()
            return self._seen


_followed: OrderedDict[Path, _Followed] = OrderedDict()
_lock = threading.Lock()


def snapshot_of(run: Run) -> Snapshot:
    """Return a snapshot of a run; only what was appended to its numbers since the last one is read.

    Raises:
        MissingError, DamagedError: it is gone, or cannot be read.
    """
    with _lock:
        if run.path not in _followed:
            _followed[run.path] = _Followed(run)
        _followed.move_to_end(run.path)
        while len(_followed) > FOLLOWED:
            _followed.popitem(last=False)
        followed = _followed[run.path]
    try:
        return followed.snapshot()
    except LprError:
        with _lock:
            _followed.pop(run.path, None)
        raise


def metrics_of(run: Run | None) -> "pd.DataFrame | None":
    """Return a run's finite numbers as a table for `training_curves`, or None when there are none."""
    if run is None:
        return None
    try:
        seen = snapshot_of(run)
    except LprError:
        return None
    import pandas as pd

    rows = [
        (step, tokens, stage, name, value)
        for stage, curves in seen.curves.items()
        for name, points in curves.items()
        for step, tokens, value in points
    ]
    return pd.DataFrame(rows, columns=["step", "tokens", "stage", "name", "value"]) if rows else None


def render_live(run: Run | None) -> Markup:
    """Return the card of a run that a process works on, or that has gone silent; empty for all others."""
    if run is None or run.is_example:
        return Markup("")
    try:
        if run.status.state not in AT_WORK:
            return Markup("")
        seen = snapshot_of(run)
    except LprError as error:
        return shell.notice("bad", str(error))
    text = Markup("This card follows the run. In a terminal: {}").format(shell.command(f"lpr-lab watch {run.id}"))
    card = Markup('<section class="lpr-card lpr-at-work" aria-label="At work">{}{}</section>')
    return card.format(live.to_html(seen), shell.caption(text))


def at_work(context: PageContext) -> bool:
    """Whether anything on the page may still change by itself."""
    return any(run.problem is None and not run.is_example and run.status.state in AT_WORK for run in context.runs)


def page_state_of(context: PageContext) -> str:
    """Return what the page but for numbers and ages depends on; when it changes, the page is drawn anew."""
    states = [f"{run.id} {'' if run.problem else run.status.state}" for run in context.runs]
    if context.run is not None:
        status = context.run.status
        states.insert(0, f"{context.run.id} {status.stage} {len(status.done_phases)}")
    return "\n".join(states)
