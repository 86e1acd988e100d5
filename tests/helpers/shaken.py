"""Expansions whose experts and routers are away from their start, and token ids to give them."""

import torch

from lpr_lab.model.adapter import moe_layers


def shake(model, seed=0):
    """Move new experts and routers away from their start, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for layer in moe_layers(model):
        for parameter in [*layer.router.parameters(), *(p for stack in layer.stacks for p in stack.parameters())]:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def ids_of(model, batch=2, length=24, seed=1):
    """Return random token ids [batch, length] of the model's vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, model.config.vocab_size, (batch, length), generator=generator)
