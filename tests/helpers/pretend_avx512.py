"""bitsandbytes as it is on a processor with AVX512-BF16, in plain torch, so that any processor can pretend to be one.

After version 0.50's sources. Three things differ there, and each is wrong or rounded for somebody:

- the first forward pass in evaluation repacks the weights and rounds their scales to bfloat16 (bitsandbytes' own code,
  which is Python, and only has to be told that the processor is one);
- products with repacked weights are made in bfloat16, levels and inputs included (`_product_of_repacked`);
- with any AVX512, a row's first scale is looked for at row · (length // 64), wrong where 64 does not divide the length
  (`_dequantize_by_rows`).
"""

import warnings
from contextlib import contextmanager, nullcontext

import bitsandbytes.autograd._functions as products
import torch
from bitsandbytes import functional
from bitsandbytes.nn import modules


@contextmanager
def avx512_bf16(has_it: bool):
    """Have bitsandbytes find such a processor, or none, whatever this one is; layers made inside the block know it."""
    before = modules.has_avx512bf16, functional.gemv_4bit
    library = torch.library.Library("bitsandbytes", "IMPL")
    modules.has_avx512bf16 = lambda: has_it
    assert products.F is functional
    functional.gemv_4bit = _product_of_repacked
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*overridden")  # torch says so of every kernel that is replaced
        library.impl("dequantize_4bit", _dequantize_by_rows if has_it else _dequantize, "CPU", allow_override=True)
    try:
        yield
    finally:
        library._destroy()
        modules.has_avx512bf16, functional.gemv_4bit = before


PROCESSORS = {"without": lambda: avx512_bf16(False), "with": lambda: avx512_bf16(True)}
"""What to run a test on: both kinds, pretended, and this processor as it is where it is of the second kind."""
if functional.has_avx512bf16():
    PROCESSORS["this"] = nullcontext


def _levels(packed: torch.Tensor, quant_type: str) -> torch.Tensor:
    code = functional.get_4bit_type(quant_type, device="cpu")
    packed = packed.reshape(-1).view(torch.uint8).long()
    return code[torch.stack([packed >> 4, packed & 15], -1).reshape(-1)]


def _dequantize(packed, absmax, blocksize, quant_type, shape, dtype):
    levels = _levels(packed, quant_type)[: torch.Size(shape).numel()]
    return (levels * absmax.repeat_interleave(blocksize)[: len(levels)]).view(*shape).to(dtype)


def _dequantize_by_rows(packed, absmax, blocksize, quant_type, shape, dtype):
    rows, columns = shape
    if columns % 16:
        return _dequantize(packed, absmax, blocksize, quant_type, shape, dtype)
    scale = torch.arange(rows)[:, None] * (columns // blocksize) + torch.arange(columns)[None] // blocksize
    return (_levels(packed, quant_type).view(rows, columns) * absmax[scale]).to(dtype)


def _product_of_repacked(x, packed, out=None, transposed_A=False, transposed_B=False, state=None):
    """Compute what the kernel computes: sums of bfloat16 products in float32, block by block, scaled, and rounded."""
    rows, columns = state.shape
    low_and_high = packed.reshape(-1, 32)
    nibbles = torch.cat([low_and_high & 15, low_and_high >> 4], -1).view(rows // 32, columns // 2, 32, 2)
    nibbles = nibbles.transpose(1, 2).reshape(rows, columns // state.blocksize, state.blocksize)
    levels = state.code[nibbles.long()].bfloat16().float()
    blocks = x.bfloat16().float().unflatten(-1, (-1, state.blocksize))
    sums = torch.einsum("...bk,nbk->...nb", blocks, levels)
    return (sums * state.absmax.T.float()).sum(-1).bfloat16().to(x.dtype)
