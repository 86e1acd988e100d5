"""Routers in closed form: one forward pass and a linear solve per layer, no gradient through the model.

A router that sends original-language tokens to expert 0 and the others to the new experts is a linear classifier of
MLP inputs. Found by gradient through the whole model it takes tens of thousands of steps; found by ridge regression it
takes one pass over some thousand tokens. Fitted before stage 1 ("route first") the new experts only ever see, and
only ever serve, the languages they are for, and there is nothing left to review.

This is not in the papers; trials and numbers are in docs/log.md.

Letters: D model width, U = number of router features (D, or 2D with the running mean, plus 1), E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.expand import pack_by_language
from lpr_lab.method.training import TrainSettings
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.capture import watch_mlp_inputs
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.precision import resolve_precision
from lpr_lab.progress import progress
from lpr_lab.text.corpus import Corpus

_ORIGINAL_WEIGHT = 2.0
"""How much more an original-language token counts in calibration: sent astray it is forgetting, while a token of an
expanded language that stays with the original expert only misses some gain."""

_CERTAINTY = 0.998
"""What calibration aims at for a token it is sure of; 1 would ask for infinite logits where classes separate."""


@dataclass(frozen=True)
class RouterFit:
    """How well one layer's fitted router tells the languages apart, on documents it was not fitted on.

    Attributes:
        layer: decoder layer index.
        auc: area under the ROC curve, original against expanded, over tokens; 0.5 is chance.
        original_weight_on_original: mean probability of expert 0 on original-language tokens.
        original_weight_on_expanded: the same on tokens of expanded languages.
        num_tokens: tokens it was fitted on.
    """

    layer: int
    auc: float
    original_weight_on_original: float
    original_weight_on_expanded: float
    num_tokens: int


class _LayerStatistics:
    """What one layer needs for ridge regression, accumulated batch by batch: u uᵀ and u per class, plus a holdout."""

    def __init__(self, num_features: int, device: torch.device) -> None:
        # Two classes, original and expanded. Summed in double; each batch's products are in single precision.
        self.outer = torch.zeros(2, num_features, num_features, dtype=torch.float64, device=device)
        self.sum = torch.zeros(2, num_features, dtype=torch.float64, device=device)
        self.count = torch.zeros(2, dtype=torch.float64, device=device)
        self.held_features: list[torch.Tensor] = []
        self.held_labels: list[torch.Tensor] = []

    def add(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        for label in range(2):
            rows = features[labels == label]
            self.outer[label] += (rows.T @ rows).double()
            self.sum[label] += rows.sum(0).double()
            self.count[label] += len(rows)

    def hold(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        self.held_features.append(features.half())
        self.held_labels.append(labels)

    def solve(self, ridge: float) -> torch.Tensor:
        """Return the direction [U] that is +1 on original tokens and -1 on expanded ones, classes weighing the same."""
        normal = (self.outer / self.count[:, None, None]).sum(0)
        target = self.sum[0] / self.count[0] - self.sum[1] / self.count[1]
        penalty = ridge * normal.diagonal()[:-1].mean() * torch.eye(len(normal)).to(normal)
        penalty[-1, -1] = 0  # the constant is free
        return torch.linalg.solve(normal + penalty, target).float()


@torch.no_grad()
def fit_routers(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    tokens_per_language: int = 4096,
    ridge: float = 0.01,
    block_tokens: int = 256,
    batch_blocks: int = 4,
    precision: str = "auto",
    seed: int = 0,
) -> list[RouterFit]:
    """Fit every router so that expert 0 gets the original languages and the new experts the expanded ones.

    The base model (adapter off) is run once over `replay` text of the original and `train` text of the expanded
    languages. Per layer, ridge regression finds the direction, and a scale and shift are fitted by logistic
    regression on documents kept apart. Among several new experts the router keeps its random start, so that they
    divide the expanded tokens by a fixed random rule.

    Args:
        model: from `upcycle(..., router_bias=True)`; its routers are overwritten.
        tokenizer: the base model's.
        corpus: with the splits `replay` and `train`.
        original: languages for expert 0.
        expanded: languages for the new experts.
        tokens_per_language: how much text each language contributes; a quarter of it is kept apart.
        ridge: penalty, as a share of the mean diagonal of the feature covariance.
        block_tokens: S of the packed blocks.
        batch_blocks: blocks per forward pass.
        precision: of the pass: auto, fp32 or bf16.
        seed: which documents are drawn.

    Returns:
        One `RouterFit` per mixture layer, measured on the documents kept apart.

    Raises:
        UsageError: a router without bias, or no language on one side.
    """
    layers = {layer.layer: layer for layer in moe_layers(model)}
    if not layers or any(layer.router.bias is None for layer in layers.values()):
        raise UsageError("Routers fitted in closed form need a constant: call lpr_lab.upcycle(..., router_bias=True).")
    if not original or not expanded:
        raise UsageError("fit_routers needs at least one original and one expanded language.")
    splits = dict.fromkeys(original, "replay") | dict.fromkeys(expanded, "train")
    settings = TrainSettings(tokens=tokens_per_language * len(splits), block_tokens=block_tokens, seed=seed)
    packed = pack_by_language(corpus, tokenizer, splits, settings)
    num_blocks = max(tokens_per_language // block_tokens, 4)
    device = next(model.parameters()).device
    statistics: dict[int, _LayerStatistics] = {}
    context = forward_context(model)
    keep_apart = False
    labels = torch.empty(0)

    def see(layer: int, x: torch.Tensor) -> None:
        if layer not in layers:
            return
        # The pass may be in bf16, the normal equations may not: rounded to 8 bits they lose what tells languages apart.
        with torch.autocast(device.type, enabled=False):
            mean = context.running_mean(layer, x) if _uses_mean(layers[layer]) else None
            features = _features(layers[layer], x, mean)
            known = statistics.setdefault(layer, _LayerStatistics(features.shape[1], device))
            spoken = labels >= 0
            (known.hold if keep_apart else known.add)(features[spoken], labels[spoken])

    total = sum(min(num_blocks, len(blocks)) for blocks in packed.values())
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=resolve_precision(precision) == "bf16")
    with watch_mlp_inputs(model, see), model.disable_adapter(), autocast:
        with progress(total * block_tokens, "Fitting routers", "token") as bar:
            for language, blocks in packed.items():
                used = min(num_blocks, len(blocks))
                kept_from = used - max(used // 4, 1)
                for start, end in _batches(kept_from, used, batch_blocks):
                    batch = blocks.select(range(start, end))
                    keep_apart = start >= kept_from
                    labels = _labels(batch, int(language in expanded), blocks.separator_id).to(device)
                    ids, positions = batch["input_ids"].to(device), batch["position_ids"].to(device)
                    model(input_ids=ids, position_ids=positions, use_cache=False)
                    bar.update(ids.numel())
    return [_set_router(layers[index], statistics[index], ridge) for index in sorted(layers)]


def _batches(kept_from: int, end: int, size: int) -> list[tuple[int, int]]:
    """Cut [0, end) into batches of at most `size` blocks, with a cut at `kept_from`."""
    starts = [*range(0, kept_from, size), *range(kept_from, end, size)]
    return [(start, min(start + size, kept_from if start < kept_from else end)) for start in starts]


def _uses_mean(layer: MoELayer) -> bool:
    return layer.router.mean_weight is not None


def _features(layer: MoELayer, x: torch.Tensor, mean: torch.Tensor | None) -> torch.Tensor:
    """Return what the router reads as one row per token, [T, U]: input, running mean if used, and a constant 1."""
    parts = [x.float().flatten(0, 1)]
    if mean is not None:
        parts.append(mean.flatten(0, 1))
    parts.append(torch.ones(len(parts[0]), 1, device=x.device))
    return torch.cat(parts, dim=1)


def _labels(batch: dict[str, torch.Tensor], is_expanded: int, separator_id: int) -> torch.Tensor:
    """Return int64 [T]: 0 original, 1 expanded, -1 padding and separators, which are of no language."""
    labels = torch.full(batch["input_ids"].shape, is_expanded)
    labels[batch["input_ids"] == separator_id] = -1
    labels[batch["language_id"] < 0] = -1
    return labels.flatten()


def _set_router(layer: MoELayer, statistics: _LayerStatistics, ridge: float) -> RouterFit:
    direction = statistics.solve(ridge)
    held = torch.cat(statistics.held_features).float()
    is_original = torch.cat(statistics.held_labels) == 0
    scores = held @ direction
    scale, shift = _calibrate(scores, is_original)
    logit = scale * scores + shift
    router = layer.router
    width = router.weight.shape[1]
    router.weight[0] = scale * direction[:width]
    if router.mean_weight is not None:
        router.mean_weight.zero_()
        router.mean_weight[0] = scale * direction[width : 2 * width]
    assert router.bias is not None
    new_experts = layer.num_experts - 1
    if new_experts == 1:
        router.weight[1] = 0
    # The new experts together weigh as much as one of logit 0, however many they are.
    router.bias.fill_(-torch.log(torch.tensor(float(new_experts))).item())
    router.bias[0] = scale * direction[-1] + shift
    p0 = logit.sigmoid()
    return RouterFit(
        layer=layer.layer,
        auc=_auc(scores, is_original),
        original_weight_on_original=float(p0[is_original].mean()),
        original_weight_on_expanded=float(p0[~is_original].mean()),
        num_tokens=int(statistics.count.sum()),
    )


def _calibrate(scores: torch.Tensor, is_original: torch.Tensor) -> tuple[float, float]:
    """Fit p0 = sigmoid(scale · score + shift) by Newton's method, the original class weighing `_ORIGINAL_WEIGHT`."""
    design = torch.stack([scores.double(), torch.ones_like(scores, dtype=torch.float64)], dim=1)
    target = torch.where(is_original, _CERTAINTY, 1 - _CERTAINTY).double()
    weight = torch.where(is_original, _ORIGINAL_WEIGHT / is_original.sum(), 1 / (~is_original).sum()).double()
    weight = weight / weight.sum()
    theta = torch.zeros(2, dtype=torch.float64, device=scores.device)
    for _ in range(50):
        p = (design @ theta).sigmoid()
        gradient = design.T @ (weight * (p - target))
        hessian = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-6 * torch.eye(2).to(theta)
        step = torch.linalg.solve(hessian, gradient)
        theta = theta - step * min(1.0, 5.0 / float(step.norm().clamp(min=1e-12)))
        if float(step.norm()) < 1e-6:
            break
    return float(theta[0]), float(theta[1])


def _auc(scores: torch.Tensor, positive: torch.Tensor) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative."""
    order = scores.argsort()
    ranks = torch.empty_like(order, dtype=torch.float64)
    ranks[order] = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=scores.device)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - num_positive * (num_positive + 1) / 2) / max(num_positive * num_negative, 1))
