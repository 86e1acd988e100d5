"""Products of matrices in bfloat16 on processors that have no instructions for them.

There torch multiplies such numbers one by one, which in training takes some fifteen times as long as float32. The
instructions, where there are any, multiply exactly, sum in float32 and round what comes out. So does this: operands are
widened, which loses nothing, multiplied in float32, and the result is rounded.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from lpr_lab.model.machine import bf16_is_slow

_aten = torch.ops.aten

_PRODUCTS = {
    _aten.mm.default: (2, 1),
    _aten.addmm.default: (3, 1),
    _aten.bmm.default: (2, 1),
    _aten.baddbmm.default: (3, 1),
    _aten._grouped_mm.default: (2, 1),
    # Beside them attention has the logarithms of its sums, which are float32 in any case.
    _aten._scaled_dot_product_flash_attention_for_cpu.default: (3, 1),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: (5, 3),
}
"""What multiplies matrices: how many operands of one dtype it begins with, and how many results have that dtype."""

_FEW = 16
"""Rows or columns below which a matrix is as quickly read as widened, such as that of a token that is being written."""


@contextmanager
def quick_bf16_products(model: nn.Module, *, autocast: bool) -> Iterator[None]:
    """Make products of bfloat16 numbers by way of float32 inside the block, where the processor is slow in them.

    Anywhere else, and where there are none, nothing changes. Those of gradients are included where the backward pass is
    made inside the block, too; what was compiled keeps its own.

    Args:
        model: what computes inside the block; it may be held in bfloat16.
        autocast: whether its products are rounded in any case.
    """
    is_wanted = bf16_is_slow() and (autocast or any(one.dtype == torch.bfloat16 for one in model.parameters()))
    with WidenedProducts() if is_wanted else nullcontext():
        yield


class WidenedProducts(TorchDispatchMode):
    """Inside the block, products of bfloat16 matrices that lie on a processor are made in float32 and rounded.

    Attributes:
        any_made: whether there was one.
    """

    any_made = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operands, results = _PRODUCTS.get(func, (0, 0))
        if not operands or not all(map(_is_worth_it, args[:operands])):
            return func(*args, **kwargs)  # also what torch refuses, such as operands of two kinds
        self.any_made = True
        made = func(*map(_widened, args), **{name: _widened(value) for name, value in kwargs.items()})
        if isinstance(made, torch.Tensor):
            return made.bfloat16()
        return (*(one.bfloat16() for one in made[:results]), *made[results:])


def are_widened() -> bool:
    """Whether the block around this call made products of bfloat16 numbers by way of float32."""
    around = _get_current_dispatch_mode_stack()
    return any(isinstance(mode, WidenedProducts) and mode.any_made for mode in around)


def _is_worth_it(operand: torch.Tensor) -> bool:
    is_large = operand.dim() < 2 or min(operand.shape[-2:]) >= _FEW
    return operand.dtype == torch.bfloat16 and operand.device.type == "cpu" and is_large


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value
