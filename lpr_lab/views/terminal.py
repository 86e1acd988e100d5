"""A running stage in a terminal, redrawn in place with rich; as plain lines or JSON where there is no terminal."""

import sys
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lpr_lab.runs.run import Run
from lpr_lab.runs.watch.live import Snapshot, snapshots
from lpr_lab.views.html.live import facts, number, sparkline, status_line, to_text, warnings

EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 130}
_STYLES = {"running": "bold", "finished": "bold green", "failed": "bold red", "interrupted": "bold yellow"}
_PLAIN_SECONDS = 5.0


def watch(run: Run, *, every: float = 1.0, as_json: bool = False) -> int:
    """Show how a run stands until it ends; returns 0 when it finished, 1 when it failed, 130 when it was interrupted.

    Args:
        run: any run; the process that works on it is neither asked nor disturbed.
        every: seconds between two looks.
        as_json: one JSON object per line for every look at which something was new.
    """
    console = Console()
    if as_json:
        return EXIT_CODES[_lines(run, every, Snapshot.to_json).state]
    if not console.is_terminal or console.is_dumb_terminal:
        return EXIT_CODES[_lines(run, max(every, _PLAIN_SECONDS), to_text).state]
    # On the terminal's other screen nothing would be left to read when it ends.
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        for snapshot in snapshots(run, every):
            live.update(draw(snapshot, console), refresh=True)
    return EXIT_CODES[snapshot.state]


def draw(snapshot: Snapshot, console: Console) -> Group:
    """Return the stage as a rich renderable."""
    state = Text(status_line(snapshot), style=_STYLES.get(snapshot.state, "bold yellow"))
    parts: list[Any] = [Text.assemble((snapshot.title, "bold"), ("  " + snapshot.run, "dim")), state]
    parts += [Text(warning, style="bold yellow") for warning in warnings(snapshot)]
    if snapshot.is_training and snapshot.num_steps and snapshot.step is not None:
        bar = Table.grid()
        bar.add_row(ProgressBar(total=snapshot.num_steps, completed=snapshot.step, width=min(console.width, 72)))
        parts.append(bar)
    said = [Text.assemble((f"{name.lower()} ", "dim"), text, no_wrap=True) for name, text in facts(snapshot)]
    parts += [Columns(said, padding=(0, 3)), Text()] if said else []
    if snapshot.losses:
        table = Table.grid(padding=(0, 2))
        for name, value in snapshot.losses.items():
            table.add_row(Text(name, "dim"), Text(number(value)), _curve(snapshot.values(name), console))
        parts += [table, Text()]
    if snapshot.done:
        parts.append(Text("done: " + ", ".join(name.replace("_", " ") for name in snapshot.done), "dim"))
    lines = [*snapshot.log, *(snapshot.error or "").splitlines()[-5:]]
    parts += [Text(line, "dim", no_wrap=True, overflow="ellipsis") for line in lines]
    return Group(*parts)


def _curve(values: list[float], console: Console) -> Text:
    if not console.encoding.lower().startswith("utf"):
        return Text()
    return Text(sparkline(values, width=max(min(console.width - 40, 40), 8)), "cyan")


def _lines(run: Run, every: float, write: Any) -> Snapshot:
    """Print a line whenever a step or a state is new; returns the last snapshot."""
    before: Any = None
    for snapshot in snapshots(run, every):
        now = (snapshot.state, snapshot.stage, snapshot.trained, snapshot.step, snapshot.done)
        if now != before:
            print(write(snapshot), flush=True)
        before = now
    sys.stdout.flush()
    return snapshot
