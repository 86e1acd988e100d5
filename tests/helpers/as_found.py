"""A model and a process as they are found, in plain values that can be compared: what a verb must not change.

before = [model_state(model), process_state()]
...
assert [model_state(model), process_state()] == before
"""

import copy
import os
import random
import signal
import threading
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

_APART = ("_modules", "_parameters", "_disable_adapters", "_is_filled", "stage", "peft_config")
"""Looked at by themselves; what was found out about weights; and what a stage is for, beside its routers."""


def model_state(model: nn.Module) -> dict[str, Any]:
    """Return all of a model that is neither a weight nor what a stage is for, by the path of its part."""
    state: dict[str, Any] = {}
    for path, part in model.named_modules():
        if "moe_lpr_" in path:
            continue
        state |= {f"{path}: {key}": _plain(value) for key, value in vars(part).items() if key not in _APART}
        state[f"{path}: without adapter"] = getattr(part, "_disable_adapters", False)
        if isinstance(part, PreTrainedModel):
            config = copy.deepcopy(part.config.to_dict()) | {"attention": part.config._attn_implementation}
            state |= {f"{path}: config.{key}": value for key, value in config.items()}
    for name, parameter in model.named_parameters():
        if any(mark in name for mark in ("moe_lpr_router", "moe_lpr_classifier")):
            continue
        state[f"{name} is"] = (parameter.requires_grad, parameter.grad is None, parameter.device, parameter.dtype)
        # Attributes that libraries put on tensors, and functions that they hang on them.
        state[f"{name} attributes"] = sorted(vars(parameter)), parameter._backward_hooks
    return state


def process_state() -> dict[str, Any]:
    """Return what the parts of a process share with one another."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": str(np.random.get_state()),  # noqa: NPY002
        "python random": random.getstate(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "environment": dict(os.environ),
        "interface": vars(AttentionInterface)["get_interface"],
        "interfaces": dict(AttentionInterface._global_mapping),
        "threads alive": {thread.name for thread in threading.enumerate() if not thread.daemon},
        "memory mapped": _is_memory_mapped(),
    }


def _is_memory_mapped() -> bool:
    """Say whether a large block is taken from the system anew, as is usual, and not from what was freed (`heap`)."""
    import ctypes
    import sys

    if not sys.platform.startswith("linux"):
        return True

    class Info(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
        _fields_ = [(name, ctypes.c_size_t) for name in names]

    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Info
    before = libc.mallinfo2().hblks
    block = torch.empty(64 * 2**20, dtype=torch.uint8)
    return libc.mallinfo2().hblks == before + len(block[:1])


def _plain(value: Any) -> Any:
    """Return containers as copies, since they are changed in place; functions and objects stay themselves."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(entry) for entry in value]
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return value
