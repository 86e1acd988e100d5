"""One computation with a model at a time, first come first served, and whoever waits is told how many come before.

Gradio has a queue of its own, but its pages can't say in our words where a visitor stands in it, nor show it where the
result will be. So events that need a model enter at once and wait here.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial, wraps
from typing import Any, TypeVar

from anyio import to_thread

from lpr_lab.dashboard.server.limits import TooManyError

Step = TypeVar("Step")

MOST = 16
"""How many may be in line; who comes after them is asked to come again."""
ASK_EVERY_SECONDS = 0.25
SAY_EVERY_SECONDS = 1.0
"""How often one that waits is told again, which is when gradio notices that its visitor left."""
GONE_SECONDS = 30.0
"""After so long without a sign of life a place is given up: its visitor has gone without saying so."""


class Turn:
    """A place in line; the first in line is at work."""

    def __init__(self, line: "Line") -> None:
        self._line = line
        self.seen_at = line.clock()
        self.is_busy = False
        """Whether a step is being computed right now, which may take as long as it takes."""

    def before(self) -> int:
        """Return how many come before; 0 means that it is this one's turn."""
        self.seen_at = self._line.clock()
        return self._line.place_of(self)

    def leave(self) -> None:
        """Give up the place, at work or not."""
        self._line.leave(self)


class Line:
    """Who uses the models, and who waits for that; used from the server's event loop only."""

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._most = most
        self._turns: list[Turn] = []

    def join(self) -> Turn:
        """Take the last place.

        Raises:
            TooManyError: too many wait already.
        """
        self._drop_gone()
        if len(self._turns) >= self._most:
            raise TooManyError(
                f"The models are busy and {self._most - 1} requests wait for them already. Try again in a moment."
            )
        turn = Turn(self)
        self._turns.append(turn)
        return turn

    def place_of(self, turn: Turn) -> int:
        """Return how many come before a turn; one whose place was given up is last again."""
        self._drop_gone()
        if turn not in self._turns:
            self._turns.append(turn)
        return self._turns.index(turn)

    def leave(self, turn: Turn) -> None:
        """Take a turn out of the line."""
        if turn in self._turns:
            self._turns.remove(turn)

    def _drop_gone(self) -> None:
        now = self.clock()
        self._turns = [turn for turn in self._turns if turn.is_busy or now - turn.seen_at < GONE_SECONDS]


LINE = Line()
"""The process's own: one for all pages, endpoints and visitors."""


def said(before: int) -> str:
    """Return what someone who waits is told."""
    return f"Waiting: {before} before you."


def in_turn(
    work: Callable[..., Iterator[Step]], waiting: Callable[[str], Step], refused: Callable[[str], Step]
) -> Callable[..., AsyncIterator[Step]]:
    """Return what does the work when its turn comes; cancelling it also gives up the place.

    Args:
        work: yields what the page shows as it gets on, in a thread.
        waiting: makes what the page shows from the words of `said`.
        refused: makes what it shows when too many wait already.
    """

    @wraps(work)
    async def answer(*given: Any, **options: Any) -> AsyncIterator[Step]:
        try:
            turn = LINE.join()
        except TooManyError as error:
            yield refused(str(error))
            return
        steps: Iterator[Step] | None = None
        step: asyncio.Future[Any] | None = None
        try:
            told_at, told = float("-inf"), 0
            while before := turn.before():
                if before != told or turn.seen_at - told_at >= SAY_EVERY_SECONDS:
                    told_at, told = turn.seen_at, before
                    yield waiting(said(before))
                await asyncio.sleep(ASK_EVERY_SECONDS)
            steps = work(*given, **options)
            while True:
                turn.is_busy = True
                step = asyncio.ensure_future(to_thread.run_sync(partial(next, steps, _OVER)))
                shown = await asyncio.shield(step)
                turn.is_busy = False
                turn.before()
                if shown is _OVER:
                    return
                yield shown
        finally:
            # A step that was under way when the visitor stopped it goes on to its end, and so does its turn.
            if step is not None and not step.done():
                step.add_done_callback(lambda done: (done.exception(), _finish(steps, turn)))
            else:
                _finish(steps, turn)

    return answer


_OVER: Any = object()


def _finish(steps: Iterator[Any] | None, turn: Turn) -> None:
    turn.leave()
    close = getattr(steps, "close", None)
    if close is not None:
        close()


async def take_turn(work: Callable[[], Step], waiting: Callable[[str], None]) -> Step:
    """Return what the work returns, done in a thread when its turn comes.

    Args:
        work: called once.
        waiting: told, with the words of `said`, whenever the number of those before changes.

    Raises:
        TooManyError: too many wait already.
    """
    turn, told = LINE.join(), 0
    step: asyncio.Future[Step] | None = None
    try:
        while before := turn.before():
            if before != told:
                told = before
                waiting(said(before))
            await asyncio.sleep(ASK_EVERY_SECONDS)
        turn.is_busy = True
        step = asyncio.ensure_future(to_thread.run_sync(work))
        return await asyncio.shield(step)
    finally:
        if step is not None and not step.done():
            step.add_done_callback(lambda done: (done.exception(), turn.leave()))
        else:
            turn.leave()
