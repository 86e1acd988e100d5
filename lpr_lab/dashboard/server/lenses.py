"""Logit lenses that were computed for readers: held in memory by model, text and stage, and nowhere else.

Nothing is written: a lens is as private as the text that it is of, and gone when the dashboard is restarted. What is
known of a vocabulary's languages is held with it, since counting it takes the run's corpus.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lpr_lab.dashboard.server.models import Key, model_key
from lpr_lab.runs.run import Run

if TYPE_CHECKING:
    from lpr_lab.measure.guesses.lens import LogitLens
    from lpr_lab.measure.guesses.token_languages import TokenLanguages
    from lpr_lab.measure.trace import RoutingTrace

MOST = 16
"""Lenses held, of all visitors together."""


@dataclass(frozen=True)
class KnownLanguages:
    """By what a run's guesses are said to be of a language."""

    known: "TokenLanguages"
    note: str = ""
    """What has to be said of it, such as why languages of one script are not told apart."""


class Lenses:
    """Holds lenses, and the languages of their vocabularies; the one asked for longest ago is the first to go."""

    def __init__(self, most: int = MOST) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._lenses: OrderedDict[tuple[Key, str, str], LogitLens] = OrderedDict()
        self._languages: OrderedDict[Key, KnownLanguages] = OrderedDict()
        self._count = 0

    def put(self, run: Run, lens: "LogitLens") -> None:
        """Hold a lens."""
        with self._lock:
            self._count += 1
            self._lenses[model_key(run), lens.text, lens.stage] = lens
            while len(self._lenses) > self._most:
                self._lenses.popitem(last=False)

    def get(self, run: Run, trace: "RoutingTrace") -> "LogitLens | None":
        """Return the lens on what a trace shows, by this run's model as it is now; None where there is none."""
        with self._lock:
            key = (model_key(run), trace.text, trace.stage)
            found = self._lenses.get(key)
            if found is None or not found.is_for(trace):
                return None
            self._lenses.move_to_end(key)
            return found

    def put_languages(self, run: Run, languages: KnownLanguages) -> None:
        """Hold what is known of a run's vocabulary."""
        with self._lock:
            self._languages[model_key(run)] = languages
            while len(self._languages) > self._most:
                self._languages.popitem(last=False)

    def languages_of(self, run: Run) -> KnownLanguages | None:
        """Return that, or None."""
        with self._lock:
            return self._languages.get(model_key(run))

    def stamp(self) -> int:
        """Return what changes whenever something is put here."""
        return self._count


LENSES = Lenses()
"""The process's own: one for all visitors."""
