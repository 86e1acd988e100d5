"""One expert per layer of an expansion as a plain dense model of the base's own class."""

import copy
from collections.abc import Mapping
from typing import cast

import torch
from accelerate import init_empty_weights
from transformers import PreTrainedModel

from lpr_lab.errors import UnsupportedModelError
from lpr_lab.model.bases.families import MLPWeights, find_decoder_mlps, mlp_state, read_mlp
from lpr_lab.model.bases.quantized import quantization_of
from lpr_lab.model.formats.native import base_mlp, base_state
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.router import ORIGINAL_EXPERT


@torch.no_grad()
def dense_model(model: PeftModel, experts: Mapping[int, int]) -> PreTrainedModel:
    """Build the model that computes what the expansion does where every token goes to these experts.

    Args:
        model: an expanded model, at the stage whose experts are meant.
        experts: decoder layer to expert; the others keep the original one.

    Returns:
        A model of the base's class and precision, in evaluation mode. It shares all tensors with `model` that it can.

    Raises:
        UnsupportedModelError: the base is in four bits.
    """
    if quantization_of(model):
        raise UnsupportedModelError(
            f"The base is in four bits ({quantization_of(model)}), in which experts cannot take the place of its MLPs. "
            "Load the expansion on the whole base: lpr_lab.load_expansion(path, quantization='')."
        )
    base = cast("PreTrainedModel", model.get_base_model())
    state = base_state(base)
    for mlp in find_decoder_mlps(base):
        expert = experts.get(mlp.layer, ORIGINAL_EXPERT)
        if expert == ORIGINAL_EXPERT:
            continue
        own, weights = base_mlp(mlp.module), _expert(cast("MoELayer", mlp.module), expert)
        for name, values in mlp_state(own, weights.up, weights.down, weights.up_bias, weights.down_bias).items():
            state[f"{mlp.path}.{name}"] = values.detach().to(state[f"{mlp.path}.{name}"].dtype).contiguous()
    with init_empty_weights(include_buffers=False):
        dense = type(base)._from_config(
            copy.deepcopy(base.config), dtype=base.dtype, attn_implementation=base.config._attn_implementation
        )
    dense.load_state_dict(state, strict=True, assign=True)
    dense.tie_weights()
    dense.generation_config = base.generation_config
    torch.nn.Module.to(dense, base.device)
    return dense.eval()


def _expert(layer: MoELayer, expert: int) -> MLPWeights:
    """Return a new expert's linear maps in the canonical form."""
    for stack in layer.stacks:
        if expert <= stack.num_experts:
            own = read_mlp(layer.base_layer)
            biases = [None if stacked is None else stacked[expert - 1] for stacked in (stack.up_bias, stack.down_bias)]
            return own._replace(
                up=stack.up[expert - 1], down=stack.down[expert - 1], up_bias=biases[0], down_bias=biases[1]
            )
        expert -= stack.num_experts
    raise IndexError(f"layer {layer.layer} has {layer.num_experts} experts")
