"""The tokens of held-out documents in which experts have their contexts: held in memory by model and test set.

A run keeps ids and places of contexts, but no text of others; what stands around a token is here, and gone when the
dashboard is restarted.
"""

from typing import TYPE_CHECKING

from lpr_lab.dashboard.server.models import Key, model_key
from lpr_lab.dashboard.server.recent import Recent
from lpr_lab.runs.run import Run

if TYPE_CHECKING:
    from lpr_lab.measure.contexts.expert_contexts import Tokens

MOST = 8
"""Test sets held, of all visitors together: some megabytes each."""


class ContextTokens:
    """Holds the tokens of test sets; the one asked for longest ago is the first to go."""

    def __init__(self, most: int = MOST) -> None:
        self._held: Recent[tuple[Key, str], Tokens] = Recent(most)

    def put(self, run: Run, dataset: str, tokens: "Tokens") -> None:
        """Hold the tokens of a test set as a run's model reads it."""
        self._held.put((model_key(run), dataset), tokens)

    def get(self, run: Run, dataset: str) -> "Tokens":
        """Return them; empty where they are not held."""
        return self._held.get((model_key(run), dataset)) or {}

    def stamp(self) -> int:
        """Return what changes whenever something is put here."""
        return self._held.puts


CONTEXT_TOKENS = ContextTokens()
"""The process's own: one for all visitors."""
