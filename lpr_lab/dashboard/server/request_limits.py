"""Limits on concurrent requests, on open streams, and on actions per address.

There are no bans: a request above a limit waits, first come first served, and is refused (with when to retry) only
after the longest wait. Nothing here knows gradio.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lpr_lab.errors import LprError


class TooManyError(LprError):
    """The server is at a limit; retrying a moment later helps."""


@dataclass(frozen=True)
class Limits:
    """The limits; those per address keep one client from using up what all need."""

    at_once: int = 48
    """Requests being answered, streams not counted."""
    waiting: int = 512
    """Requests that wait for that."""
    patience_seconds: float = 15.0
    """How long one waits before it is refused."""
    streams: int = 512
    """Open streams; every open page has one or two."""
    streams_per_address: int = 128
    burst: int = 400
    """Actions that one address may ask for at once; reading pages is no action."""
    per_second: float = 100.0
    """And how many a second after that."""


@dataclass
class _Bucket:
    """Tokens of one address: each action takes one, time brings them back."""

    tokens: float
    at: float


@dataclass
class RequestLimiter:
    """Counts open requests and streams, and delays or refuses those above the limits; one per server."""

    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._places = asyncio.Semaphore(self.limits.at_once)
        self._waiting = 0
        self._streams: dict[str, int] = {}
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    @asynccontextmanager
    async def request(self, address: str, *, is_action: bool = False) -> AsyncIterator[None]:
        """Hold a place while one request is answered.

        Raises:
            TooManyError: too many wait already, or it waited in vain.
        """
        if is_action:
            await self._pace(address)
        if self._places.locked() and self._waiting >= self.limits.waiting:
            raise TooManyError("Too many requests wait already.")
        self._waiting += 1
        try:
            await asyncio.wait_for(self._places.acquire(), self.limits.patience_seconds)
        except TimeoutError as error:
            raise TooManyError("The server is busy and this request waited in vain.") from error
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()

    @asynccontextmanager
    async def stream(self, address: str) -> AsyncIterator[None]:
        """Hold a place while a stream is open; streams take no place from requests.

        Raises:
            TooManyError: this address, or all together, have as many open as may be.
        """
        mine = self._streams.get(address, 0)
        if mine >= self.limits.streams_per_address or sum(self._streams.values()) >= self.limits.streams:
            raise TooManyError("Too many pages are open.")
        self._streams[address] = mine + 1
        try:
            yield
        finally:
            self._streams[address] -= 1
            if not self._streams[address]:
                del self._streams[address]

    async def _pace(self, address: str) -> None:
        """Let an action wait until its address has a token for it; tokens may be borrowed from the near future."""
        limits, now = self.limits, self.clock()
        bucket = self._buckets.setdefault(address, _Bucket(limits.burst, now))
        self._buckets.move_to_end(address)
        while len(self._buckets) > 1024:
            self._buckets.popitem(last=False)
        bucket.tokens = min(limits.burst, bucket.tokens + (now - bucket.at) * limits.per_second)
        bucket.at = now
        wait = (1 - bucket.tokens) / limits.per_second
        if wait > limits.patience_seconds:
            raise TooManyError("Too many actions at once from one address.")
        bucket.tokens -= 1
        if wait > 0:
            await asyncio.sleep(wait)
