"""Weights of which only some rows or columns learn; the rest stays bit-identical, whatever the optimizer does.

The chosen rows or columns become a parameter of their own, and the weight is put together at every pass (torch's
parametrization). So what learns is what is counted, has moments and is saved; nothing else can move, not by weight
decay either.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

OUTPUTS, INPUTS = 0, 1
"""Along which dimension of a linear map's weight [out, in] the slices lie: rows, or columns."""


class Slices(nn.Module):
    """Puts learned rows or columns into a frozen weight.

    Attributes:
        learned: the slices, [n, in] or [out, n].
        index: which they are, int64 [n].
    """

    index: torch.Tensor

    def __init__(self, weight: torch.Tensor, index: torch.Tensor, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.learned = nn.Parameter(weight.detach().index_select(dim, index).float().clone())
        self.register_buffer("index", index.clone())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight [out, in] with the learned slices in it."""
        return weight.index_copy(self.dim, self.index, self.learned.to(weight.dtype))


def learn_slices(model: nn.Module, chosen: Mapping[str, tuple[int, torch.Tensor]]) -> None:
    """Freeze the weights that are named and let some of their rows or columns learn.

    Args:
        model: with linear maps.
        chosen: module path -> (`OUTPUTS` or `INPUTS`, which of them, int64 [n]).
    """
    for path, (dim, index) in chosen.items():
        weight = weight_of(model, path).requires_grad_(False)
        slices = Slices(weight, index.to(weight.device), dim)
        # Unsafe spares a pass that would only check that shape and dtype are kept, which they are.
        parametrize.register_parametrization(model.get_submodule(path), "weight", slices, unsafe=True)


def slices_of(model: nn.Module) -> dict[str, Slices]:
    """Return the slices of a model by the path of the map that they belong to."""
    return {
        path.removesuffix(".parametrizations.weight.0"): module
        for path, module in model.named_modules()
        if isinstance(module, Slices)
    }


def weight_of(model: nn.Module, path: str) -> torch.Tensor:
    """Return the weight of one of a model's maps."""
    weight = model.get_submodule(path).weight
    assert isinstance(weight, torch.Tensor)
    return weight
