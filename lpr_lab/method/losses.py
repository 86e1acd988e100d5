"""The equations of both stages, as pure functions of tensors.

Stage 1 minimises `lm_loss + load_balancing_coef · mean over layers of load_balancing_loss` (MoE-LPR eq. 4-8), stage 2
`lm_loss + lpr_coef · mean over layers of lpr_loss` (eq. 9-11; `lpr_layer_weights` says which mean), and where layers
have a routing classifier also
`classifier_coef · mean over those layers of classifier_loss` (LayerMoE). When one language group follows another, the
review of lifelong MoE-LPR also has `group_coef · group_loss`.

The released code differs from the papers in a few places; its forms are variants by name, so that published numbers can
be reproduced, and are never the default.

Letters: T tokens, E experts, K chosen per token, V vocabulary.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from lpr_lab.errors import one_of
from lpr_lab.model.router import ORIGINAL_EXPERT

VARIANTS = ("paper", "released")
IGNORED = -100


def lm_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the next-token loss in nats, mean over scored positions.

    Args:
        logits: [T, V].
        targets: int64 [T], the token to predict at each position; -100 is not scored.
    """
    return F.cross_entropy(logits.float(), targets, ignore_index=IGNORED)


def expert_counts(router_logits: torch.Tensor, top_k: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return how many tokens have each expert among their top K, int64 [E]; a layer with E < K chooses all it has.

    Args:
        router_logits: [T, E], before softmax.
        top_k: K.
        mask: bool [T], True on tokens that count; all of them by default.

    >>> expert_counts(torch.tensor([[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]]), top_k=2)
    tensor([1, 2, 1])
    """
    num_experts = router_logits.shape[-1]
    ids = router_logits.float().softmax(-1).topk(min(top_k, num_experts), dim=-1).indices
    chosen = F.one_hot(ids, num_experts).sum(1)
    return (chosen if mask is None else chosen * mask[:, None]).sum(0)


def load_balancing_loss(
    router_logits: torch.Tensor,
    top_k: int,
    mask: torch.Tensor | None = None,
    variant: str = "paper",
    step_counts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return one layer's load-balancing loss: 1 when tokens and probability are spread evenly, whatever E is.

    `sum_i f_i P_i` with `f_i = E/(K T) · #{tokens that chose i}` and `P_i` the mean probability of expert i (MoE-LPR
    eq. 5-7). Only P_i has a gradient. With E = K every expert is always chosen, the loss is constant and has none.

    Args:
        router_logits: [T, E], before softmax.
        top_k: K.
        mask: bool [T], True on tokens that count (not padding); all of them by default.
        variant: `released` omits the 1/K, so it is K at uniform routing, as the authors' code computes it.
        step_counts: [E], the `expert_counts` of the whole step when these tokens are only a part of it. f_i is then
            that of the step, and the losses of the parts, averaged by their numbers of tokens, are the step's.

    Returns:
        A scalar; 0 when no token counts.
    """
    one_of("variant", variant, VARIANTS)
    probs = router_logits.float().softmax(-1)
    num_experts = probs.shape[-1]
    counts = expert_counts(router_logits, top_k, mask) if step_counts is None else step_counts
    # Every token makes K choices, so the counts sum to K T.
    fraction = num_experts * counts / counts.sum().clamp(min=1)
    if variant == "released":
        fraction = fraction * min(top_k, num_experts)
    weight = torch.ones(len(probs), device=probs.device) if mask is None else mask.to(probs.dtype)
    probability = (probs * weight[:, None]).sum(0) / weight.sum().clamp(min=1)
    return (fraction * probability).sum()


def lpr_loss(router_logits: torch.Tensor, is_original: torch.Tensor, variant: str = "paper") -> torch.Tensor:
    """Return one layer's language-priors routing loss: `-log p0`, mean over tokens of original languages.

    It is 0 for a router that sends every original-language token to the original expert, and it asks nothing of
    tokens of expanded languages (MoE-LPR eq. 9-10).

    Args:
        router_logits: [T, E], before softmax.
        is_original: bool [T], True where the token's document is in an original language.
        variant: `released` applies softmax twice, as the authors' code does: its floor is log(1 + (E-1)/e), never 0,
            and its gradient is weakest where routing is most wrong.

    Returns:
        A scalar; 0 (with a zero gradient) when no token is original.

    >>> perfect = torch.tensor([[50.0, 0.0], [0.0, 50.0]])
    >>> round(float(lpr_loss(perfect, torch.tensor([True, False]))), 6)
    0.0
    """
    one_of("variant", variant, VARIANTS)
    scores = router_logits.float()
    if variant == "released":
        scores = scores.softmax(-1)
    penalty = -scores.log_softmax(-1)[:, ORIGINAL_EXPERT]
    is_original = is_original.to(penalty.dtype)
    return (penalty * is_original).sum() / is_original.sum().clamp(min=1)


def lpr_layer_weights(num_experts: Sequence[int], variant: str = "paper") -> list[float]:
    """Return what each layer's `lpr_loss` weighs in the mean over layers; the weights sum to 1.

    Args:
        num_experts: E of every layer that has a router.
        variant: `paper`, all layers alike. `released`: LayerMoE's code (`lpr_loss_func`) takes the mean over layers of
            equally many experts, and then over these groups, so a layer with a rare number of experts weighs more. With
            one number for all layers, as in MoE-LPR, there is no difference.

    >>> lpr_layer_weights([2, 2, 2, 5])
    [0.25, 0.25, 0.25, 0.25]
    >>> [round(weight, 3) for weight in lpr_layer_weights([2, 2, 2, 5], "released")]
    [0.167, 0.167, 0.167, 0.5]
    """
    one_of("variant", variant, VARIANTS)
    if variant == "paper":
        return [1 / len(num_experts)] * len(num_experts)
    sizes = Counter(num_experts)
    return [1 / (len(sizes) * sizes[number]) for number in num_experts]


def group_loss(
    router_logits: torch.Tensor, own_experts: torch.Tensor, mask: torch.Tensor, variant: str = "paper"
) -> torch.Tensor:
    """Return one layer's loss for earlier language groups: `-log P`, mean over their tokens.

    P is the probability that the router gives to the experts of the token's own group, all together. It is 0 for a
    router that sends every such token to them, in whatever proportions, and it asks nothing of other tokens. Lifelong
    MoE-LPR, the baseline in LayerMoE, has it in the review of a further group (`sequential_add_loss` in the code).

    Args:
        router_logits: [T, E], before softmax.
        own_experts: bool [T, E], True on the experts of the token's group.
        mask: bool [T], True on tokens of earlier groups that have experts in this layer.
        variant: `released` is as in the code. A token's part is `-sum of log p_i` over these experts: 0 only where a
            group has a single expert, else lowest (n log n for n experts) when the probability is divided equally among
            them. And the mean is over all T tokens (leave padding out), so it shrinks with the share of earlier groups.

    Returns:
        A scalar; 0 (with a zero gradient) when no token counts.

    >>> own = torch.tensor([[False, True, True], [False, False, False]])
    >>> perfect = torch.tensor([[-50.0, 3.0, 1.0], [0.0, 0.0, 0.0]])
    >>> abs(round(float(group_loss(perfect, own, torch.tensor([True, False]))), 6))
    0.0
    """
    one_of("variant", variant, VARIANTS)
    log_probs = router_logits.float().log_softmax(-1)
    if variant == "released":
        penalty = -log_probs.masked_fill(~own_experts, 0.0).sum(-1)
    else:
        # A token that does not count may own no expert; its row is made harmless before the logarithm, not after.
        penalty = -log_probs.masked_fill(~(own_experts | ~mask[:, None]), -torch.inf).logsumexp(-1)
    weight = mask.to(penalty.dtype)
    num_tokens = torch.ones_like(weight).sum() if variant == "released" else weight.sum()
    return (penalty * weight).sum() / num_tokens.clamp(min=1)


def classifier_loss(
    classifier_logits: torch.Tensor, is_original: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return one layer's routing-classifier loss: cross-entropy of original against expanded, mean over tokens.

    The released code has one decision per packed block instead of one per token (LayerMoE, `classify_loss_func`):
    give it one row per block, with the group of the block's first token.

    Args:
        classifier_logits: [T, 2]; class 0 is original, class 1 expanded.
        is_original: bool [T], True where the token's document is in an original language.
        mask: bool [T], True on tokens that count (not padding); all of them by default.

    Returns:
        A scalar; 0 (with a zero gradient) when no token counts.

    >>> undecided = torch.zeros(4, 2)
    >>> round(float(classifier_loss(undecided, torch.tensor([True, True, False, False]))), 4)  # log 2
    0.6931
    """
    penalty = F.cross_entropy(classifier_logits.float(), (~is_original).long(), reduction="none")
    weight = torch.ones_like(penalty) if mask is None else mask.to(penalty.dtype)
    return (penalty * weight).sum() / weight.sum().clamp(min=1)


def router_z_loss(router_logits: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean squared log-sum-exp of one layer's router logits [T, E], which keeps them from growing."""
    squared = router_logits.float().logsumexp(-1).square()
    if mask is None:
        return squared.mean()
    return (squared * mask).sum() / mask.sum().clamp(min=1)
