"""What baselines need of the base that they are made of: a dense model, and modules to replace on its own tensors."""

import copy
from collections.abc import Collection

import torch
from torch import nn
from transformers import PreTrainedModel

from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.model.bases.quantized import quantization_of, use_portable_linear
from lpr_lab.model.mixture import all_layers
from lpr_lab.model.peft import PeftModel


def on_same_weights(model: PreTrainedModel, but: Collection[nn.Parameter] = ()) -> PreTrainedModel:
    """Return a model with modules of its own, which can be replaced, and with the very tensors of the one given.

    Args:
        model: a dense base.
        but: parameters that are to learn, and so are copied.
    """
    copied = {id(parameter) for parameter in but}
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors if id(tensor) not in copied})


def require_dense(model: nn.Module) -> None:
    """Refuse a model that carries an adapter."""
    if isinstance(model, PeftModel) or all_layers(model):
        raise UsageError(
            f"The baselines start from a dense base, and this {type(model).__name__} carries an adapter; load the base "
            "again with lpr_lab.load_base."
        )
    use_portable_linear(model)


def require_unquantized(model: nn.Module, row: str) -> None:
    """Refuse a base in four bits for a baseline, the row, that trains its weights."""
    if quantization_of(model):
        raise UnsupportedModelError(
            f"The base is in four bits ({quantization_of(model)}), and {row} trains its weights, which only whole ones "
            "can do. Load it without quantization, or take lora or lora_moe, which leave it as it is."
        )


def require_float32(model: PreTrainedModel, row: str) -> None:
    """Refuse a base in another precision for a baseline, the row, of which whole modules of the base's kind learn."""
    if model.dtype != torch.float32:
        raise UsageError(
            f"{row} trains whole modules, and those of this base are {model.dtype}, where most small steps are rounded "
            "away. Load it in float32; precision='bf16' makes products in bfloat16."
        )
