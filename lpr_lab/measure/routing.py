"""Traces the routing of one text, token by token; for whole test sets see `expert_counts`.

Letters: L layers with a router, T tokens, E experts, K chosen per token.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.capture import record_routing
from lpr_lab.model.forward import inference
from lpr_lab.model.head import next_token_losses, rows_at_once
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage, stage_names, use_stage
from lpr_lab.model.steering import steer
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import NO_TARGET, separator_token_id
from lpr_lab.text.unicode import check_text
from lpr_lab.text.vocabulary import require_embeddings


def original_weight_by_language(load: pd.DataFrame) -> pd.DataFrame:
    """Return the mean weight of expert 0 over all layers per language and data set: 1 is entirely the base model."""
    original = load.loc[load["expert"] == 0]
    means = original.groupby(["dataset", "role", "language"], sort=False, as_index=False).agg({"mass": "mean"})
    return pd.DataFrame(means).rename(columns={"mass": "original_weight"})


def ids_of_text(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[list[int], list[bytes | None]]:
    """Return a text's vocabulary ids, the separator of training before them, and the bytes that each stands for.

    Raises:
        UsageError: empty text, half of a character, a token without an embedding, or more tokens than the context.
    """
    if not check_text(text).strip():
        raise UsageError("The text is empty; type a sentence in any language.")
    words = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [separator_token_id(tokenizer), *words]
    require_embeddings(model, tokenizer, ids)
    longest = model.config.get_text_config().max_position_embeddings
    if len(ids) > longest:
        raise UsageError(f"The text has {len(ids):,} tokens, more than the model's context of {longest:,}; shorten it.")
    return ids, [None, *token_bytes(tokenizer, words, text)]


def trace(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    language: str | None = None,
    *,
    stages: Sequence[str] | None = None,
    base: bool = True,
) -> RoutingTrace:
    """Trace one text: for every token and layer the chosen experts and their weights, and both models' log-probability.

    The text is read as a document of its own: the separator token of training stands before it.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        text: anything in any script.
        language: ISO 639-1 code, kept with the trace.
        stages: names from `stage_names(model)`, oldest first; the last is the trace itself, the others lie in its
            `stages`. None: the stage in use. One forward pass each.
        base: one more pass for the base model's log-probability.

    Raises:
        UsageError: empty text, half of a character, more tokens than the model's context, or a stage that the model
            does not have.

    Examples:
        >>> result = trace(model, tokenizer, "Καλημέρα, κόσμε.", language="el")  # doctest: +SKIP
        >>> result.original_weight.mean(axis=0)  # doctest: +SKIP
    """
    ids, pieces = ids_of_text(model, tokenizer, text)
    return trace_tokens(model, ids, pieces, text, language, stages=stages, base=base)


def trace_tokens(
    model: PeftModel,
    ids: list[int],
    pieces: list[bytes | None],
    text: str,
    language: str | None = None,
    *,
    stages: Sequence[str] | None = None,
    base: bool = True,
) -> RoutingTrace:
    """Trace tokens as they are, for instance those that a model wrote, which another spelling of the text would change.

    Args:
        model: an expanded model.
        ids: vocabulary ids, the separator first.
        pieces: the bytes each stands for; None for special tokens.
        text: what they spell.
        language: see `trace`.
        stages: the same.
        base: the same.
    """
    tensor = torch.tensor([ids], device=next(model.parameters()).device)
    token_facts = {
        "text": text,
        "language": language,
        "token_ids": ids,
        "token_bytes": pieces,
        "base_log_prob": None,
    }
    if base:
        with inference(model, None), model.disable_adapter():
            token_facts["base_log_prob"] = _log_prob(model, tensor)
    results = [_trace_at(model, tensor, stage, token_facts) for stage in stages or [selected_stage(model)]]
    results[-1].stages = {result.stage: result for result in results[:-1]}
    return results[-1]


def trace_unrouted(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, text: str, language: str | None = None
) -> RoutingTrace:
    """Trace a text with a model that has no layer of experts, such as a baseline: a trace of no layers.

    Its log-probabilities are there, of the model as it stands and of its base.
    """
    ids, pieces = ids_of_text(cast("PeftModel", model), tokenizer, text)
    with inference(model, None):
        log_prob = trace_log_prob(cast("PeftModel", model), ids)
        with cast("PeftModel", model).disable_adapter():
            base_log_prob = trace_log_prob(cast("PeftModel", model), ids)
    nothing, shape = np.zeros(0, np.int64), (0, len(ids))
    return RoutingTrace(
        text=text,
        language=language,
        token_ids=ids,
        token_bytes=pieces,
        layers=nothing,
        num_experts=nothing,
        expert_ids=np.zeros((*shape, 1), np.int64),
        expert_weights=np.zeros((*shape, 1), np.float32),
        original_weight=np.zeros(shape, np.float32),
        log_prob=log_prob,
        base_log_prob=base_log_prob,
    )


def trace_stages(model: PeftModel, tokenizer: PreTrainedTokenizerBase, known: RoutingTrace) -> RoutingTrace:
    """Complete a trace of the newest stage alone with the base model's log-probability and all earlier stages.

    Apart from `trace`, so that a page can draw the first pass before the others are made.
    """
    earlier = [stage for stage in stage_names(model) if stage != known.stage]
    device = next(model.parameters()).device
    with inference(model, None), model.disable_adapter():
        base_log_prob = _log_prob(model, torch.tensor([known.token_ids], device=device))
    stages = {}
    for stage in earlier:
        stages[stage] = trace(model, tokenizer, known.text, known.language, stages=[stage], base=False)
        stages[stage].base_log_prob = base_log_prob
    return replace(known, base_log_prob=base_log_prob, stages=stages)


def trace_changed(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    known: RoutingTrace,
    *,
    force: int | Mapping[int, int] | None = None,
    ban: int | Mapping[int, int | Collection[int]] | None = None,
    scale: tuple[int, float] | Mapping[int, tuple[int, float]] | None = None,
) -> RoutingTrace:
    """Trace a text again with experts forced, banned or scaled (`model.steering.steer`), at the stage it was traced at.

    Args:
        model: the expanded model that `known` is of.
        tokenizer: the base model's.
        known: the trace of the model as it is.
        force: an expert for all layers, or {decoder layer: expert}.
        ban: an expert for all layers, or {decoder layer: expert or experts}.
        scale: (expert, strength) for all layers, or {decoder layer: (expert, strength)}.

    Returns:
        The changed run. Its `base_log_prob` is the log-probability of the model as it is, so that the difference of
        the two is what the change costs.

    Raises:
        UsageError: see `steer`.
    """
    stage = known.stage or selected_stage(model)
    with use_stage(model, stage), steer(model, force=force, ban=ban, scale=scale):
        changed = trace(model, tokenizer, known.text, known.language, stages=[stage], base=False)
    changed.base_log_prob = known.log_prob
    changed.model |= {"changed": True}
    return changed


def trace_log_prob(model: PeftModel, ids: Sequence[int]) -> np.ndarray:
    """Return log p(token | what came before) in nats, float [T], by a model as it stands; NaN for the first token."""
    return _log_prob(model, torch.tensor([list(ids)], device=next(model.parameters()).device))


def _trace_at(model: PeftModel, tensor: torch.Tensor, stage: str, token_facts: dict[str, Any]) -> RoutingTrace:
    with use_stage(model, stage):
        with inference(model, None), record_routing(model) as record:
            log_prob = _log_prob(model, tensor)
            routing = dict(sorted(record.routing.items()))
        num_experts = [layer.num_experts for layer in moe_layers(model)]
    config = expansion_config(model)
    shape = (len(routing), tensor.shape[1])
    top_k = max(r.expert_ids.shape[-1] for r in routing.values())
    expert_ids, expert_weights = np.zeros((*shape, top_k), np.int64), np.zeros((*shape, top_k), np.float32)
    router_probs = np.zeros((*shape, max(num_experts)), np.float32)
    for row, result in enumerate(routing.values()):
        chosen, experts = result.expert_ids.shape[-1], result.router_logits.shape[-1]
        expert_ids[row, :, :chosen] = result.expert_ids.cpu().numpy()
        expert_weights[row, :, :chosen] = result.expert_weights.float().cpu().numpy()
        router_probs[row, :, :experts] = result.router_logits.float().softmax(-1).cpu().numpy()
    return RoutingTrace(
        **token_facts,
        layers=np.array(list(routing)),
        num_experts=np.array(num_experts),
        expert_ids=expert_ids,
        expert_weights=expert_weights,
        original_weight=np.stack([r.original_weight().float().cpu().numpy() for r in routing.values()]),
        router_probs=router_probs,
        log_prob=log_prob,
        model={
            "base": config.base_name,
            "top_k": config.top_k,
            "router_input": config.router_input,
            "stage": stage,
        },
    )


def _log_prob(model: PeftModel, ids: torch.Tensor) -> np.ndarray:
    """Return log p(token | what came before) in nats, float [T], of ids [1, T]; NaN for the first token.

    A long text's logits are made a few rows at a time; a short one's are no more than that.
    """
    targets = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], NO_TARGET)], dim=1)
    is_short = ids.shape[1] <= rows_at_once(model.config.get_text_config().vocab_size, ids.device)
    with next_token_losses(model, whole=is_short):
        losses = model(input_ids=ids, use_cache=False, targets=targets, reduction="none")
    return np.concatenate([[np.nan], -losses[0, :-1].cpu().numpy()])
