"""Causal maps that were worked out for readers: held in memory by model, text and stage, and nowhere else.

Nothing is written: a map is as private as the text that it is of, and gone when the dashboard is restarted.
"""

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from lpr_lab.dashboard.server.models import Key, model_key
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
        self._lock = threading.Lock()
        self._most = most
        self._maps: OrderedDict[tuple[Key, str, str], CausalMap] = OrderedDict()
        self._cells: OrderedDict[tuple[Any, ...], NextTokens] = OrderedDict()
        self._count = 0

    def put(self, run: Run, causal: "CausalMap") -> None:
        """Hold a whole map."""
        with self._lock:
            self._count += 1
            self._maps[model_key(run), causal.text, causal.stage] = causal
            while len(self._maps) > self._most:
                self._maps.popitem(last=False)

    def get(self, run: Run, trace: "RoutingTrace") -> "CausalMap | None":
        """Return the map of what a trace shows, by this run's model as it is now; None where there is none."""
        with self._lock:
            key = (model_key(run), trace.text, trace.stage)
            found = self._maps.get(key)
            if found is None or not found.is_for(trace):
                return None
            self._maps.move_to_end(key)
            return found

    def put_cell(self, run: Run, causal: "CausalMap", found: "NextTokens") -> None:
        """Hold what the model expects at a cell of a map."""
        with self._lock:
            self._count += 1
            self._cells[model_key(run), causal.text, causal.stage, found.cell] = found
            while len(self._cells) > MOST_CELLS:
                self._cells.popitem(last=False)

    def get_cell(self, run: Run, causal: "CausalMap", cell: "Cell") -> "NextTokens | None":
        """Return that, or None."""
        with self._lock:
            return self._cells.get((model_key(run), causal.text, causal.stage, cell))

    def stamp(self) -> int:
        """Return what changes whenever something is put here."""
        return self._count


CAUSAL = CausalMaps()
"""The process's own: one for all visitors."""
