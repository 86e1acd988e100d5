"""Terms of a stage's loss: the equations of `losses`, each normalised over the tokens of a whole optimiser step.

A term knows how many elements of a step it is a mean over, before any forward pass, and sums over a micro-batch. So
`training` can divide every micro-batch by the same number, and gradients do not depend on how a step is split.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from lpr_lab.errors import UsageError, one_of
from lpr_lab.method.losses import (
    IGNORED,
    classifier_loss,
    expert_counts,
    group_loss,
    load_balancing_loss,
    lpr_layer_weights,
    lpr_loss,
    router_z_loss,
)
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.router import Routing
from lpr_lab.text.blocks import Batch

SCOPES = ("step", "micro_batch")
CLASSIFIERS = ("token", "sequence")


@dataclass(frozen=True)
class Forward:
    """One micro-batch after its forward pass: all that a term is computed from. Letters: B blocks, S, T = B·S, V.

    Attributes:
        batch: its blocks, int64 [B, S] per field (see `text.packing`).
        logits: [B, S, V], or None where no term of the stage reads them (`Term.reads_logits`): then they are never
            made whole.
        routing: layer index -> `Routing` of the T tokens.
        observed: the term's own `observe`, summed over the whole step; None when this is the whole step.
        next_token_nats: the summed next-token loss, where there are no logits.
    """

    batch: Batch
    logits: torch.Tensor | None
    routing: dict[int, Routing]
    observed: torch.Tensor | None = None
    next_token_nats: torch.Tensor | None = None


@dataclass(frozen=True)
class Term:
    """One named part of a stage's loss.

    Attributes:
        name: as it is logged, unweighted.
        coefficient: its weight in the loss.
        count: given a batch on the CPU, how many elements the term is a mean over. It is asked for the whole step
            before any forward pass, so every micro-batch is divided by the same number.
        total: the sum over those elements of one micro-batch, as a scalar with a gradient.
        observe: given a micro-batch and its routing, integers that `total` must know of the whole step, as a flat
            tensor. It costs a forward pass without gradient for every micro-batch of a step that is split.
        unit: what is counted.
        form: which variant of the equation this is, by name.
        reads_logits: whether `total` reads `Forward.logits`. A stage of which one term does makes them whole, which
            takes the most memory of all that a step makes; say False where you don't.
    """

    name: str
    coefficient: float
    count: Callable[[Batch], int]
    total: Callable[[Forward], torch.Tensor]
    observe: Callable[[Batch, dict[int, Routing]], torch.Tensor] | None = None
    unit: str = "tokens"
    form: Mapping[str, str] = field(default_factory=dict)
    reads_logits: bool = True

    def describe(self) -> dict[str, Any]:
        """Return what distinguishes this term from another of its name: the coefficient and the form."""
        return {"coefficient": self.coefficient, **self.form}


EXTRA_TERMS: dict[str, list[Callable[[PeftModel, int], Term]]] = {"expand": [], "review": []}
"""Terms of your own beside those of the papers, by stage: each is made from the expanded model and the number of
original languages, which are the first of the packed blocks."""


def lm_term() -> Term:
    """Next-token loss, mean over all scored tokens of the step."""

    def total(forward: Forward) -> torch.Tensor:
        if forward.next_token_nats is not None:
            return forward.next_token_nats
        assert forward.logits is not None
        targets = forward.batch["targets"].flatten()
        return F.cross_entropy(forward.logits.float().flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum")

    return Term(
        "lm_loss",
        1.0,
        count=lambda batch: int((batch["targets"] != IGNORED).sum()),
        total=total,
        reads_logits=False,
    )


def balance_term(model: nn.Module, coefficient: float, variant: str = "paper", scope: str = "step") -> Term:
    """Load-balancing loss, mean over layers and, in P_i, over the tokens of the step.

    Its `f_i`, the share of tokens that chose expert i, is not differentiated, but it multiplies the gradient of every
    token, so it must be that of the whole step before the first backward pass. When a step is split over micro-batches
    or ranks and some layer has more experts than top-k, each micro-batch is therefore run once more without gradient
    and without the language-model head, for its counts. That makes a step a third longer, or a quarter with activation
    checkpointing (layers as SmolLM2's with 3 new experts each, on a processor). Nothing is run twice when a step is one
    micro-batch, when E = K everywhere (f_i is 1), or when the coefficient is 0.

    Args:
        model: a model with mixture layers.
        coefficient: alpha.
        variant: see `losses.load_balancing_loss`.
        scope: `step`, or `micro_batch`: f_i of each micro-batch by itself, as in the papers' runs. It costs nothing,
            but its gradient depends on how a step is split, and it is biased upwards.

    Raises:
        UsageError: an unknown scope.
    """
    one_of("load_balancing_scope", scope, SCOPES)
    layers = moe_layers(model)
    top_k = layers[0].top_k
    needs_step = scope == "step" and coefficient != 0 and any(layer.num_experts > top_k for layer in layers)

    def observe(batch: Batch, routing: dict[int, Routing]) -> torch.Tensor:
        mask = _is_not_padding(batch)
        return torch.cat([expert_counts(of_layer.router_logits, top_k, mask) for of_layer in routing.values()])

    def total(forward: Forward) -> torch.Tensor:
        mask = _is_not_padding(forward.batch)
        logits = [of_layer.router_logits for of_layer in forward.routing.values()]
        counts: list[torch.Tensor | None] = [None] * len(logits)
        if forward.observed is not None:
            counts = [*forward.observed.split([of_layer.shape[-1] for of_layer in logits])]
        per_layer = [
            load_balancing_loss(of_layer, top_k, mask, variant, of_step)
            for of_layer, of_step in zip(logits, counts, strict=True)
        ]
        return torch.stack(per_layer).mean() * mask.sum()

    return Term(
        "load_balancing_loss",
        coefficient,
        count=_num_tokens,
        total=total,
        observe=observe if needs_step else None,
        form={"variant": variant, "scope": scope},
        reads_logits=False,
    )


def z_term(coefficient: float) -> Term:
    """Router z-loss, mean over layers and tokens."""

    def total(forward: Forward) -> torch.Tensor:
        mask = _is_not_padding(forward.batch)
        per_layer = [router_z_loss(of_layer.router_logits, mask) for of_layer in forward.routing.values()]
        return torch.stack(per_layer).mean() * mask.sum()

    return Term("router_z_loss", coefficient, count=_num_tokens, total=total, reads_logits=False)


def lpr_term(num_original: int, coefficient: float, variant: str = "paper") -> Term:
    """Language-priors routing loss, mean over layers and original-language tokens of the step.

    Args:
        num_original: the first so many languages of the packed blocks are the original ones.
        coefficient: gamma.
        variant: `paper` or `released`, see `losses.lpr_loss` and `losses.lpr_layer_weights`.
    """

    def total(forward: Forward) -> torch.Tensor:
        mask = _is_original(forward.batch, num_original)
        logits = [of_layer.router_logits for of_layer in forward.routing.values()]
        weights = lpr_layer_weights([of_layer.shape[-1] for of_layer in logits], variant)
        per_layer = [
            weight * lpr_loss(of_layer, mask, variant) for of_layer, weight in zip(logits, weights, strict=True)
        ]
        return torch.stack(per_layer).sum() * mask.sum()

    return Term(
        "lpr_loss",
        coefficient,
        count=lambda batch: int(_is_original(batch, num_original).sum()),
        total=total,
        form={"variant": variant},
        reads_logits=False,
    )


def group_term(model: PeftModel, languages: Sequence[str], coefficient: float, variant: str = "paper") -> Term:
    """Loss for earlier language groups, mean over their tokens and the layers in which their group has experts.

    As released, the mean is over all tokens, those of other languages with 0.

    A layer to which a group added no expert says nothing about its tokens, and a group without any expert is left out.

    Args:
        model: the expanded model; its configuration says which group a language belongs to.
        languages: of the packed blocks, in their order.
        coefficient: its weight.
        variant: see `losses.group_loss`.

    Raises:
        UsageError: none of the languages belongs to an earlier group that has experts.
    """
    earlier = expansion_config(model).groups[:-1]
    # Per group: its languages in the packed blocks, and in each layer with experts of its own, which numbers they have.
    members, numbers = [], []
    for expansion, group in enumerate(earlier):
        own = {layer.layer: _experts_of(layer, expansion) for layer in moe_layers(model)}
        own = {layer: experts for layer, experts in own.items() if experts}
        ids = [index for index, language in enumerate(languages) if language in group]
        if ids and own:
            members.append(torch.tensor(ids))
            numbers.append(own)
    if not members:
        raise UsageError(
            f"group_coef = {coefficient}, but none of {', '.join(languages)} is of an earlier group with experts; the "
            f"groups before this one are {earlier}. Replay their languages, or leave group_coef at 0."
        )

    def of_group(batch: Batch, ids: torch.Tensor) -> torch.Tensor:
        return torch.isin(batch["language_id"], ids.to(batch["language_id"].device)).flatten()

    def total(forward: Forward) -> torch.Tensor:
        groups, is_text = [], _is_not_padding(forward.batch)
        for ids, own in zip(members, numbers, strict=True):
            mask = of_group(forward.batch, ids)[is_text]
            per_layer = []
            for layer, experts in own.items():
                logits = forward.routing[layer].router_logits[is_text]
                is_own = torch.zeros_like(logits, dtype=torch.bool)
                is_own[:, experts.start : experts.stop] = True
                per_layer.append(group_loss(logits, is_own, mask, variant))
            groups.append(torch.stack(per_layer).mean() * (len(mask) if variant == "released" else mask.sum()))
        return torch.stack(groups).sum()

    def count(batch: Batch) -> int:
        return _num_tokens(batch) if variant == "released" else sum(int(of_group(batch, ids).sum()) for ids in members)

    return Term(
        "group_loss",
        coefficient,
        count=count,
        total=total,
        form={"variant": variant},
        reads_logits=False,
    )


def _experts_of(layer: MoELayer, expansion: int) -> range:
    """Return the numbers that the experts of one expansion have in a layer; they follow those of earlier ones."""
    counts = [stack.num_experts if (stack := layer.stack_of(number)) else 0 for number in range(expansion + 1)]
    return range(1 + sum(counts[:-1]), 1 + sum(counts))


def classifier_term(num_original: int, coefficient: float, kind: str = "token") -> Term:
    """Routing-classifier loss, mean over the layers that have a classifier and over tokens (or blocks) of the step.

    Args:
        num_original: the first so many languages of the packed blocks are the original ones.
        coefficient: 0.1 in the released scripts.
        kind: `token`, or `sequence` as released: one decision per block, whose label is the group of its first token.

    Raises:
        UsageError: an unknown kind.
    """
    one_of("classifier kind", kind, CLASSIFIERS)
    # What is judged: every token, or the first of each block, which stands for all (their logits are equal).
    judged = slice(None) if kind == "token" else slice(1)

    def count(batch: Batch) -> int:
        return int((batch["language_id"][:, judged] >= 0).sum())

    def total(forward: Forward) -> torch.Tensor:
        batch = {"language_id": forward.batch["language_id"][:, judged]}
        is_original, mask = _is_original(batch, num_original), _is_not_padding(batch)
        shape = forward.batch["language_id"].shape
        per_layer = [
            classifier_loss(of_layer.classifier_logits.view(*shape, 2)[:, judged].flatten(0, 1), is_original, mask)
            for of_layer in forward.routing.values()
            if of_layer.classifier_logits is not None
        ]
        if not per_layer:
            raise UsageError("No layer routes by a classifier, so there is none to train; leave the term out.")
        return torch.stack(per_layer).mean() * mask.sum()

    return Term(
        "classifier_loss",
        coefficient,
        count=count,
        total=total,
        unit="tokens" if kind == "token" else "blocks",
        form={"variant": kind},
        reads_logits=False,
    )


def _is_not_padding(batch: Batch) -> torch.Tensor:
    """Return bool [T], False on padding."""
    return (batch["language_id"] >= 0).flatten()


def _is_original(batch: Batch, num_original: int) -> torch.Tensor:
    """Return bool [T], True on tokens of original languages, the first `num_original` of the packed blocks."""
    return ((batch["language_id"] >= 0) & (batch["language_id"] < num_original)).flatten()


def _num_tokens(batch: Batch) -> int:
    return int(_is_not_padding(batch).sum())
