"""Fingerprint of a base model: a hash over its tensors, compared whenever an expansion is loaded on it.

New experts and routers mean nothing on another base, and a model made of the two would run and be wrong. So every way
of loading an adapter compares the base in memory with the one the expansion was made on (`check_base`).

There are two hashes, because a base may be loaded in another precision than it was stored in: one over the exact values
and one over the values rounded to bfloat16. A base in bfloat16 is compared by the second, any other by the first.
Hashing SmolLM2 (135M parameters) takes half a second on one core.
"""

import hashlib
from collections.abc import Iterator

import torch
from torch import nn

from lpr_lab.errors import ComparisonRefusedError
from lpr_lab.model.adapter_config import PREFIX, MoeLprConfig
from lpr_lab.model.bases.quantized import is_quantized, quantization_of


def base_fingerprint(model: nn.Module, dtype: torch.dtype = torch.float32) -> str:
    """Return the SHA-256 over a dense model's parameters: names, shapes and values, 64 hex digits.

    Args:
        model: the base; what an expansion put on it is left out.
        dtype: values are converted to it first. float32 holds every bfloat16 and float16 value exactly, so a base that
            was stored in bfloat16 has the same fingerprint whether it is loaded as bfloat16 or as float32.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(_base_parameters(model)):
        values = parameter.detach().to("cpu", dtype).contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _base_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield a base's parameters by the names they have without an expansion."""
    for name, parameter in model.named_parameters():
        if PREFIX not in name:
            yield name.replace(".base_layer.", "."), parameter


def check_base(base: nn.Module, config: MoeLprConfig) -> None:
    """Refuse a base whose tensors are not those the expansion was made on.

    Args:
        base: a dense model, in any floating-point precision.
        config: of the expansion; its two fingerprints are those of the base it was made on.

    Raises:
        ComparisonRefusedError: another base, one quantised otherwise, or one whose weights are not in memory.
    """
    belongs = f"This expansion belongs to the base {config.base_name or '(without a name)'!r}"
    for name, parameter in _base_parameters(base):
        if parameter.is_meta:
            raise ComparisonRefusedError(
                f"{belongs}, and the one loaded cannot be compared with it: {name} is not in memory. Load the base "
                "whole, without offloading to disk."
            )
        if not parameter.is_floating_point() and not is_quantized(parameter):
            raise ComparisonRefusedError(
                f"{belongs}, and the one loaded cannot be compared with it: it is quantised ({name} is "
                f"{parameter.dtype}). Load the base in float32 or bfloat16."
            )
    packed = quantization_of(base)
    if packed != config.base_quantization:
        raise ComparisonRefusedError(
            f"{belongs} {_in_words(config.base_quantization)}, and the one loaded is {_in_words(packed)}. Load it as "
            f"lpr_lab.load_base(…, quantization={config.base_quantization!r}) does."
        )
    is_rounded = any(parameter.dtype == torch.bfloat16 for _, parameter in _base_parameters(base))
    expected = config.base_fingerprint_bfloat16 if is_rounded else config.base_fingerprint
    found = base_fingerprint(base, torch.bfloat16 if is_rounded else torch.float32)
    if found != expected:
        raise ComparisonRefusedError(
            f"{belongs} with fingerprint {expected[:12]}, but another base model is loaded, with fingerprint "
            f"{found[:12]}{' (both of the values rounded to bfloat16)' if is_rounded else ''}. "
            f"{_what_to_do(base, config)}"
        )


def _in_words(quantization: str) -> str:
    return f"quantised as {quantization}" if quantization else "with whole weights"


def _what_to_do(base: nn.Module, config: MoeLprConfig) -> str:
    """Say what to load instead; called when the fingerprints differ already."""
    if any(parameter.dtype == torch.float16 for parameter in base.parameters()):
        return "It is in float16, which rounds otherwise: load the base in float32 or bfloat16."
    if base_fingerprint(base, torch.bfloat16) == config.base_fingerprint_bfloat16:
        return (
            "The two are equal once rounded to bfloat16, and the expansion was made on the rounded one: load with "
            "dtype=torch.bfloat16."
        )
    return "Load the base it names, or open the adapter with lpr_lab.load_expansion, which finds it."
