"""Logit lenses that were computed for readers: held in memory by model, text and stage, and nowhere else.

Nothing is written: a lens is as private as the text that it is of, and gone when the dashboard is restarted. What is
known of a vocabulary's languages is held with it, since counting it takes the run's corpus.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lpr_lab.dashboard.server.models import Key, model_key
from lpr_lab.dashboard.server.recent import Recent
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
        self._lenses: Recent[tuple[Key, str, str], LogitLens] = Recent(most)
        self._languages: Recent[Key, KnownLanguages] = Recent(most)

    def put(self, run: Run, lens: "LogitLens") -> None:
        """Hold a lens."""
        self._lenses.put((model_key(run), lens.text, lens.stage), lens)

    def get(self, run: Run, trace: "RoutingTrace") -> "LogitLens | None":
        """Return the lens on what a trace shows, by this run's model as it is now; None where there is none."""
        found = self._lenses.get((model_key(run), trace.text, trace.stage))
        return found if found is not None and found.is_for(trace) else None

    def put_languages(self, run: Run, languages: KnownLanguages) -> None:
        """Hold what is known of a run's vocabulary."""
        self._languages.put(model_key(run), languages)

    def languages_of(self, run: Run) -> KnownLanguages | None:
        """Return that, or None."""
        return self._languages.get(model_key(run))

    def stamp(self) -> int:
        """Return what changes whenever a lens is put here."""
        return self._lenses.puts


LENSES = Lenses()
"""The process's own: one for all visitors."""
