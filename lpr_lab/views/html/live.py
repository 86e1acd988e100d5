"""A running stage as HTML and as a line of text, and a display that follows it in a notebook.

    with live.watching(run):       # train here, watch here
        pipeline.train(context)
    live.watch(run)                # trained by another process, or another kernel

The dashboard draws the same HTML, the terminal the same facts (see `views.terminal`).
"""

import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from lpr_lab.errors import LprError, UsageError
from lpr_lab.progress import hidden, in_notebook
from lpr_lab.runs.files import PRINTED_TO
from lpr_lab.runs.run import Run
from lpr_lab.runs.status import STALLED_AFTER_SECONDS
from lpr_lab.runs.watch.alerts import line
from lpr_lab.runs.watch.live import Follower, Snapshot, snapshots
from lpr_lab.views.html.templates import render, with_style
from lpr_lab.views.numbers import NOT_MEASURED, count, duration

EVERY_SECONDS = 2.0
"""How often a notebook's display is brought up to date: every update travels to the browser."""
DONE_HERE = "trained"
"""Stands for the state of a run whose training is over, though the run goes on."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_SVG_POINTS = 120


def facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Return what there is to say of the stage in numbers, as (name, text) in the order of interest."""

    def now(value: float | None) -> float | None:
        return None if snapshot.is_over else value

    found: list[tuple[str, str | None]] = []
    if snapshot.trained is not None and (snapshot.is_training or snapshot.is_over):
        of = "" if snapshot.num_steps is None else f" of {count(snapshot.num_steps)}"
        found += [
            ("Step", None if snapshot.step is None else f"{count(snapshot.step)}{of}"),
            ("Tokens", None if snapshot.tokens is None else count(snapshot.tokens)),
            ("Tokens per second", _known(snapshot.tokens_per_second, count)),
            ("Trained for", _known(snapshot.seconds, duration)),
            ("Time left", _known(now(snapshot.seconds_left), duration)),
            ("Learning rate", _known(snapshot.numbers.get("lr"), lambda value: f"{value:.2e}")),
            ("Last step", _known(now(snapshot.step_seconds), _ago)),
        ]
    found.append(("Sign of life", _known(now(snapshot.heartbeat_seconds), _ago)))
    return [(name, text) for name, text in found if text is not None]


def status_line(snapshot: Snapshot) -> str:
    """Return in a sentence what the run is doing, or how it ended."""
    where = (snapshot.stage or "its start").replace("_", " ")
    match snapshot.state:
        case "running":
            return f"Running: {where}"
        case "stalled":
            silence = snapshot.heartbeat_seconds
            since = f"{duration(silence)}" if silence is not None else f"{STALLED_AFTER_SECONDS:.0f} s"
            return f"Stalled? No sign of life for {since}, at {where}"
        case "queued":
            return "Not started yet"
        case "finished":
            return "Finished"
        case _ if snapshot.state == DONE_HERE:
            return f"Trained: {(snapshot.trained or 'nothing').replace('_', ' ')}"
    return f"{snapshot.state.capitalize()} at {where}"


def warning(snapshot: Snapshot) -> str:
    """Return in a sentence that the training diverges; empty where it does not."""
    if not snapshot.is_diverging:
        return ""
    first, now = next(iter(snapshot.values("loss")), None), snapshot.numbers.get("loss")
    return (
        f"This training diverges: its loss was {number(first)} at first and is {number(now)}. Lower the learning rate, "
        "or warm up longer."
    )


def warnings(snapshot: Snapshot) -> list[str]:
    """Return in sentences that the training diverges and every alert that the run raised."""
    raised = [line(alert) for alert in snapshot.alerts if alert.rule != "divergence" or not snapshot.is_diverging]
    return [*filter(None, [warning(snapshot)]), *raised]


