"""The tokens of held-out documents in which experts have their contexts: held in memory by model and test set.

A run keeps ids and places of contexts, but no text of others; what stands around a token is here, and gone when the
dashboard is restarted.
"""

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from lpr_lab.dashboard.server.models import Key, model_key
from lpr_lab.runs.run import Run

if TYPE_CHECKING:
    from lpr_lab.measure.contexts.expert_contexts import Tokens

MOST = 8
"""Test sets held, of all visitors together: some megabytes each."""


class ContextTokens:
    """Holds the tokens of test sets; the one asked for longest ago is the first to go."""

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._held: OrderedDict[tuple[Key, str], Tokens] = OrderedDict()
        self._count = 0

    def put(self, run: Run, dataset: str, tokens: "Tokens") -> None:
        """Hold the tokens of a test set as a run's model reads it."""
        with self._lock:
            self._count += 1
            key = (model_key(run), dataset)
            self._held[key] = tokens
            self._held.move_to_end(key)
            while len(self._held) > self._most:
                self._held.popitem(last=False)

    def get(self, run: Run, dataset: str) -> "Tokens":
        """Return them; empty where they are not held."""
        with self._lock:
            key = (model_key(run), dataset)
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key, {})

    def stamp(self) -> int:
        """Return what changes whenever something is put here."""
        return self._count


CONTEXT_TOKENS = ContextTokens()
"""The process's own: one for all visitors."""
