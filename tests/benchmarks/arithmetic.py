"""How many floating-point operations a step takes: the bound that the measured steps are compared with.

Per token, with N the parameters of all matrix products (head included), F those of all feed-forward blocks, A what
attention scores take, `more` the experts a token visits beyond one, averaged over layers, and `new` how many of all
it visits are new ones:

    forward            2 (N + more F) + A
    backward, inputs   the same again
    backward, weights  2 per parameter that learns and was used

Frozen weights have no third part. That is why an expansion of twice the width costs less than twice the step.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.capture import causal_lm_of, record_routing


@dataclass(frozen=True)
class Sizes:
    """What a dense model's arithmetic depends on."""

    matrices: int
    """N: parameters of all matrix products, the head included, whether tied or not."""
    feed_forward: int
    """F: those of all feed-forward blocks."""
    scores: float
    """A: operations of attention scores per token, forward, for blocks of the length that was asked for."""


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


def dense_step(of: Sizes) -> float:
    """Return operations per token of full fine-tuning: 6 N, and the scores three times."""
    return 6.0 * of.matrices + 3 * of.scores


def forward(of: Sizes, visited: float = 1.0) -> float:
    """Return operations per token of a forward pass."""
    return 2.0 * (of.matrices + (visited - 1) * of.feed_forward) + of.scores


def expand_step(of: Sizes, visited: float, new: float) -> float:
    """Return operations per token of stage 1: forward, the way back to the inputs, and the new experts' weights."""
    return 2 * forward(of, visited) + of.scores + 2.0 * new * of.feed_forward


def review_step(of: Sizes, visited: float) -> float:
    """Return operations per token of stage 2: forward and the way back; routers are next to nothing."""
    return 2 * forward(of, visited) + of.scores
