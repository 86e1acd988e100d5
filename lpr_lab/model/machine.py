"""What to compute with on this machine: which device, and which floating-point precision."""

import os

import psutil
import torch

from lpr_lab.errors import UsageError

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


def free_memory() -> int:
    """Return how many bytes are free where `default_device` puts models."""
    device = default_device()
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def resolve_precision(precision: str) -> str:
    """Return `bf16` or `fp32` for `auto`: bf16 on GPUs that have it and on processors with native bf16 arithmetic.

    bf16 is autocast: weights stay as they are, matrix products are rounded. Processors that only emulate bf16 are
    slower with it and stay with fp32. Measured numbers are in docs/log.md.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision = {precision!r}; expected one of {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
