"""Routers in closed form: one forward pass and a linear solve per layer, no gradient through the model.

A router that sends each language group to its experts is a linear classifier of MLP inputs. Found by gradient through
the whole model it takes tens of thousands of steps; solved for, it takes one pass over some thousand tokens.

    route first      `fit_routers` before stage 1: new experts only ever see, and only ever serve, their languages
    local review     `local_review` after stage 1, in place of the papers' gradient review or as its start

This is not in the papers; trials and numbers are in docs/log.md.

The algebra is in `linear_fit`, the pass over the text in `router_statistics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.method.linear_fit import (
    ExpertClass,
    LabelledRows,
    area_under_curve,
    divide_experts,
    fit_rows,
    router_matrix,
    set_router,
)
from lpr_lab.method.router_statistics import GroupSource, RouterStatistics, gather_statistics
from lpr_lab.method.settings import FitSettings
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.adapter_config import MoeLprConfig
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.router import ORIGINAL_EXPERT
from lpr_lab.model.stages import enter_stage, require_newest_stage
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.vocabulary import require_embeddings


@dataclass(frozen=True)
class RouterFit:
    """How well one layer's fitted router tells the languages apart, on documents it was not fitted on.

    Attributes:
        layer: decoder layer index.
        auc: area under the ROC curve, original against expanded, over tokens; 0.5 is chance.
        accuracy: share of tokens whose likeliest class of experts is their language's.
        original_weight_on_original: mean probability of expert 0 on original-language tokens.
        original_weight_on_expanded: the same on tokens of expanded languages that have experts in this layer.
    """

    layer: int
    auc: float
    accuracy: float
    original_weight_on_original: float
    original_weight_on_expanded: float


@dataclass(frozen=True)
class RouterFits:
    """What a fit found, layer by layer, and the statistics it was made from."""

    layers: list[RouterFit]
    statistics: RouterStatistics

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer."""
        return pd.DataFrame([vars(fit) for fit in self.layers])


def fit_routers(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    settings: FitSettings | None = None,
    earlier: RouterStatistics | None = None,
) -> RouterFits:
    """Fit every router before stage 1, so that each language group finds its own experts ("route first").

    Original languages go to expert 0, each expansion's languages to the experts it added. Where a layer has no expert
    for a group, that group goes to expert 0 there. The original languages and the newest group are read by the base
    model (the new experts are still copies of it), earlier groups by the model as it was finished for them.

    Args:
        model: from `upcycle(..., router_bias=True)`; the routers of its newest stage are overwritten.
        tokenizer: the base model's.
        corpus: originals come from its `replay` split, the others from `train`.
        original: languages for expert 0.
        expanded: languages of the newest expansion. Those of earlier ones are known from the adapter.
        settings: solver, amount of text.
        earlier: statistics of all earlier groups, the originals included (`RouterFits.statistics` of their fit). Their
            text is then not read, and `corpus` need not have it.

    Returns:
        One `RouterFit` per mixture layer, measured on documents kept apart, and the statistics.

    Raises:
        UsageError: a router without bias, no language on one side, or `earlier` of other groups.
    """
    require_embeddings(model, tokenizer)
    settings = settings or FitSettings()
    groups = _groups(model, original, expanded, settings)
    config = expansion_config(model)
    config.original = list(original)
    return _fit(model, tokenizer, corpus, groups, [*_finished_stages(config), None], settings, earlier)


def local_review(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    *,
    original: Sequence[str],
    expanded: Sequence[str],
    settings: FitSettings | None = None,
    earlier: RouterStatistics | None = None,
    classifier_layers: Sequence[int] = (),
) -> RouterFits:
    """Fit the routers after stage 1, in a stage of their own: the review without backpropagation.

    As `fit_routers`, but the newest group is read by the model as stage 1 left it, for that is what its tokens meet;
    the original languages by the base, for where all routers are right they meet nothing else. Follow it with `review`
    to have it as the start of the gradient review.

    Args:
        model: after `expand`.
        tokenizer: as in `fit_routers`.
        corpus: as there.
        original: as there.
        expanded: as there.
        settings: as there; by default the routing that stage 1 learned within a group stays (`divide="as_is"`).
        earlier: as there.
        classifier_layers: decoder layers that also get a routing classifier, fitted in the same way.

    Returns:
        As `fit_routers`.

    Raises:
        UsageError: as there, or a layer without experts among `classifier_layers`.
    """
    require_embeddings(model, tokenizer)
    settings = settings or FitSettings(divide="as_is")
    groups = _groups(model, original, expanded, settings)
    enter_stage(model, "local review", classifiers=classifier_layers)
    config = expansion_config(model)
    config.original = list(original)
    after_stage1 = config.stages[-2]["name"]
    return _fit(model, tokenizer, corpus, groups, [*_finished_stages(config), after_stage1], settings, earlier)


