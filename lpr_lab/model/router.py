"""The router: which experts see a token, and with what weight.

`router_logits -> softmax over all experts in float32 -> top-k -> divide by the sum of the kept` (paper eq. 1-3).

A router reads the MLP's input x_t. Optionally it also reads the mean of x_1..x_t of the same document, because a
digit or a comma carries no language but what came before it does.

Letters: B batch, S sequence, T = B·S tokens, D model width, E experts, K chosen per token.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

ORIGINAL_EXPERT = 0
"""Index of the expert that is the base model's own, frozen MLP."""


class Routing(NamedTuple):
    """The routing decision for a set of tokens.

    Attributes:
        router_logits: [T, E] float32, before softmax.
        expert_ids: [T, K] int64, chosen experts, best first.
        expert_weights: [T, K], combine weights; they sum to 1 for every token.
    """

    router_logits: torch.Tensor
    expert_ids: torch.Tensor
    expert_weights: torch.Tensor

    def original_weight(self) -> torch.Tensor:
        """Return the combine weight of expert 0 for every token, [T]; 0 where it was not chosen."""
        return (self.expert_weights * (self.expert_ids == ORIGINAL_EXPERT)).sum(-1)


def route(router_logits: torch.Tensor, top_k: int) -> Routing:
    """Choose `top_k` experts per token and give them weights that sum to 1.

    Args:
        router_logits: [T, E].
        top_k: K; a layer with fewer experts uses all it has.

    >>> routing = route(torch.tensor([[2.0, 1.0, -1.0]]), top_k=2)
    >>> routing.expert_ids.tolist(), round(float(routing.expert_weights.sum()), 6)
    ([[0, 1]], 1.0)
    """
    router_probs = router_logits.float().softmax(-1)
    weights, ids = router_probs.topk(min(top_k, router_logits.shape[-1]), dim=-1)
    return Routing(router_logits, ids, weights / weights.sum(-1, keepdim=True))


class Router(nn.Module):
    """A linear router, kept in float32 whatever the model's dtype.

    Args:
        width: D.
        num_experts: E, the original one included.
        uses_mean: also read the causal running mean of the inputs.
        has_bias: give each expert a constant. The papers' router has none; a router fitted in closed form needs one.
        generator: for the Xavier-normal start of the papers.
    """

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        uses_mean: bool = False,
        has_bias: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        options = {"dtype": torch.float32, "device": device}
        self.weight = nn.Parameter(torch.empty(num_experts, width, **options))
        self.mean_weight = nn.Parameter(torch.zeros(num_experts, width, **options)) if uses_mean else None
        self.bias = nn.Parameter(torch.zeros(num_experts, **options)) if has_bias else None
        with torch.no_grad():
            start = nn.init.xavier_normal_(torch.empty(num_experts, width), generator=generator)
            self.weight.copy_(start)

    def forward(self, x: torch.Tensor, running_mean: torch.Tensor | None) -> torch.Tensor:
        """Return router logits [T, E] in float32 for inputs [T, D] and, if this router uses it, their running mean."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight, self.bias)
            if self.mean_weight is not None:
                assert running_mean is not None, "a router that uses the running mean was called without it"
                logits = logits + F.linear(running_mean, self.mean_weight)
        return logits
