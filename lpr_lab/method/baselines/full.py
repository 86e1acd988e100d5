"""Full fine-tuning, and the way back: every weight learns, and weights between the base's and the tuned ones."""

import copy

import torch
from transformers import PreTrainedModel

from lpr_lab.errors import UsageError
from lpr_lab.method.baselines.base import require_dense, require_unquantized


def full(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of which every weight learns: the row "Full FT" (Tables 1 and 3).

    It takes as much memory again as the model, because nothing of it stays as it was; more if that is in bfloat16.

    Raises:
        UnsupportedModelError: a base in four bits, which cannot learn.
    """
    require_dense(model)
    require_unquantized(model, "full")
    return copy.deepcopy(model).float().requires_grad_(True)


@torch.no_grad()
def interpolate(tuned: PreTrainedModel, base: PreTrainedModel, weight: float = 0.5) -> None:
    """Move a fully tuned model towards its base, in place: base + weight · (tuned - base), tensor by tensor.

    Weight interpolation (WiSE-FT, Wortsman et al., arXiv 2109.01903). It costs nothing, and is a strong way to trade
    what was gained for what was forgotten.

    Args:
        tuned: from `full`, trained.
        base: what it was made of.
        weight: 0 is the base, 1 what was tuned.

    Raises:
        UsageError: a weight outside 0 to 1, or two models of different form.
    """
    if not 0 <= weight <= 1:
        raise UsageError(f"weight = {weight}; expected 0 (the base) to 1 (what was tuned).")
    before, after = dict(base.named_parameters()), dict(tuned.named_parameters())
    if {name: p.shape for name, p in before.items()} != {name: p.shape for name, p in after.items()}:
        raise UsageError("The two models have different weights, so nothing lies between them; expected full(base).")
    for name, parameter in after.items():
        start = before[name].to(parameter.device, parameter.dtype)
        parameter.copy_(torch.lerp(start, parameter, weight))
