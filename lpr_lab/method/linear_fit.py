"""Linear algebra of closed-form routers: from one layer's moments to the rows of its router.

Each class of experts (those that serve the same languages) gets one row by regression on its languages' tokens; a
scale and a shift per class turn scores into probabilities, fitted on rows that the moments have not seen.

Letters: D model width, U = number of router features (D, or 2D with the running mean, plus 1), E experts of a layer,
C classes, n rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from lpr_lab.method.router_statistics import LayerStatistics
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.router import ORIGINAL_EXPERT, Router

_ORIGINAL_WEIGHT = 2.0
"""How much more an original-language token counts in calibration: sent astray it is forgetting, while a token of an
expanded language that stays with the original expert only misses some gain."""

_CERTAINTY = 0.998
"""What calibration aims at for a token it is sure of; 1 would ask for infinite logits where classes separate."""


class ExpertClass(NamedTuple):
    """Experts of a layer that serve the same languages, and those languages."""

    languages: list[str]
    experts: list[int]


@dataclass(frozen=True)
class LabelledRows:
    """Feature rows [n, U] in float32 with the language of each."""

    features: torch.Tensor
    languages: list[str]
    number: torch.Tensor

    @staticmethod
    def of(rows: dict[str, torch.Tensor]) -> "LabelledRows":
        """Stack the rows of several languages."""
        number = torch.cat([torch.full((len(part),), i, device=part.device) for i, part in enumerate(rows.values())])
        return LabelledRows(torch.cat([part.float() for part in rows.values()]), list(rows), number)

    def is_of(self, languages: Sequence[str]) -> torch.Tensor:
        """Say which rows are of these languages, bool [n]."""
        wanted = [self.languages.index(code) for code in languages]
        return torch.isin(self.number, torch.tensor(wanted, device=self.number.device))


def divide_experts(layer: MoELayer, groups: Sequence[Sequence[str]], divide: str) -> list[ExpertClass]:
    """Return which experts of a layer serve which languages; the class of expert 0 first.

    Args:
        layer: at the stage whose router is fitted.
        groups: languages by group, the original ones first.
        divide: see `FitSettings.divide`.
    """
    served_by_original = list(groups[0])
    classes = []
    first = 1
    for expansion, group in enumerate(groups[1:]):
        stack = layer.stack_of(expansion)
        if stack is None:
            served_by_original += group
            continue
        experts = list(range(first, first + stack.num_experts))
        first += stack.num_experts
        parts = min(len(group), len(experts)) if divide == "languages" else 1
        classes += [ExpertClass(list(group[part::parts]), experts[part::parts]) for part in range(parts)]
    return [ExpertClass(served_by_original, [ORIGINAL_EXPERT]), *classes]


def router_matrix(router: Router) -> torch.Tensor:
    """Return a router's parameters as one matrix [E, U], so that `features @ matrix.T` are its logits."""
    parts: list[torch.Tensor] = [router.weight]
    if router.mean_weight is not None:
        parts.append(router.mean_weight)
    parts.append(torch.zeros_like(router.weight[:, :1]) if router.bias is None else router.bias[:, None])
    return torch.cat(parts, dim=1).detach()


def set_router(router: Router, matrix: torch.Tensor) -> None:
    """Write a matrix [E, U] into a router; its last column into the constants, where there are any."""
    width = router.weight.shape[1]
    router.weight.copy_(matrix[:, :width])
    if router.mean_weight is not None:
        router.mean_weight.copy_(matrix[:, width : 2 * width])
    if router.bias is not None:
        router.bias.copy_(matrix[:, -1])


def fit_rows(
    known: LayerStatistics,
    groups: Sequence[Sequence[str]],
    classes: Sequence[ExpertClass],
    *,
    start: torch.Tensor,
    solver: str,
    penalty: float,
) -> torch.Tensor:
    """Return router rows [E, U] that send the languages of each class to its experts.

    Args:
        known: the layer's statistics.
        groups: languages by group, the original ones first; all groups weigh the same, and all languages in a group.
        classes: experts by the languages they serve; the one of the original expert first.
        start: [E, U], the rows so far: what experts of one class differ by is kept.
        solver: see `FitSettings.solver`.
        penalty: see `FitSettings.penalty`.
    """
    share = {code: 1 / len(group) for group in groups for code in group}
    if solver == "means":
        return _mean_rows(known, classes, share, len(start))
    class_rows = _ridge(known, classes, share, penalty)
    if solver == "logistic":
        class_rows = _logistic(known, classes, share, penalty, class_rows)
    held = LabelledRows.of(known.held)
    rows = torch.zeros(len(start), class_rows.shape[1], dtype=torch.float64, device=class_rows.device)
    # Within a class experts differ as they did; what that adds to the class's logit is taken into the calibration.
    within = torch.zeros(len(held.features), len(classes), dtype=torch.float64, device=class_rows.device)
    for number, part in enumerate(classes):
        own = start[part.experts].to(rows)
        rows[part.experts] = own - own.mean(0)
        within[:, number] = _log_mean_exp(held.features.double() @ rows[part.experts].T)
    scale, shift = _calibrate(held.features.double() @ class_rows.T, within, held, classes, share, groups[0])
    for number, part in enumerate(classes):
        rows[part.experts] += scale[number] * class_rows[number]
        rows[part.experts, -1] += shift[number] - torch.log(torch.tensor(float(len(part.experts)))).item()
    return rows.float()


