"""What a real model's step depends on: its sizes, and the experts that its tokens visit.

The equations are the library's, `lpr_lab.method.costs.operations`; they are the bound that measured steps are compared
with.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from lpr_lab.method.costs.operations import Sizes, dense_step, expand_step, forward, review_step
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.capture import causal_lm_of, record_routing

__all__ = ["Sizes", "dense_step", "expand_step", "forward", "review_step", "sizes", "visits"]


def sizes(model: PreTrainedModel, block_tokens: int) -> Sizes:
    """Count a dense model's."""
    config = model.config.get_text_config()
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    feed_forward = sum(p.numel() for mlp in find_decoder_mlps(model) for p in mlp.module.parameters())
    heads = config.num_attention_heads * getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    return Sizes(linear, feed_forward, 4.0 * config.num_hidden_layers * block_tokens * heads)


def visits(model: nn.Module, input_ids: torch.Tensor) -> tuple[float, float]:
    """Return (experts a token visits, of them new ones), averaged over decoder layers; a dense layer counts 1 and 0."""
    with torch.no_grad(), record_routing(model) as record:
        model(input_ids=input_ids, use_cache=False)
    depth = len(find_decoder_mlps(causal_lm_of(model)))
    routed = [record.routing[layer.layer].expert_ids for layer in moe_layers(model)]
    chosen = sum(ids.shape[-1] for ids in routed)
    new = sum(float((ids != 0).float().sum(-1).mean()) for ids in routed)
    return (chosen + depth - len(routed)) / depth, new / depth
