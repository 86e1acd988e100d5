"""What a page showed is remembered until a file it was drawn from changes: many readers cost little more than one.

Only for functions of a `Scene`: what the address asks for and the files say, and the texts that `typed` holds.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from lpr_lab.dashboard.server.models import HUB
from lpr_lab.dashboard.server.typed_texts import TYPED
from lpr_lab.dashboard.shell import Scene
from lpr_lab.runs.run import Run

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


def remembered(
    draw: Callable[[Scene, Path], Drawn], *, seconds: float = float("inf")
) -> Callable[[Scene, Path], Drawn]:
    """Return a function that draws only when the address or a file is another than before.

    Args:
        draw: a function of a scene and the folder of runs.
        seconds: how long a result stands, for what says how long ago something was.
    """

    @wraps(draw)
    def look_up(scene: Scene, runs_dir: Path) -> Drawn:
        key = (draw, runs_dir, scene.view, scene.notice, fingerprint(scene))
        with _lock:
            entry = _entries.setdefault(key, _Entry())
            _entries.move_to_end(key)
            while len(_entries) > MOST:
                _entries.popitem(last=False)
        with entry.lock:
            if time.monotonic() - entry.made_at >= seconds or entry.made_at == float("-inf"):
                entry.value = draw(scene, runs_dir)
                entry.made_at = time.monotonic()
            return _fresh(entry.value)

    return look_up


def _fresh(value: Any) -> Any:
    """Copy what holds the parts, not the parts: gradio empties the updates that it is given."""
    if type(value) is dict:
        return {key: _fresh(item) for key, item in value.items()}
    return type(value)(_fresh(item) for item in value) if type(value) in (list, tuple) else value


def fingerprint(scene: Scene) -> tuple[Any, ...]:
    """Return what changes when a file does that a page may be drawn from."""
    mine = {name for name in (scene.run.id if scene.run else "", scene.view.run2, *scene.view.compared) if name}
    typed = TYPED.stamp(scene.view.text)
    return (typed, *(_state_of(run, in_full=run.id in mine) for run in scene.runs))


def _state_of(run: Run, in_full: bool) -> tuple[Any, ...]:
    # Files are replaced whole, which the folder's own time shows; those that grow show it themselves.
    folders = [run.path, run.path / "tables"]
    if not in_full:
        return (run.path, run.problem, *(_stamp(folder) for folder in folders))
    folders += [run.path / name for name in ("traces", "figures", "generations", "checkpoint")]
    files = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return (run.path, run.problem, run.status.state, HUB.is_loaded(run), *(_stamp(path) for path in (*folders, *files)))


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return path.name, 0, 0
    return path.name, found.st_mtime_ns, found.st_size
