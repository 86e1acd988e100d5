"""Traced texts that a visitor has not saved: held in memory, under an id that nobody can guess.

Nothing here is written anywhere. Who has the address of such a text sees it until it gave way to newer ones or the
dashboard was restarted.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lpr_lab.runs.run import Run

if TYPE_CHECKING:
    from lpr_lab.measure.trace import RoutingTrace

MOST = 64
"""Traces held, of all visitors together: one segment in many languages is a trace for each of them."""


@dataclass(frozen=True)
class Typed:
    """A typed text as one run's model routes it."""

    trace: "RoutingTrace"
    edited: str = ""
    """Id of the kept text that it was made from; empty for a new one."""
    number: int = 0
    """Another one whenever it is traced anew."""


class UnsavedTexts:
    """Holds typed texts by run and id; the one asked for longest ago is the first to go."""

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._held: OrderedDict[tuple[Path, str], Typed] = OrderedDict()
        self._count = 0

    def put(self, run: Run, text_id: str, trace: "RoutingTrace", edited: str = "") -> None:
        """Hold a text, in place of an earlier trace of it."""
        with self._lock:
            self._count += 1
            self._held[run.path, text_id] = Typed(trace, edited, self._count)
            self._held.move_to_end((run.path, text_id))
            while len(self._held) > self._most:
                self._held.popitem(last=False)

    def get(self, run: Run, text_id: str) -> Typed | None:
        """Return a text, or None."""
        with self._lock:
            found = self._held.get((run.path, text_id))
            if found is not None:
                self._held.move_to_end((run.path, text_id))
            return found

    def drop(self, text_id: str) -> None:
        """Forget a text, whichever runs traced it."""
        with self._lock:
            for key in [key for key in self._held if key[1] == text_id]:
                del self._held[key]

    def stamp(self, text_id: str) -> tuple[int, ...]:
        """Return what changes whenever a text of this id does."""
        with self._lock:
            return tuple(held.number for (_, name), held in self._held.items() if name == text_id)


UNSAVED = UnsavedTexts()
"""The process's own: one for all visitors."""


def trace_of(run: Run, name: str) -> "RoutingTrace | None":
    """Return a text's trace as this run has it: kept with it, or typed and still held; None where it has neither."""
    if name in run.traces.names():
        return run.traces.read(name)
    held = UNSAVED.get(run, name)
    return None if held is None else held.trace
