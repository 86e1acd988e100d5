"""This machine: default device, floating-point precision, and reuse of freed memory on processors."""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import psutil
import torch

from lpr_lab.errors import one_of
from lpr_lab.model.bases.rounding import BASE_DTYPES
from lpr_lab.processors import bf16_is_quicker

PRECISIONS = ("auto", "fp32", "bf16")

# A sum over threads rounds by their number. Until it is set, MKL takes fewer when the machine is busy, and the same
# forward pass gives other numbers; set to what it is, it stays.
torch.set_num_threads(torch.get_num_threads())


def default_device() -> torch.device:
    """Return where models go unless somebody says otherwise: this process's GPU, or the processor.

    Under `torchrun` each process has the GPU of its local rank.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def seed_device(device: torch.device, number: int) -> None:
    """Seed what is drawn on a device; `torch.manual_seed` also asks every other backend, which takes milliseconds."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


def free_memory() -> int:
    """Return how many bytes are free where `default_device` puts models."""
    device = default_device()
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def peak_memory() -> int:
    """Return the most bytes that this process held since it began; on a GPU, that torch held there."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(default_device())
    import resource  # not on Windows

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else 1024 * held


def resolve_precision(precision: str) -> str:
    """Return `bf16` or `fp32` for `auto`: bf16 on GPUs that have it and on processors that are quicker with it.

    bf16 is autocast: weights stay as they are, matrix products are rounded. Processors that only emulate bf16, or have
    it and multiply no faster, are slower with it and stay with fp32 (`processors.bf16_is_quicker`).
    """
    one_of("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if bf16_is_quicker(*_bf16_instructions()) else "fp32"


def _bf16_instructions() -> tuple[bool, bool]:
    """Return whether the processor has AVX512-BF16, and whether it has AMX."""
    return torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported()


_MUCH_SLOWER = 3
"""Times as long the products of a layer take in bf16 as in fp32, from which on other ways are taken for them."""


@cache
def bf16_slowdown() -> float:
    """Return how many times as long a layer's products take here in bf16 as in fp32; measured once, in a moment.

    Both of a step are timed, forward and back to the inputs: one transposes the weights, and without instructions for
    bf16 the two differ by far.
    """
    took = {}
    for dtype in (torch.float32, torch.bfloat16):
        states, weights = torch.ones(64, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        timed = []
        for _ in range(3):  # the quickest: the first one makes its kernel, and others may be at work here
            began = time.perf_counter()
            torch.matmul(torch.nn.functional.linear(states, weights), weights)
            timed.append(time.perf_counter() - began)
        took[dtype] = min(timed)
    return took[torch.bfloat16] / took[torch.float32]


def bf16_is_slow() -> bool:
    """Whether models compute on a processor that has no instructions for bf16.

    Where its instructions cannot be asked for, it is one that takes several times as long in bf16 as in fp32. Asking
    comes first, as it gives every process of a machine the same answer: a run that is taken up again goes on with the
    same products.
    """
    if torch.cuda.is_available():
        return False
    if torch.cpu._is_avx2_supported():
        return not any(_bf16_instructions())
    return bf16_slowdown() >= _MUCH_SLOWER


def resolve_base_dtype(base_dtype: str, precision: str = "auto") -> torch.dtype:
    """Return what to hold a base in: for `auto` the precision that is computed in, bfloat16 or float32.

    A frozen base in bfloat16 takes half the memory and isn't rounded anew at every step; its states between layers are
    bfloat16, too. What learns is float32 in any case. Processors that are no quicker in bf16 keep float32.

    Args:
        base_dtype: `auto`, `float32` or `bfloat16`.
        precision: `auto`, `fp32` or `bf16`, as for `resolve_precision`.

    >>> resolve_base_dtype("auto", "fp32")
    torch.float32
    """
    one_of("base_dtype", base_dtype, BASE_DTYPES)
    if base_dtype == "auto":
        return torch.bfloat16 if resolve_precision(precision) == "bf16" else torch.float32
    return torch.bfloat16 if base_dtype == "bfloat16" else torch.float32


# A step makes and frees tensors of hundreds of megabytes, the logits above all. The C library gives each of them back
# at once, and the system hands the pages out again one by one, zeroed: that is a tenth to a quarter of a step
# (docs/performance.md). CUDA has an allocator of its own that keeps what it has.
#
# Of `mallopt`: number in malloc.h, its variable in the environment, what it is afterwards, and what keeps memory (None:
# nothing is asked). Whoever sets one ends the library's own adaptation to the sizes it sees; what is set afterwards is
# where that ends, and large blocks go back to the system as before.
_MALLOC_SETTINGS = (
    (-4, "MALLOC_MMAP_MAX_", 65_536, 0),
    (-3, "MALLOC_MMAP_THRESHOLD_", 32 * 2**20, None),
    (-1, "MALLOC_TRIM_THRESHOLD_", 64 * 2**20, -1),
)
_malloc_lock = threading.Lock()
_malloc_users = 0


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep freed heap memory in this process for reuse inside the block, under the GNU C library; else do nothing.

    Blocks may be nested, and of several threads: memory is kept as long as one of them lasts.
    """
    _count_user(1)
    try:
        yield
    finally:
        _count_user(-1)


def _count_user(change: int) -> None:
    global _malloc_users
    libc = _gnu_libc()
    if libc is None:
        return
    with _malloc_lock:
        was_kept, _malloc_users = _malloc_users > 0, _malloc_users + change
        if (_malloc_users > 0) != was_kept:
            for number, variable, afterwards, keeping in _MALLOC_SETTINGS:
                value = keeping if _malloc_users else _environment_number(variable, afterwards)
                if value is not None:
                    libc.mallopt(number, value)
        if not _malloc_users:
            libc.malloc_trim(0)


def _environment_number(variable: str, otherwise: int) -> int:
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
