"""What processors there are to work with, and what they do quickly. Torch-free."""

import os
import platform
from pathlib import Path

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instructions that libraries choose their kernels by."""
_FACTS = Path("/proc/cpuinfo")
_AMD = "AuthenticAMD"


def num_cores() -> int:
    """Return how many processor cores this process may use: those it is bound to, where the system says so."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def processor_name() -> str:
    """Return the processor's model name, or its architecture where the system does not say more."""
    return _fact("model name") or platform.processor() or platform.machine()


def processor_flags() -> dict[str, bool]:
    """Return which of `FLAGS` the processor has; empty where that is not known."""
    found = set((_fact("flags") or _fact("features")).split())
    return {flag: flag in found for flag in FLAGS} if found else {}


def bf16_is_quicker(has_avx512_bf16: bool, has_amx: bool) -> bool:
    """Whether products of matrices in bfloat16 are quicker here than in float32, and not only possible.

    They are with AMX, and with AVX512-BF16 of AMD. Intel's AVX512-BF16 multiplies no more numbers in a cycle than its
    float32 does, and without AMX a training step takes half as long again in bfloat16 (docs/log.md).
    """
    return has_amx or (has_avx512_bf16 and _AMD in (_fact("vendor_id") or platform.processor()))


def _fact(name: str) -> str:
    """Return what Linux says of the first processor by that name; empty where it says nothing."""
    try:
        with _FACTS.open(encoding="utf-8", errors="replace") as lines:  # of the first processor; there may be hundreds
            return next((line.partition(":")[2].strip() for line in lines if line.lower().startswith(name)), "")
    except OSError:
        return ""
