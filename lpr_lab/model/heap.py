"""Keeping freed memory for the next step instead of giving it back to the system, on a processor.

A step makes and frees tensors of hundreds of megabytes, the logits above all. The C library gives each of them back at
once, and the system hands the pages out again one by one, zeroed: that is a tenth to a quarter of a step
(docs/performance.md). CUDA has an allocator of its own that keeps what it has.
"""

import ctypes
import sys
from functools import cache

# Of `mallopt`; numbers from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@cache
def keep_freed_memory() -> bool:
    """Let this process keep what it frees, from now on; returns whether it does. Only the GNU C library can be asked.

    The process then stays as large as it was at its largest, until `give_freed_memory_back`.
    """
    libc = _gnu_libc()
    return libc is not None and bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, -1))


def give_freed_memory_back() -> None:
    """Return to the system what is free now; for the end of a long piece of work."""
    libc = _gnu_libc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _gnu_libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
