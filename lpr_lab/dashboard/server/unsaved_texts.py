"""Traced texts that a visitor has not saved: held in memory, under an id that nobody can guess.

Nothing here is written anywhere. Who has the address of such a text sees it until it gave way to newer ones or the
dashboard was restarted.
"""

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from lpr_lab.dashboard.server.recent import Recent
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
        self._held: Recent[tuple[Path, str], Typed] = Recent(most)
        self._numbers = count(1)

    def put(self, run: Run, text_id: str, trace: "RoutingTrace", edited: str = "") -> None:
        """Hold a text, in place of an earlier trace of it."""
        self._held.put((run.path, text_id), Typed(trace, edited, next(self._numbers)))

    def get(self, run: Run, text_id: str) -> Typed | None:
        """Return a text, or None."""
        return self._held.get((run.path, text_id))

    def drop(self, text_id: str) -> None:
        """Forget a text, whichever runs traced it."""
        self._held.drop(lambda key: key[1] == text_id)

    def stamp(self, text_id: str) -> tuple[int, ...]:
        """Return what changes whenever a text of this id does."""
        return tuple(held.number for (_, name), held in self._held.items() if name == text_id)


UNSAVED = UnsavedTexts()
"""The process's own: one for all visitors."""


def trace_of(run: Run, name: str) -> "RoutingTrace | None":
    """Return a text's trace as this run has it: kept with it, or typed and still held; None where it has neither."""
    if name in run.traces.names():
        return run.traces.read(name)
    held = UNSAVED.get(run, name)
    return None if held is None else held.trace
