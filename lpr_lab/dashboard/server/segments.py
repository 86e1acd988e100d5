"""Segments compared for readers, and those found in the corpora of runs: held in memory, and nowhere else.

Nothing is written: a comparison is as private as the texts that it is of, and a run's folder keeps no text of others.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lpr_lab.dashboard.server.models import Key, model_key
from lpr_lab.runs.run import Run

if TYPE_CHECKING:
    from lpr_lab.measure.segments.aligned import Segment
    from lpr_lab.measure.segments.comparison import LanguageComparison

MOST = 24
"""Comparisons held, of all visitors together."""
MOST_LISTS = 8
"""Runs whose segments are held."""


@dataclass(frozen=True)
class Listing:
    """The segments that the languages of a run have in common.

    Attributes:
        segments: those offered; none where there are none.
        reason: in a sentence, where they are from, or why there are none.
    """

    segments: "tuple[Segment, ...]"
    reason: str


class Segments:
    """Holds comparisons and lists of segments; of each, the one asked for longest ago is the first to go."""

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._compared: OrderedDict[tuple[Key, str, str], LanguageComparison] = OrderedDict()
        self._lists: OrderedDict[Path, Listing] = OrderedDict()
        self._count = 0

    def put(self, run: Run, key: str, stage: str, compared: "LanguageComparison") -> None:
        """Hold a comparison under the key of its segment and the stage that was asked for; "" for the newest."""
        with self._lock:
            self._count += 1
            self._compared[model_key(run), key, stage] = compared
            while len(self._compared) > self._most:
                self._compared.popitem(last=False)

    def get(self, run: Run, key: str, stage: str) -> "LanguageComparison | None":
        """Return a comparison by this run's model as it is now, or None."""
        with self._lock:
            found = self._compared.get((model_key(run), key, stage))
            if found is not None:
                self._compared.move_to_end((model_key(run), key, stage))
            return found

    def texts(self, run: Run, key: str) -> dict[str, str] | None:
        """Return the texts of a segment that this run's model compared at any stage, by language, or None."""
        with self._lock:
            for (model, name, _), compared in self._compared.items():
                if (model, name) == (model_key(run), key):
                    return {code: trace.text for code, trace in compared.traces.items()}
        return None

    def put_list(self, run: Run, listing: Listing) -> None:
        """Hold the segments that a run's languages have in common."""
        with self._lock:
            self._count += 1
            self._lists[run.path] = listing
            while len(self._lists) > MOST_LISTS:
                self._lists.popitem(last=False)

    def get_list(self, run: Run) -> Listing | None:
        """Return them, or None where nobody has looked yet."""
        with self._lock:
            return self._lists.get(run.path)

    def stamp(self) -> int:
        """Return what changes whenever something is put here."""
        return self._count


SEGMENTS = Segments()
"""The process's own: one for all visitors."""
