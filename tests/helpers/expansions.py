"""Expansions whose experts and routers are no copies of anything, and dense models that show every setting."""

import torch

from lpr_lab.model.stages import set_trainable


@torch.no_grad()
def moved(model):
    """Give new experts and routers numbers of their own."""
    set_trainable(model, experts=True, routers=True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def changed(dense, **settings):
    """Rebuild a tiny model with other settings and weights wide enough to show them."""
    config = type(dense.config)(**{**dense.config.to_dict(), **settings})
    model = type(dense)(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1))
    return model
