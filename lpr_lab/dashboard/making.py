"""Documents that take longer than a moment: made once, in a thread, while a page that renews itself says how far."""

import threading
import time
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from markupsafe import Markup

from lpr_lab.dashboard.server.recent import Recent

PATIENCE = 1.0
"""Seconds that a reader waits for the document before being told how far it is."""
_KEPT = 8


class DocumentStep(NamedTuple):
    """How far a document is, in parts, and once it is through, the document."""

    done: int
    total: int
    result: Markup | None = None


class Making:
    """One document that is being made."""

    def __init__(self, steps: Iterator[DocumentStep]) -> None:
        self.step = DocumentStep(0, 0)
        self.error: Exception | None = None
        self._began = time.monotonic()
        self._over = threading.Event()
        threading.Thread(target=self._make, args=(steps,), daemon=True, name="document").start()

    def wait(self, seconds: float) -> DocumentStep:
        """Return how far it is, after that long or when it is through.

        Raises:
            Exception: whatever ended it.
        """
        self._over.wait(seconds)
        if self.error is not None:
            raise self.error
        return self.step

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the pace so far; None before the first part is done."""
        done, total, _ = self.step
        return (time.monotonic() - self._began) / done * (total - done) if done else None

    def _make(self, steps: Iterator[DocumentStep]) -> None:
        try:
            for self.step in steps:
                pass
        except Exception as error:
            self.error = error
        finally:
            self._over.set()


class Documents:
    """The documents of one kind, by what they were made from; the last few are kept."""

    def __init__(self, steps: Callable[..., Iterator[DocumentStep]]) -> None:
        self._steps = steps
        self._makings = Recent[tuple[Hashable, ...], Making](most=_KEPT)
        self._lock = threading.Lock()

    def of(self, *made_from: Hashable) -> Making:
        """Return the making of a document, which the first who asks for it begins; one that failed begins again."""
        with self._lock:
            making = self._makings.get(made_from)
            if making is None or making.error is not None:
                making = Making(self._steps(*made_from))
                self._makings.put(made_from, making)
        return making