def _ridge(
    known: LayerStatistics, classes: Sequence[ExpertClass], share: dict[str, float], penalty: float
) -> torch.Tensor:
    """Return [C, U]: least squares to 1 on a class's own tokens and 0 on all others; the constant is free."""
    return torch.linalg.solve(_penalised(known, penalty), _class_sums(known, classes, share).T).T


def _class_sums(known: LayerStatistics, classes: Sequence[ExpertClass], share: dict[str, float]) -> torch.Tensor:
    """Return [C, U]: the mean features of each class's languages, summed by their shares."""
    return torch.stack(
        [torch.stack([share[code] * known.mean[code] for code in part.languages]).sum(0) for part in classes]
    )


def _penalised(known: LayerStatistics, penalty: float) -> torch.Tensor:
    moment = known.second_moment
    ridge = penalty * moment.diagonal()[:-1].mean() * torch.eye(len(moment), device=moment.device)
    ridge[-1, -1] = 1e-9  # the constant is free, up to what keeps the matrix positive
    return moment + ridge.to(moment)


def _logistic(
    known: LayerStatistics,
    classes: Sequence[ExpertClass],
    share: dict[str, float],
    penalty: float,
    start: torch.Tensor,
) -> torch.Tensor:
    """Return [C, U]: multinomial logistic regression on all rows, penalised in the metric of the second moment."""
    rows = LabelledRows.of(known.rows)
    lower = torch.linalg.cholesky(_penalised(known, penalty))
    whitened = torch.linalg.solve_triangular(lower, rows.features.double().T, upper=False).T
    label, weight = _labels(rows, classes, share)

    def loss(theta: torch.Tensor) -> torch.Tensor:
        nats = F.cross_entropy(whitened @ theta.T, label, reduction="none")
        return (weight * nats).sum() + 0.5 * penalty * theta.square().sum()

    theta = _minimise(loss, (start @ lower))
    return torch.linalg.solve_triangular(lower.T, theta.T, upper=True).T


def _mean_rows(
    known: LayerStatistics, classes: Sequence[ExpertClass], share: dict[str, float], num_experts: int
) -> torch.Tensor:
    """Return [E, U]: each class's mean state less that of all, as long as a Xavier-normal row would be."""
    means = _class_sums(known, classes, share)
    means = means / means[:, -1:]  # the last feature is 1, so its sum is the class's whole share
    centre = means.mean(0)
    directions = means - centre
    directions[:, -1] = 0
    length = (2 * directions.shape[1] / (num_experts + directions.shape[1])) ** 0.5
    directions *= length / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
    directions[:, -1] = -(directions @ centre)
    rows = torch.zeros(num_experts, directions.shape[1], dtype=directions.dtype, device=directions.device)
    for number, part in enumerate(classes):
        rows[part.experts] = directions[number]
    return rows.float()


def _calibrate(
    scores: torch.Tensor,
    within: torch.Tensor,
    held: LabelledRows,
    classes: Sequence[ExpertClass],
    share: dict[str, float],
    original: Sequence[str],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift per class, [C] each: softmax(scale · score + shift + within) fits the held rows.

    The original group weighs `_ORIGINAL_WEIGHT` times the others.
    """
    label, weight = _labels(held, classes, share)
    weight = torch.where(held.is_of(original), _ORIGINAL_WEIGHT * weight, weight)
    weight = weight / weight.sum()
    others = (1 - _CERTAINTY) / (len(classes) - 1)
    target = F.one_hot(label, len(classes)).double() * (_CERTAINTY - others) + others

    def loss(theta: torch.Tensor) -> torch.Tensor:
        logits = theta[0] * scores + theta[1] + within
        return -(weight * (target * logits.log_softmax(-1)).sum(-1)).sum() + 5e-7 * theta.square().sum()

    start = torch.zeros(2, len(classes), dtype=torch.float64, device=scores.device)
    scale, shift = _minimise(loss, start)
    return scale, shift


def _labels(
    rows: LabelledRows, classes: Sequence[ExpertClass], share: dict[str, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's class, int64 [n], and weight, [n]: groups weigh the same, whatever rows each language has."""
    label = torch.stack([rows.is_of(part.languages) for part in classes]).int().argmax(0)
    counts = torch.bincount(rows.number, minlength=len(rows.languages)).clamp(min=1)
    per_row = torch.tensor([share[code] for code in rows.languages], dtype=torch.float64, device=counts.device) / counts
    weight = per_row[rows.number]
    return label, weight / weight.sum()


def _minimise(loss: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor) -> torch.Tensor:
    """Return the minimum of a smooth convex function."""
    theta = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=200,
        history_size=20,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(theta)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return theta.detach()


def _log_mean_exp(values: torch.Tensor) -> torch.Tensor:
    return values.logsumexp(-1) - torch.log(torch.tensor(float(values.shape[-1]))).item()


def area_under_curve(scores: torch.Tensor, positive: torch.Tensor) -> float:
    """Return the area under the ROC curve: the chance that a positive scores above a negative."""
    order = scores.argsort()
    ranks = torch.empty_like(order, dtype=torch.float64)
    ranks[order] = torch.arange(1, len(scores) + 1, dtype=torch.float64, device=scores.device)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - num_positive * (num_positive + 1) / 2) / max(num_positive * num_negative, 1))
