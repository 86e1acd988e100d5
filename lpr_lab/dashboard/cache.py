"""Cache rendered pages by file modification time.

Only for functions of a `PageContext`, whose result depends on the address, the files and what
`server` holds in memory.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from lpr_lab.dashboard.server.causal_maps import CAUSAL
from lpr_lab.dashboard.server.context_tokens import CONTEXT_TOKENS
from lpr_lab.dashboard.server.lenses import LENSES
from lpr_lab.dashboard.server.models import MODELS
from lpr_lab.dashboard.server.segments import SEGMENTS
from lpr_lab.dashboard.server.unsaved_texts import UNSAVED
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.runs.run import Run
from lpr_lab.storage import file_stamp

MOST = 64
"""Results kept, over all pages."""

Drawn = TypeVar("Drawn")


class _Entry:
    """One result; the lock lets others wait for it instead of making it again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made_at = float("-inf")
        self.value: Any = None


_entries: OrderedDict[Any, _Entry] = OrderedDict()
_lock = threading.Lock()


def cached(
    draw: Callable[[PageContext, Path], Drawn], *, seconds: float = float("inf")
) -> Callable[[PageContext, Path], Drawn]:
    """Return a function that draws only when the address or a file is another than before.

    Args:
        draw: a function of a context and the folder of runs.
        seconds: how long a result stands, for what says how long ago something was.
    """

    @wraps(draw)
    def look_up(context: PageContext, runs_dir: Path) -> Drawn:
        key = (draw, runs_dir, context.query, context.notice, fingerprint(context))
        with _lock:
            entry = _entries.setdefault(key, _Entry())
            _entries.move_to_end(key)
            while len(_entries) > MOST:
                _entries.popitem(last=False)
        with entry.lock:
            if time.monotonic() - entry.made_at >= seconds or entry.made_at == float("-inf"):
                entry.value = draw(context, runs_dir)
                entry.made_at = time.monotonic()
            return _fresh(entry.value)

    return look_up


def _fresh(value: Any) -> Any:
    """Copy what holds the parts, not the parts: gradio empties the updates that it is given."""
    if type(value) is dict:
        return {key: _fresh(item) for key, item in value.items()}
    return type(value)(_fresh(item) for item in value) if type(value) in (list, tuple) else value


def fingerprint(context: PageContext) -> tuple[Any, ...]:
    """Return what changes when a file does that a page may be drawn from."""
    mine = {
        name for name in (context.run.id if context.run else "", context.query.run2, *context.query.compared) if name
    }
    typed = UNSAVED.stamp(context.query.text)
    return (
        typed,
        CAUSAL.stamp(),
        CONTEXT_TOKENS.stamp(),
        LENSES.stamp(),
        SEGMENTS.stamp(),
        *(_state_of(run, in_full=run.id in mine) for run in context.runs),
    )


def _state_of(run: Run, in_full: bool) -> tuple[Any, ...]:
    # Files are replaced whole, which the folder's own time shows; those that grow show it themselves.
    folders = [run.path, run.path / "tables"]
    if not in_full:
        return (run.path, run.problem, *(file_stamp(folder) for folder in folders))
    folders += [run.path / name for name in ("traces", "figures", "generations", "checkpoint")]
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return (
        run.path,
        run.problem,
        run.status.state,
        MODELS.is_loaded(run),
        *((path.name, file_stamp(path)) for path in (*folders, *files)),
    )
