"""Segments compared for readers, and those found in the corpora of runs: held in memory, and nowhere else.

Nothing is written: a comparison is as private as the texts that it is of, and a run's folder keeps no text of others.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lpr_lab.dashboard.server.models import Key, model_key
from lpr_lab.dashboard.server.recent import Recent
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
        self._compared: Recent[tuple[Key, str, str], LanguageComparison] = Recent(most)
        self._lists: Recent[Path, Listing] = Recent(MOST_LISTS)

    def put(self, run: Run, key: str, stage: str, compared: "LanguageComparison") -> None:
        """Hold a comparison under the key of its segment and the stage that was asked for; "" for the newest."""
        self._compared.put((model_key(run), key, stage), compared)

    def get(self, run: Run, key: str, stage: str) -> "LanguageComparison | None":
        """Return a comparison by this run's model as it is now, or None."""
        return self._compared.get((model_key(run), key, stage))

    def texts(self, run: Run, key: str) -> dict[str, str] | None:
        """Return the texts of a segment that this run's model compared at any stage, by language, or None."""
        for (model, name, _), compared in self._compared.items():
            if (model, name) == (model_key(run), key):
                return {code: trace.text for code, trace in compared.traces.items()}
        return None

    def put_list(self, run: Run, listing: Listing) -> None:
        """Hold the segments that a run's languages have in common."""
        self._lists.put(run.path, listing)

    def get_list(self, run: Run) -> Listing | None:
        """Return them, or None where nobody has looked yet."""
        return self._lists.get(run.path)

    def stamp(self) -> tuple[int, int]:
        """Return what changes whenever something is put here."""
        return self._compared.puts, self._lists.puts


SEGMENTS = Segments()
"""The process's own: one for all visitors."""
