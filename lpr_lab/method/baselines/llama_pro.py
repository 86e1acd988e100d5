"""LLaMA-Pro: a deeper model of which only the new blocks learn."""

import copy
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.method.baselines.base import on_same_weights, require_dense, require_float32, require_unquantized
from lpr_lab.model.bases.families import find_decoder_mlps, read_mlp


@torch.no_grad()
def llama_pro(model: PreTrainedModel, num_blocks: int = 12) -> PreTrainedModel:
    """Return a deeper model of which only the new decoder blocks learn: the row "LLaMA-Pro".

    After every L / num_blocks blocks comes a copy of the last of them whose output projections are zero, so it passes
    on what it gets and the model starts as it was. The paper adds 12 to 24 (2.4B parameters), and 6 or 24 in its
    Figure 5. After Wu et al., arXiv 2401.02415. The result is a plain model of its family: `save_pretrained` and
    `from_pretrained` know it.

    Raises:
        UsageError: a number of blocks that does not divide the number of layers, or a base that is not float32: whole
            blocks learn here, and blocks of another precision cannot stand between those of the base.
        UnsupportedModelError: a family whose blocks do not add the output of `o_proj` and of the MLP as they are, or a
            base in four bits, whose blocks cannot learn.
    """
    require_dense(model)
    require_unquantized(model, "llama_pro")
    require_float32(model, "llama_pro")
    deeper = on_same_weights(model).requires_grad_(False)
    mlps = find_decoder_mlps(deeper)
    if num_blocks < 1 or len(mlps) % num_blocks:
        raise UsageError(
            f"num_blocks = {num_blocks} does not divide the {len(mlps)} layers of {model.config.model_type}; each new "
            "block follows a group of equally many."
        )
    path = mlps[0].path.rpartition(".")[0].rpartition(".")[0]
    blocks = cast("nn.ModuleList", deeper.get_submodule(path))
    config = deeper.config.get_text_config()
    group = len(mlps) // num_blocks
    source = [(layer, added) for layer in range(len(mlps)) for added in (False, True)[: 1 + ((layer + 1) % group == 0)]]
    stack = nn.ModuleList(_identity_block(blocks[layer], config) if added else blocks[layer] for layer, added in source)
    for position, block in enumerate(stack):
        for module in block.modules():
            if hasattr(module, "layer_idx"):  # where its keys and values are in the cache
                cast("Any", module).layer_idx = position
    deeper.set_submodule(path, stack)
    for setting in ("layer_types", "no_rope_layers"):  # those that have one value per layer
        values = getattr(config, setting, None)
        if values:
            setattr(config, setting, [values[layer] for layer, _ in source])
    config.num_hidden_layers = len(source)
    return deeper


def _identity_block(block: nn.Module, config: Any) -> nn.Module:
    """Return a copy of a decoder block that adds nothing to what passes through it, ready to learn."""
    parts = dict(block.named_children())
    attention = parts.get("self_attn")
    if not isinstance(getattr(attention, "o_proj", None), nn.Linear) or "post_feedforward_layernorm" in parts:
        raise UnsupportedModelError(
            f"{type(block).__name__} is not built like Llama's blocks, where the outputs of self_attn.o_proj and of "
            "the MLP are added as they are: with them at zero it would not start as no block at all, or jump at the "
            "first step. Choose a Llama, Mistral, Qwen, Phi-3 or SmolLM3 model."
        )
    added = copy.deepcopy(block, {id(config): config})
    output = cast("nn.Linear", added.get_submodule("self_attn.o_proj"))
    mlp = read_mlp(added.get_submodule("mlp"))
    for tensor in (output.weight, output.bias, mlp.down, mlp.down_bias):
        if tensor is not None:
            tensor.zero_()
    return added.requires_grad_(True)
