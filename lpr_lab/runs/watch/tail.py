"""Reads a `metrics.jsonl` while it is written: only what was appended since the last read, at bounded memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20
_ANCHOR = 96


class Tail:
    """The records appended to a JSONL file since the last read; a line without its end waits for the next one.

    A file that was replaced or cut shorter (a resumed stage moves aside what lies beyond its checkpoint) is read again
    from its start; `starts_over` tells.
    """

    def __init__(self, path: Path):
        self._path = path
        self._offset = 0
        self._anchor = b""  # the last bytes that were read: when they are not there any more, it is another file
        self.starts_over = False

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield what is new, oldest first; lines that are no JSON object are left out."""
        self.starts_over = False
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            if self._offset:
                self._start_over()
            return
        with file:
            file.seek(self._offset - len(self._anchor))
            if file.read(len(self._anchor)) != self._anchor:
                self._start_over()
                file.seek(0)
            rest = b""
            while chunk := file.read(_CHUNK):
                block, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    self._offset += len(block) + 1
                    self._anchor = (self._anchor + block + newline)[-_ANCHOR:]
                    yield from filter(None, map(_record, block.split(b"\n")))

    def _start_over(self) -> None:
        self._offset, self._anchor, self.starts_over = 0, b"", True


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Curve:
    """A growing series of (step, tokens, value), thinned out evenly so that it never holds more than `most` points.

    >>> curve = Curve(most=4)
    >>> for step in range(10):
    ...     curve.append(step, 100 * step, float(step))
    >>> curve.values
    [0.0, 4.0, 8.0, 9.0]
    """

    def __init__(self, most: int = 2000):
        self._most = most
        self._every = 1
        self._count = 0
        self._kept: list[tuple[int, int, float]] = []
        self._last: tuple[int, int, float] | None = None

    def append(self, step: int, tokens: int, value: float) -> None:
        """Add a point."""
        self._last = (step, tokens, value)
        if self._count % self._every == 0:
            if len(self._kept) >= self._most - 1:  # one place is for the newest point, which is always there
                self._kept = self._kept[::2]
                self._every *= 2
            if self._count % self._every == 0:
                self._kept.append(self._last)
        self._count += 1

    @property
    def points(self) -> list[tuple[int, int, float]]:
        """What is kept, the newest point included."""
        if self._last is None or self._kept[-1] == self._last:
            return list(self._kept)
        return [*self._kept, self._last]

    @property
    def values(self) -> list[float]:
        """The values of the points."""
        return [value for _, _, value in self.points]
