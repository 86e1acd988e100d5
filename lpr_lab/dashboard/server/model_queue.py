"""A queue for computations with a model: one at a time, first come first served, and the position is reported.

Gradio has a queue of its own, but a page cannot show a visitor's position where the result will be. So events that need
a model enter Gradio's queue at once and wait here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial, wraps
from typing import Any, TypeVar

from anyio import to_thread

from lpr_lab.dashboard.server.request_limits import TooManyError

Step = TypeVar("Step")

MAX_QUEUED = 16
"""The most that may wait; later requests are refused."""
ASK_EVERY_SECONDS = 0.25
SAY_EVERY_SECONDS = 1.0
"""How often one that waits is told again, which is when gradio notices that its visitor left."""
GONE_SECONDS = 30.0
"""After so long without a sign of life a place is given up: its visitor has gone without saying so."""


class Place:
    """A place in the queue; the first one is being computed."""

    def __init__(self, queue: "ModelQueue") -> None:
        self._queue = queue
        self.seen_at = queue.clock()
        self.is_busy = False
        """Whether a step is being computed right now, which may take as long as it takes."""

    def before(self) -> int:
        """Return how many come before; 0 means that this one is next."""
        self.seen_at = self._queue.clock()
        return self._queue.position_of(self)

    def leave(self) -> None:
        """Leave the queue."""
        self._queue.leave(self)


class ModelQueue:
    """The queue; used from the server's event loop only."""

    def __init__(self, most: int = MAX_QUEUED, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._most = most
        self._places: list[Place] = []

    def join(self) -> Place:
        """Take the last place.

        Raises:
            TooManyError: too many wait already.
        """
        self._drop_gone()
        if len(self._places) >= self._most:
            raise TooManyError(
                f"The models are busy and {self._most - 1} requests wait for them already. Try again in a moment."
            )
        place = Place(self)
        self._places.append(place)
        return place

    def position_of(self, place: Place) -> int:
        """Return how many come before a place; one whose place was given up is last again."""
        self._drop_gone()
        if place not in self._places:
            self._places.append(place)
        return self._places.index(place)

    def leave(self, place: Place) -> None:
        """Remove a place."""
        if place in self._places:
            self._places.remove(place)

    def _drop_gone(self) -> None:
        now = self.clock()
        self._places = [place for place in self._places if place.is_busy or now - place.seen_at < GONE_SECONDS]


QUEUE = ModelQueue()
"""The process's own: one for all pages, endpoints and visitors."""


def waiting_message(before: int) -> str:
    """Return what a waiting visitor is told."""
    return f"Waiting: {before} before you."


def queued(
    work: Callable[..., Iterator[Step]], waiting: Callable[[str], Step], refused: Callable[[str], Step]
) -> Callable[..., AsyncIterator[Step]]:
    """Return a handler that waits in the queue before it does the work; cancelling it also leaves the queue.

    Args:
        work: yields what the page shows as it gets on, in a thread.
        waiting: makes what the page shows from the words of `said`.
        refused: makes what it shows when too many wait already.
    """

    @wraps(work)
    async def answer(*given: Any, **options: Any) -> AsyncIterator[Step]:
        try:
            place = QUEUE.join()
        except TooManyError as error:
            yield refused(str(error))
            return
        steps: Iterator[Step] | None = None
        step: asyncio.Future[Any] | None = None
        try:
            told_at, told = float("-inf"), 0
            while before := place.before():
                if before != told or place.seen_at - told_at >= SAY_EVERY_SECONDS:
                    told_at, told = place.seen_at, before
                    yield waiting(waiting_message(before))
                await asyncio.sleep(ASK_EVERY_SECONDS)
            steps = work(*given, **options)
            while True:
                place.is_busy = True
                step = asyncio.ensure_future(to_thread.run_sync(partial(next, steps, _OVER)))
                shown = await asyncio.shield(step)
                place.is_busy = False
                place.before()
                if shown is _OVER:
                    return
                yield shown
        finally:
            # A step that was under way when the visitor stopped it goes on to its end, and so does its place.
            if step is not None and not step.done():
                step.add_done_callback(lambda done: (done.exception(), _finish(steps, place)))
            else:
                _finish(steps, place)

    return answer


_OVER: Any = object()


def _finish(steps: Iterator[Any] | None, place: Place) -> None:
    place.leave()
    close = getattr(steps, "close", None)
    if close is not None:
        close()


async def run_queued(work: Callable[[], Step], waiting: Callable[[str], None]) -> Step:
    """Wait in the queue, do the work in a thread, and return its result.

    Args:
        work: called once.
        waiting: told, with the words of `said`, whenever the number of those before changes.

    Raises:
        TooManyError: too many wait already.
    """
    place, told = QUEUE.join(), 0
    step: asyncio.Future[Step] | None = None
    try:
        while before := place.before():
            if before != told:
                told = before
                waiting(waiting_message(before))
            await asyncio.sleep(ASK_EVERY_SECONDS)
        place.is_busy = True
        step = asyncio.ensure_future(to_thread.run_sync(work))
        return await asyncio.shield(step)
    finally:
        if step is not None and not step.done():
            step.add_done_callback(lambda done: (done.exception(), place.leave()))
        else:
            place.leave()
