"""A base in four bits, packed by bitsandbytes; new experts and routers stay as they are and are what learns.

QLoRA's recipe (arXiv 2305.14314) with experts in place of low-rank matrices: the frozen linear maps are stored as NF4,
sixteen levels for each block of 64 weights, and made full again for each product. Expert 0 is the quantised MLP; new
experts start from what its four bits say, so that the upcycled model computes what the quantised base computes.

Works on a processor as on a GPU. Experts are kept in the precision that the base was loaded in. That is float32 unless
somebody says otherwise, because weights in bfloat16 stand still under small steps: at the papers' rate of 0.00005 a
step would move 7 % of the MLP weights of SmolLM2, and none of the others (docs/log.md).
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lpr_lab.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

QUANTIZATIONS = ("nf4",)


def quantization_config(quantization: str, dtype: torch.dtype) -> "BitsAndBytesConfig":
    """Return what transformers loads a base with.

    Args:
        quantization: one of `QUANTIZATIONS`.
        dtype: that products are made in outside autocast.

    Raises:
        UsageError: an unknown name, or bitsandbytes is not installed.
    """
    if quantization not in QUANTIZATIONS:
        raise UsageError(
            f"quantization = {quantization!r}; expected {', '.join(map(repr, QUANTIZATIONS))}, or '' for whole "
            f"weights.{did_you_mean(quantization, QUANTIZATIONS)}"
        )
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            f"quantization = {quantization!r} needs the package bitsandbytes: pip install 'lpr_lab[quantized]'."
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quantization, bnb_4bit_compute_dtype=dtype)


def quantization_of(model: nn.Module) -> str:
    """Return how a model's linear maps are packed (`nf4`, or another kind by its name); empty when they are whole."""
    return next((str(_state(parameter).quant_type) for parameter in model.parameters() if is_packed(parameter)), "")


def is_packed(parameter: torch.Tensor) -> bool:
    """Say whether several numbers share each byte of a parameter."""
    return _state(parameter) is not None


def whole(parameter: torch.Tensor) -> torch.Tensor:
    """Return a parameter's numbers without a gradient: itself, or what its four bits say."""
    if not is_packed(parameter):
        return parameter.detach()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.detach(), _state(parameter))


def count_of(parameter: torch.Tensor) -> int:
    """Return how many numbers a parameter holds; two of them share a byte where it is quantised."""
    return torch.Size(_state(parameter).shape).numel() if is_packed(parameter) else parameter.numel()


def _state(parameter: torch.Tensor) -> Any:
    return getattr(parameter, "quant_state", None)