def number(value: float | None) -> str:
    """Return a loss with four digits, or an en-dash where it was not finite."""
    return NOT_MEASURED if value is None else f"{value:.4g}"


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Return a curve as one line of block characters, the newest value last.

    >>> sparkline([3.0, 2.0, 1.5, 1.25, 1.0], width=5)
    '█▅▃▂▁'
    """
    thin = _thinned(values, width)
    if not thin:
        return ""
    low, scale = _scale(thin)
    return "".join(_BLOCKS[round((value - low) * scale * (len(_BLOCKS) - 1))] for value in thin)


def to_html(snapshot: Snapshot) -> Markup:
    """Return the stage as HTML in the classes of `live.css`."""
    # What was printed is of interest while it goes on; afterwards it is in the run's log.
    printed = [] if snapshot.state == DONE_HERE else snapshot.log
    return render(
        "views/html/live.html.j2",
        snapshot=snapshot,
        status=status_line(snapshot),
        done="" if snapshot.is_over else _done(snapshot),
        warnings=warnings(snapshot),
        share=snapshot.share if snapshot.is_training else None,
        facts=facts(snapshot),
        losses=[(name, number(value), _curve(snapshot.values(name), name)) for name, value in snapshot.losses.items()],
        lines=[*printed, *(snapshot.error or "").splitlines()[-5:]],
    )


def to_text(snapshot: Snapshot) -> str:
    """Return the stage as one line of text."""
    pairs = [f"{name.lower()} {text}" for name, text in facts(snapshot)]
    pairs += [f"{name} {number(value)}" for name, value in snapshot.losses.items()] if snapshot.is_training else []
    return " · ".join(filter(None, [status_line(snapshot), *warnings(snapshot), *pairs]))


# ------------------------------------------------------------------------------------------------- in notebooks


def watch(run: Run, every: float = EVERY_SECONDS) -> None:
    """Show below a notebook cell how a run stands, brought up to date until it ends; interrupting leaves the run alone.

    Args:
        run: a run that another process, or another kernel, works on.
        every: seconds between two looks.
    """
    display = _Display()
    with suppress(KeyboardInterrupt):
        for snapshot in snapshots(run, every):
            display.show(snapshot)


@contextmanager
def watching(run: Run, every: float = EVERY_SECONDS) -> Iterator[None]:
    """Show below a notebook cell how the run stands while the block works on it; outside notebooks do nothing.

    Whatever goes wrong with the display, the work in the block goes on.
    """
    if not in_notebook():
        yield
        return
    ending = threading.Event()
    display = _Display()

    def keep_up() -> None:
        with suppress(Exception):
            follower = Follower(run)
            while not ending.wait(every):
                display.show(follower.snapshot())
            last = follower.snapshot()
            # What stays in the notebook speaks of the training, not of the moment in which the cell ended.
            display.show(last if last.is_over else replace(last, state=DONE_HERE))

    # What the thread shows belongs to the cell that is running now, not to those that may run after it.
    thread = threading.Thread(target=keep_up, name="lpr-lab-live", daemon=True)
    thread.start()
    # `lpr-lab run` passes on to its terminal what the cells print, so there the bars are wanted too.
    elsewhere = nullcontext() if os.environ.get(PRINTED_TO) else hidden()
    try:
        with elsewhere:
            yield
    finally:
        ending.set()
        thread.join(timeout=10)


class _Display:
    """One output of a cell, replaced in place; made in the thread of the cell, so that it lands below it."""

    def __init__(self) -> None:
        try:
            from IPython.display import display
        except ImportError as error:
            raise LprError("A live display needs a notebook; in a terminal use `lpr-lab watch`.") from error
        self._handle = display({"text/plain": "Waiting for the first step."}, raw=True, display_id=True)
        if self._handle is None:
            raise UsageError("A live display needs a notebook; in a terminal use `lpr-lab watch`.")

    def show(self, snapshot: Snapshot) -> None:
        """Replace what is shown."""
        assert self._handle is not None
        body = with_style(to_html(snapshot), "live.css")
        self._handle.update({"text/html": body, "text/plain": to_text(snapshot)}, raw=True)


# -------------------------------------------------------------------------------------------------------- pieces


def _done(snapshot: Snapshot) -> str:
    return ", ".join(name.replace("_", " ") for name in snapshot.done)


def _known(value: float | None, write: Any) -> str | None:
    return None if value is None or not math.isfinite(value) else write(value)


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"


def _thinned(values: Sequence[float], most: int) -> list[float]:
    """Return at most so many values: means of equal parts, so that no dip or peak is left out by chance."""
    if len(values) <= most:
        return list(values)
    edges = [round(index * len(values) / most) for index in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Return the lowest value and what brings the others to [0, 1]; rounding noise around one value stays flat."""
    low, high = min(values), max(values)
    return low, 1 / (high - low) if high - low > 1e-6 * max(abs(low), abs(high)) else 0.0


def _curve(values: Sequence[float], name: str) -> tuple[str, str] | None:
    """Return the points of a curve, 100 wide and 32 high, and what it says in words."""
    thin = _thinned(values, _SVG_POINTS)
    if len(thin) < 2:
        return None
    low, scale = _scale(thin)
    step = 100 / (len(thin) - 1)
    points = " ".join(f"{step * place:.1f},{31 - 30 * scale * (value - low):.1f}" for place, value in enumerate(thin))
    return points, f"{name}, from {number(values[0])} to {number(values[-1])}"
