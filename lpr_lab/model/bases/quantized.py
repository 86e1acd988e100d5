"""Bases quantised to four bits with bitsandbytes; new experts and routers stay float32 and are trained.

QLoRA's recipe (arXiv 2305.14314) with experts in place of low-rank matrices: the frozen linear maps are stored as NF4,
sixteen levels for each block of 64 weights, and dequantised for each product. Expert 0 is the quantised MLP; new
experts start from its dequantised weights, so that the upcycled model computes what the quantised base computes.

bitsandbytes packs, and computes on GPUs. On a processor the product is made here (`PackedLinear`), because its own
kernels give other results on other processors: with AVX512-BF16 they repack the weights at the first forward pass,
round scales, weights and products to bfloat16 and want output widths that are multiples of 32; with any AVX512 they
take the wrong scale where rows are no multiple of 64 long.

It is imported where four bits are asked for and nowhere else (`import_bitsandbytes`, `without_bitsandbytes`).
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from lpr_lab.errors import UnsupportedModelError, UsageError, one_of

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

QUANTIZATIONS = ("nf4",)

_IMPORTING = threading.RLock()


# -- bitsandbytes, only where it is asked for --------------------------------------------------------------------------


def import_bitsandbytes() -> Any:
    """Import bitsandbytes without letting it look for a kernel on the hub.

    On a processor with AVX512-BF16 it asks the package `kernels`, where that is installed, to fetch one and to run it,
    and warns where it gets none. That kernel is never used here.
    """
    with _IMPORTING, _hide_package("kernels"):
        logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
        logger.addFilter(_is_not_about_kernels)
        try:
            import bitsandbytes
        finally:
            logger.removeFilter(_is_not_about_kernels)
    return bitsandbytes


def _is_not_about_kernels(record: logging.LogRecord) -> bool:
    return "kernels-community" not in str(record.msg)


@contextmanager
def without_bitsandbytes() -> Iterator[None]:
    """Have bitsandbytes count as not installed inside the block, unless it is imported already.

    PEFT imports it wherever it is installed, in its own import and whenever it makes a LoRA.
    """
    if "bitsandbytes" in sys.modules:
        yield
        return
    with _IMPORTING, _hide_package("bitsandbytes"):
        try:
            _clear_peft_cache()
            yield
        finally:
            _clear_peft_cache()


@contextmanager
def _hide_package(package: str) -> Iterator[None]:
    """Let imports of a package say that it is not there, also where another library has imported it already."""
    before = sys.modules.get(package)
    sys.modules[package] = None  # pyright: ignore[reportArgumentType]  # Python's own way of saying so
    try:
        yield
    finally:
        if before is None:
            del sys.modules[package]
        else:
            sys.modules[package] = before


def _clear_peft_cache() -> None:
    """Have PEFT look again whether bitsandbytes is installed: it remembers its first answer."""
    asked = sys.modules.get("peft.import_utils")
    if asked is not None:
        asked.is_bnb_available.cache_clear()
        asked.is_bnb_4bit_available.cache_clear()


def check_quantization(quantization: str) -> None:
    """Refuse what a base cannot be quantised with here, before anything is looked for.

    Args:
        quantization: one of `QUANTIZATIONS`, or empty for whole weights.

    Raises:
        UsageError: an unknown name, or bitsandbytes is not installed.
    """
    if not quantization:
        return
    one_of("quantization", quantization, QUANTIZATIONS, "Leave it empty for weights that are not quantised.")
    if find_spec("bitsandbytes") is None:
        raise UsageError(
            f"quantization = {quantization!r} needs the package bitsandbytes: pip install 'lpr_lab[quantized]'."
        )


def quantization_config(quantization: str, dtype: torch.dtype) -> "BitsAndBytesConfig":
    """Return what transformers loads a base with.

    Args:
        quantization: one of `QUANTIZATIONS`.
        dtype: that products are made in outside autocast.

    Raises:
        UsageError: as `check_quantization`.
    """
    check_quantization(quantization)
    import_bitsandbytes()
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quantization, bnb_4bit_compute_dtype=dtype)


# -- what is packed ----------------------------------------------------------------------------------------------------


def quantization_of(model: nn.Module) -> str:
    """Return how a model's linear maps are packed (`nf4`, or another kind by its name); empty when they are whole."""
    return next((str(_state(parameter).quant_type) for parameter in model.parameters() if is_quantized(parameter)), "")


def is_quantized(parameter: torch.Tensor) -> bool:
    """Say whether a parameter is quantised, two numbers to a byte."""
    return _state(parameter) is not None