def _groups(
    model: PeftModel, original: Sequence[str], expanded: Sequence[str], settings: FitSettings
) -> list[list[str]]:
    """Return all language groups, the original one first, or say what keeps routers from being fitted."""
    require_newest_stage(model)
    config = expansion_config(model)
    if settings.solver != "means" and not config.router_bias:
        raise UsageError("Routers fitted in closed form need a constant: call lpr_lab.upcycle(..., router_bias=True).")
    if not original or not expanded:
        raise UsageError("Fitting routers needs at least one original and one expanded language.")
    groups = [list(original), *config.groups[:-1], list(expanded)]
    nameless = [f"G{number}" for number, group in enumerate(groups) if not group]
    if nameless:
        raise UsageError(f"The adapter does not say which languages {', '.join(nameless)} has; train it first.")
    codes = [code for group in groups for code in group]
    twice = sorted({code for code in codes if codes.count(code) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)} is in more than one language group.")
    return groups


def _finished_stages(config: MoeLprConfig) -> list[str | None]:
    """Return as what the original languages and each earlier group are read: the base, and each group's last stage."""
    newest = len(config.new_experts) - 1
    last = {stage["expansion"]: stage["name"] for stage in config.stages}
    return [None, *(last[expansion] for expansion in range(newest))]


def _fit(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    groups: list[list[str]],
    stages: list[str | None],
    settings: FitSettings,
    earlier: RouterStatistics | None,
) -> RouterFits:
    if earlier is not None and earlier.groups != groups[:-1]:
        raise UsageError(f"The statistics are of the groups {earlier.groups}; expected those of {groups[:-1]}.")
    if earlier is not None and settings.solver == "logistic":
        raise UsageError("Logistic regression needs the text of all groups; use solver='ridge' with kept statistics.")
    splits = ["replay", *["train"] * (len(groups) - 1)]
    sources = [GroupSource(*source) for source in zip(groups, stages, splits, strict=True)]
    statistics = gather_statistics(model, tokenizer, corpus, sources if earlier is None else sources[-1:], settings)
    if earlier is not None:
        statistics = earlier.to(model.device).joined(statistics)
    fits = [_set_routers(layer, statistics, settings) for layer in moe_layers(model)]
    return RouterFits(fits, statistics)


@torch.no_grad()
def _set_routers(layer: MoELayer, statistics: RouterStatistics, settings: FitSettings) -> RouterFit:
    """Fit and set one layer's router, and its classifier if it has one; say how well it does."""
    known = statistics.layers[layer.layer]
    held = LabelledRows.of(known.held)
    classes = divide_experts(layer, statistics.groups, settings.divide)
    start = router_matrix(layer.router)
    solve = partial(fit_rows, known, statistics.groups, solver=settings.solver, penalty=settings.penalty)
    set_router(layer.router, solve(classes, start=start))
    original, *later = statistics.groups
    if layer.classifier is not None:
        sides = [ExpertClass(original, [0]), ExpertClass(list(chain(*later)), [1])]
        set_router(layer.classifier, solve(sides, start=torch.zeros_like(start[:2])))
    logits = held.features @ router_matrix(layer.router).T
    p0 = logits.softmax(-1)[:, ORIGINAL_EXPERT]
    is_original, has_experts = held.is_of(original), ~held.is_of(classes[0].languages)
    served = torch.stack([logits[:, part.experts].logsumexp(-1) for part in classes], dim=1).argmax(1)
    right = torch.stack([held.is_of(part.languages) for part in classes], dim=1).float().argmax(1)
    return RouterFit(
        layer=layer.layer,
        auc=area_under_curve(p0.logit()[is_original | has_experts], is_original[is_original | has_experts]),
        accuracy=float((served == right).float().mean()),
        original_weight_on_original=float(p0[is_original].mean()),
        original_weight_on_expanded=float(p0[has_experts].mean()),
    )
