"""The router: which experts see a token, and with what weight.

`router_logits -> softmax over all experts in float32 -> top-k -> divide by the sum of the kept` (paper eq. 1-3).

A router reads the MLP's input x_t. Optionally it also reads the mean of x_1..x_t of the same document, because a
digit or a comma carries no language but what came before it does.

Letters: B batch, S sequence, T = B·S tokens, D model width, E experts, K chosen per token.
"""

from typing import Any, NamedTuple

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
        classifier_logits: [T, 2] float32, original against expanded, where a routing classifier stands before the
            router; tokens it calls original have ids 0 and weights (1, 0, ...).
    """

    router_logits: torch.Tensor
    expert_ids: torch.Tensor
    expert_weights: torch.Tensor
    classifier_logits: torch.Tensor | None = None

    def behind_classifier(self, classifier_logits: torch.Tensor) -> "Routing":
        """Return this routing with the tokens that a classifier calls original at expert 0 alone (LayerMoE, fig. 2)."""
        is_original = classifier_logits.argmax(-1, keepdim=True) == 0
        alone = torch.zeros_like(self.expert_weights)
        alone[:, 0] = 1
        ids = torch.where(is_original, torch.full_like(self.expert_ids, ORIGINAL_EXPERT), self.expert_ids)
        return Routing(self.router_logits, ids, torch.where(is_original, alone, self.expert_weights), classifier_logits)

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

    It holds no numbers (NaN) until `starts` or a file fills it.

    Args:
        width: D.
        num_experts: E, the original one included.
        uses_mean: also read the causal running mean of the inputs.
        has_bias: give each expert a constant. The papers' router has none; a router fitted in closed form needs one.
    """

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        uses_mean: bool = False,
        has_bias: bool = False,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()

        def empty(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, torch.nan, dtype=torch.float32, device=device))

        self.weight = empty(num_experts, width)
        self.mean_weight = empty(num_experts, width) if uses_mean else None
        self.bias = empty(num_experts) if has_bias else None

    def forward(self, x: torch.Tensor, running_mean: torch.Tensor | None) -> torch.Tensor:
        """Return router logits [T, E] in float32 for inputs [T, D] and, if this router uses it, their running mean."""
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.weight, self.bias)
            if self.mean_weight is not None:
                assert running_mean is not None, "a router that uses the running mean was called without it"
                logits = logits + F.linear(running_mean, self.mean_weight)
        return logits


class RoutingClassifier(Router):
    """Stands before a router and sends what it takes for an original language past it (LayerMoE).

    Two scores, original and expanded, from the same input as the router's. `pools_sequence` is the released form: the
    inputs of the whole sequence are summed, future tokens, padding and other documents included, and all its tokens
    get one decision. It is there to reproduce published numbers; in cached generation it sees one token at a time.
    """

    def __init__(self, width: int, *, pools_sequence: bool = False, **options: Any) -> None:
        super().__init__(width, 2, **options)
        self.pools_sequence = pools_sequence

    def classify(self, x: torch.Tensor, running_mean: torch.Tensor | None) -> torch.Tensor:
        """Return logits [T, 2] for inputs [B, S, D] and their running mean [B, S, D]."""
        batch, length, width = x.shape
        if self.pools_sequence:
            pooled = self(x.float().sum(1), None if running_mean is None else running_mean.sum(1))
            return pooled[:, None].expand(batch, length, 2).reshape(-1, 2)
        mean = None if running_mean is None else running_mean.reshape(-1, width)
        return self(x.reshape(-1, width), mean)