def num_values(parameter: torch.Tensor) -> int:
    """Return how many numbers a parameter holds; two of them share a byte where it is quantised."""
    return torch.Size(_state(parameter).shape).numel() if is_quantized(parameter) else parameter.numel()


def dequantized(parameter: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return a parameter dequantised and detached; one that is not quantised comes back as it is.

    Args:
        parameter: quantised or not.
        dtype: of the result where it was quantised; products of level and scale are made in float32 and rounded once.

    Raises:
        UnsupportedModelError: bitsandbytes has repacked it for one kind of processor.
    """
    state = _state(parameter)
    if state is None:
        return parameter.detach()
    _refuse_repacked(state, "this parameter")
    # Each byte holds two levels, the first in its upper half: both are looked up at once, as one number of 64 bits.
    pairs = torch.stack([state.code.repeat_interleave(16), state.code.repeat(16)], dim=-1).float().view(torch.float64)
    packed = parameter.detach().reshape(-1).view(torch.uint8).int()
    count = torch.Size(state.shape).numel()
    levels = pairs.view(-1).index_select(0, packed).view(torch.float32)[:count]
    scales = _scales(state)
    whole_blocks = count // state.blocksize * state.blocksize
    levels[:whole_blocks].view(-1, state.blocksize).mul_(scales[: whole_blocks // state.blocksize, None])
    levels[whole_blocks:].mul_(scales[-1])
    return levels.view(state.shape).to(dtype)


def requantized(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Quantise values as `like` is quantised, and return them dequantised, in float32."""
    state = _state(like)
    functional = import_bitsandbytes().functional
    packed, packed.quant_state = functional.quantize_4bit(
        values.to(state.dtype).contiguous(),
        blocksize=state.blocksize,
        compress_statistics=state.nested,
        quant_type=state.quant_type,
    )
    return dequantized(packed)


def _scales(state: Any) -> torch.Tensor:
    """Return the scale of every block, which may itself be quantised, in eight bits."""
    if not state.nested:
        return state.absmax.float()
    inner = state.state2
    scales = inner.absmax.repeat_interleave(inner.blocksize)[: state.absmax.numel()]
    return inner.code[state.absmax.int()] * scales + state.offset


def _state(parameter: torch.Tensor) -> Any:
    return getattr(parameter, "quant_state", None)


# -- products ----------------------------------------------------------------------------------------------------------


def use_portable_linear(model: nn.Module) -> None:
    """Replace a model's quantised linear maps by ones that give the same results on every processor, in place.

    Args:
        model: a base; one with whole weights stays as it is.

    Raises:
        UnsupportedModelError: bitsandbytes has repacked it for one kind of processor, and rounded it.
    """
    if not quantization_of(model):
        return
    kind: Any = _packed_linear()
    for name, module in model.named_modules():
        if not isinstance(module, kind) and isinstance(module, kind.__base__):
            _refuse_repacked(_state(cast("torch.Tensor", module.weight)), name)
            module.__class__ = kind


def _refuse_repacked(state: Any, what: str) -> None:
    if getattr(state, "packing_format_for_cpu", False):
        raise UnsupportedModelError(
            f"bitsandbytes has repacked {what} for processors with AVX512-BF16, as it does when a model is run in "
            "evaluation there, and rounded its scales to bfloat16. Load the base anew with "
            "lpr_lab.load_base(…, quantization='nf4'), which keeps it as it was packed."
        )


@cache
def _packed_linear() -> type[nn.Linear]:
    """Return the class of packed linear maps that a base has here; bitsandbytes is imported to make it."""
    parent: Any = import_bitsandbytes().nn.Linear4bit

    class PackedLinear(parent):
        """bitsandbytes' linear map in four bits, computed by a plain product on processors."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Return the map of `x` [..., in] -> [..., out], in the dtype of `x`."""
            if x.device.type != "cpu":
                return super().forward(x)
            is_mixed = torch.is_autocast_enabled("cpu")
            dtype = torch.get_autocast_dtype("cpu") if is_mixed else self.compute_dtype or x.dtype
            output = _Product.apply(x.to(dtype), self.weight)
            return (output if self.bias is None else output + self.bias.to(dtype)).to(x.dtype)

    return PackedLinear


class _Product(torch.autograd.Function):
    """A product with a packed matrix [out, in]; the backward pass dequantises again, so that nothing whole is kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        ctx.packed = packed
        return F.linear(x, dequantized(packed, x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grads[0] @ dequantized(ctx.packed, grads[0].dtype), None
