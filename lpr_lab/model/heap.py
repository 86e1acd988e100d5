"""Keeping freed memory for the next step instead of giving it back to the system, on a processor.

A step makes and frees tensors of hundreds of megabytes, the logits above all. The C library gives each of them back at
once, and the system hands the pages out again one by one, zeroed: that is a tenth to a quarter of a step
(docs/performance.md). CUDA has an allocator of its own that keeps what it has.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Of `mallopt`: number in malloc.h, its variable in the environment, what it is afterwards, and what keeps memory (None:
# nothing is asked). Whoever sets one ends the library's own adaptation to the sizes it sees; what is set afterwards is
# where that ends, and large blocks go back to the system as before.
_SETTINGS = (
    (-4, "MALLOC_MMAP_MAX_", 65_536, 0),
    (-3, "MALLOC_MMAP_THRESHOLD_", 32 * 2**20, None),
    (-1, "MALLOC_TRIM_THRESHOLD_", 64 * 2**20, -1),
)
_lock = threading.Lock()
_users = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let this process keep what it frees inside the block, and give it back at the end; only under the GNU C library.

    Blocks may be nested, and of several threads: memory is kept as long as one of them lasts.
    """
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(change: int) -> None:
    global _users
    libc = _gnu_libc()
    if libc is None:
        return
    with _lock:
        was_kept, _users = _users > 0, _users + change
        if (_users > 0) != was_kept:
            for number, variable, afterwards, keeping in _SETTINGS:
                value = keeping if _users else _number_in(variable, afterwards)
                if value is not None:
                    libc.mallopt(number, value)
        if not _users:
            libc.malloc_trim(0)


def _number_in(variable: str, otherwise: int) -> int:
    try:
        return int(os.environ.get(variable, otherwise))
    except ValueError:
        return otherwise


@cache
def _gnu_libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
