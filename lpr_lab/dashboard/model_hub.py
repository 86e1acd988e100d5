"""The one model that this process holds, loaded when a page first needs it and kept until another run is asked for.

Nothing of torch is imported before that. One lock serves everything that touches the model, so two readers never load
two models, and one model at a time is in memory. Hold it for one computation, never across a `yield`: the steps of a
generator run in different threads, and one that was stopped may not go on at all.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpr_lab.errors import LprError, MissingError
from lpr_lab.experiments.runs import Run


@dataclass(frozen=True)
class Loaded:
    """A model ready to use."""

    run_id: str
    model: Any
    tokenizer: Any
    device: str
    seconds: float
    """How long loading took; 0 when it was there already."""


class ModelHub:
    """Holds at most one expanded model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._loaded: Loaded | None = None

    def is_loaded(self, run: Run) -> bool:
        """Whether asking for this run's model would be instant."""
        return self._loaded is not None and self._path == run.path

    @contextmanager
    def use(self, run: Run) -> Iterator[Loaded]:
        """Give the run's model and tokenizer, loading them first when needed; others wait meanwhile.

        Raises:
            MissingError: the run has no weights, or its base model is not on this machine.
            DamagedError, ComparisonRefusedError: see `model.files.load_expansion`.
            LprError: not enough memory.
        """
        with self._lock:
            if not self.is_loaded(run):
                self._load(run)
            assert self._loaded is not None
            yield self._loaded

    def _load(self, run: Run) -> None:
        reason = why_not(run)
        if reason is not None:
            raise MissingError(reason)
        self._loaded, self._path = None, None  # let go of the one before: two at once may not fit
        started = time.monotonic()
        from lpr_lab.model.files import load_expansion, load_tokenizer

        try:
            model = load_expansion(run.path)
        except MemoryError as error:
            raise LprError(
                "There is not enough memory for this model beside what runs already; close something and try again."
            ) from error
        tokenizer = load_tokenizer(run.path)
        device = str(next(model.parameters()).device)
        self._loaded = Loaded(run.id, model, tokenizer, device, time.monotonic() - started)
        self._path = run.path


HUB = ModelHub()
"""The process's own."""


def why_not(run: Run) -> str | None:
    """Return why no model of this run can be loaded, in one sentence, or None when it can."""
    if run.has_checkpoint:
        return None
    if run.is_example:
        return "This is an example run: it came with the code and without weights."
    state = run.status.state
    if state in ("running", "queued"):
        return "This run is still working; its weights are written near its end."
    if state == "finished":
        return "This run has no weights in this folder."
    return f"This run ({state}) has no weights: it did not come that far."
