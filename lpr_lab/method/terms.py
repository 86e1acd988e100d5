"""The parts of each stage's loss: the equations of `losses`, over the tokens of a whole optimiser step.

A term knows how many elements of a step it is a mean over, before any forward pass, and sums over a micro-batch. So
`training` can divide every micro-batch by the same number, and gradients do not depend on how a step is split.
"""

import torch
from peft import PeftModel
from torch.nn import functional as F

from lpr_lab.method.losses import IGNORED, load_balancing_loss, lpr_loss, router_z_loss
from lpr_lab.method.training import Batch, Term
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import RoutingRecord


def lm_term() -> Term:
    """Next-token loss, mean over all scored tokens of the step."""
    return Term(
        "lm_loss",
        1.0,
        count=lambda batch: float((batch["targets"] != IGNORED).sum()),
        total=lambda batch, logits, _: F.cross_entropy(
            logits.float().flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORED, reduction="sum"
        ),
    )


def balance_term(model: PeftModel, coefficient: float, variant: str) -> Term:
    """Load-balancing loss, mean over layers; each micro-batch counts by its tokens."""
    top_k = moe_layers(model)[0].top_k

    def total(batch: Batch, logits: torch.Tensor, record: RoutingRecord) -> torch.Tensor:
        mask = (batch["language_id"] >= 0).flatten()
        per_layer = [
            load_balancing_loss(routing.router_logits, top_k, mask, variant) for routing in record.routing.values()
        ]
        return torch.stack(per_layer).mean() * mask.sum()

    return Term("load_balancing_loss", coefficient, count=_num_tokens, total=total)


def z_term(model: PeftModel, coefficient: float) -> Term:
    """Router z-loss, mean over layers and tokens."""

    def total(batch: Batch, logits: torch.Tensor, record: RoutingRecord) -> torch.Tensor:
        mask = (batch["language_id"] >= 0).flatten()
        per_layer = [router_z_loss(routing.router_logits, mask) for routing in record.routing.values()]
        return torch.stack(per_layer).mean() * mask.sum()

    return Term("router_z_loss", coefficient, count=_num_tokens, total=total)


def lpr_term(num_original: int, coefficient: float, variant: str) -> Term:
    """Language-priors routing loss, mean over layers and original-language tokens of the step.

    Args:
        num_original: the first so many languages of the packed blocks are the original ones.
        coefficient: gamma.
        variant: see `losses.lpr_loss`.
    """

    def is_original(batch: Batch) -> torch.Tensor:
        return ((batch["language_id"] >= 0) & (batch["language_id"] < num_original)).flatten()

    def total(batch: Batch, logits: torch.Tensor, record: RoutingRecord) -> torch.Tensor:
        mask = is_original(batch)
        per_layer = [lpr_loss(routing.router_logits, mask, variant) for routing in record.routing.values()]
        return torch.stack(per_layer).mean() * mask.sum()

    return Term("lpr_loss", coefficient, count=lambda batch: float(is_original(batch).sum()), total=total)


def _num_tokens(batch: Batch) -> float:
    return float((batch["language_id"] >= 0).sum())
