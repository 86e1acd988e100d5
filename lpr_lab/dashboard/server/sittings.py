"""Sittings of blind judgements that go on: held in memory, under ids that nobody can guess.

Nothing is written anywhere until somebody asks for it; from then on the run's file follows every judgement. A sitting
that is not kept is gone when it gave way to newer ones or the dashboard was restarted.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from lpr_lab.dashboard.server.recent import Recent
from lpr_lab.errors import MissingError
from lpr_lab.runs.people.sittings import Sitting, keep_sitting, kept_sitting
from lpr_lab.runs.run import Run

MOST = 64
"""Sittings held, of all visitors together."""


class Sittings:
    """Holds sittings by run and id; the one asked for longest ago is the first to go."""

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.RLock()  # of a change, which reads, writes a file and puts
        self._held: Recent[tuple[Path, str], Sitting] = Recent(most)

    def put(self, run: Run, sitting: Sitting) -> None:
        """Hold a sitting as it is now."""
        self._held.put((run.path, sitting.id), sitting)

    def get(self, run: Run, sitting_id: str) -> Sitting | None:
        """Return a sitting, held or kept by the run; None where there is neither.

        Raises:
            DamagedError: the run keeps it, and its file cannot be read.
        """
        with self._lock:
            found = self._held.get((run.path, sitting_id)) or kept_sitting(run, sitting_id)
            if found is not None:
                self.put(run, found)
            return found

    def change(self, run: Run, sitting_id: str, change: Callable[[Sitting], Sitting]) -> Sitting:
        """Change a sitting, also in the run where it is kept; returns it as it is then.

        Raises:
            MissingError: it is not there.
            LprError: what `change` refuses, or the disk.
        """
        with self._lock:
            found = self.get(run, sitting_id)
            if found is None:
                raise MissingError("This sitting is no longer held; begin another one.")
            changed = change(found)
            if changed != found and kept_sitting(run, sitting_id) is not None:
                keep_sitting(run, changed)
            self.put(run, changed)
            return changed

    def drop(self, run: Run, sitting_id: str) -> None:
        """Forget a sitting."""
        with self._lock:
            self._held.drop(lambda key: key == (run.path, sitting_id))


SITTINGS = Sittings()
"""The process's own: one for all visitors."""
