"""Causal maps that were worked out for readers: held in memory by model, text and stage, and nowhere else.

Nothing is written: a map is as private as the text that it is of, and gone when the dashboard is restarted.
"""

from typing import TYPE_CHECKING, Any

from lpr_lab.dashboard.server.models import Key, model_key
from lpr_lab.dashboard.server.recent import Recent
from lpr_lab.runs.run import Run

if TYPE_CHECKING:
    from lpr_lab.measure.causal.causal_map import CausalMap, Cell, NextTokens
    from lpr_lab.measure.trace import RoutingTrace

MOST = 24
"""Maps held, of all visitors together."""
MOST_CELLS = 256


class CausalMaps:
    """Holds maps, and what was asked of their cells; the one asked for longest ago is the first to go."""

    def __init__(self, most: int = MOST) -> None:
        self._maps: Recent[tuple[Key, str, str], CausalMap] = Recent(most)
        self._cells: Recent[tuple[Any, ...], NextTokens] = Recent(MOST_CELLS)

    def put(self, run: Run, causal: "CausalMap") -> None:
        """Hold a whole map."""
        self._maps.put((model_key(run), causal.text, causal.stage), causal)

    def get(self, run: Run, trace: "RoutingTrace") -> "CausalMap | None":
        """Return the map of what a trace shows, by this run's model as it is now; None where there is none."""
        found = self._maps.get((model_key(run), trace.text, trace.stage))
        return found if found is not None and found.is_for(trace) else None

    def put_cell(self, run: Run, causal: "CausalMap", found: "NextTokens") -> None:
        """Hold what the model expects at a cell of a map."""
        self._cells.put((model_key(run), causal.text, causal.stage, found.cell), found)

    def get_cell(self, run: Run, causal: "CausalMap", cell: "Cell") -> "NextTokens | None":
        """Return that, or None."""
        return self._cells.get((model_key(run), causal.text, causal.stage, cell))

    def stamp(self) -> tuple[int, int]:
        """Return what changes whenever something is put here."""
        return self._maps.puts, self._cells.puts


CAUSAL = CausalMaps()
"""The process's own: one for all visitors."""
