"""Upcycling: each dense MLP becomes a mixture whose expert 0 is that very MLP, frozen, and whose others are copies.

Because all experts are equal at the start and combine weights sum to 1, the upcycled model computes exactly what the
dense model computes, whatever the routers say (MoE-LPR §2.2).

The same verb on an expanded model begins the next expansion: it adds experts for one more language group, and all
earlier experts are frozen (LayerMoE's lifelong setting).
"""

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from transformers import PreTrainedModel

from lpr_lab.errors import UnsupportedModelError, UsageError, one_of
from lpr_lab.method.allocation import Allocation
from lpr_lab.model.adapter import expansion_config, moe_layers, wrap
from lpr_lab.model.adapter_config import PREFIX, MoeLprConfig
from lpr_lab.model.bases.families import find_decoder_mlps, read_mlp
from lpr_lab.model.bases.identity import describe_base, refuse_non_base
from lpr_lab.model.bases.mlp_check import refuse_nonstandard_mlps
from lpr_lab.model.bases.quantized import num_values, use_portable_linear
from lpr_lab.model.init import check_init, init_experts, init_router
from lpr_lab.model.mixture import all_layers
from lpr_lab.model.peft import PeftModel, TaskType
from lpr_lab.model.stages import require_newest_stage, set_trainable, sync_to_config


def upcycle(
    model: PreTrainedModel | PeftModel,
    allocation: Allocation | Sequence[int],
    top_k: int = 2,
    *,
    router_input: str | None = None,
    router_bias: bool | None = None,
    expert_init: str = "copy",
    expert_init_amount: float | None = None,
    router_init: str = "xavier",
    router_rows: str = "append",
    seed: int = 0,
    dispatch: str = "grouped",
) -> PeftModel:
    """Return the model with mixtures of experts in place of its MLPs, as a PEFT adapter on the untouched base.

    Each setting is a keyword, so that a notebook changes one alone; an experiment keeps its own in `UpcycleSettings`.

    Args:
        model: a dense causal LM from `load_base` or `AutoModelForCausalLM.from_pretrained`; or an expanded model, which
            then gets a further expansion, in place.
        allocation: new experts per decoder layer; layers with 0 stay as they are.
        top_k: experts per token, at least 2; the same in every expansion.
        router_input: `token`, as in the papers (the default), or `token_and_mean`: also the causal running mean of the
            document. A further expansion keeps that of the first.
        router_bias: give routers a constant per expert; closed-form routers need it (the papers have none).
        expert_init: `copy` of the base's MLP; `noise` on a copy; `random`, the paper's ablation; `partial`, a share of
            the hidden channels drawn anew (Drop-Upcycling). Only `copy` leaves the model's output unchanged.
        expert_init_amount: relative noise (0.01), or share of channels (0.5).
        router_init: `xavier` (Xavier-normal, the papers) or `zero`. Routers that start from text are a matter of
            `fit_routers`.
        router_rows: in a further expansion, `append` keeps what routers know of earlier experts, `reinit` starts all
            rows anew, as the released code does.
        seed: of everything random here.
        dispatch: `grouped`, or `loop` for the plain form that tests compare with.

    Returns:
        A `peft.PeftModel`, equal to the base until trained; `save_pretrained(path)` writes only what is new. A further
        expansion changes the output at once wherever a router chooses a new expert: those are copies of the base's
        MLP, not of the earlier experts.

    Raises:
        UnsupportedModelError: no MLPs of a known kind, or ones that do more than their maps say; a model that already
            is a mixture or carries another adapter.
        UsageError: an allocation of the wrong length, top_k < 2, or settings that differ from the first expansion's.

    Examples:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> dense = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        ...     num_attention_heads=4, num_key_value_heads=2, vocab_size=64))
        >>> expanded = upcycle(dense, [1, 2])
        >>> [layer.num_experts for layer in moe_layers(expanded)]
        [2, 3]
        >>> expanded = upcycle(expanded, [1, 0])  # a second language group
        >>> [layer.num_experts for layer in moe_layers(expanded)]
        [3, 3]
    """
    check_init(expert_init, expert_init_amount, router_init)
    one_of("router_rows", router_rows, ("append", "reinit"))
    one_of("dispatch", dispatch, ("grouped", "loop"))
    counts = _counts(model, allocation)
    if isinstance(model, PeftModel):
        earlier = expansion_config(model)
        expanded = _add_expansion(model, counts, top_k, router_input, router_bias)
    else:
        earlier = None
        expanded = _first_expansion(model, counts, top_k, router_input or "token", bool(router_bias), dispatch)
    _fill(expanded, earlier, expert_init, expert_init_amount, router_init, router_rows, seed)
    set_trainable(expanded, experts=True, routers=True)
    return expanded.train(model.training)


def _counts(model: PreTrainedModel | PeftModel, allocation: Allocation | Sequence[int]) -> list[int]:
    """Return new experts per decoder layer, or refuse what cannot be upcycled."""
    if isinstance(model, PeftModel):
        if not isinstance(model.peft_config.get(str(model.active_adapter)), MoeLprConfig):
            raise UnsupportedModelError(
                "This model carries an adapter that is not an expansion; expected a dense base model or an expanded "
                "one. Load the base again with lpr_lab.load_base and upcycle that."
            )
        require_newest_stage(model)
        dense = cast("PreTrainedModel", model.get_base_model())
    else:
        dense = model
    refuse_non_base(dense)
    if dense is model and all_layers(model):
        raise UnsupportedModelError(
            "This is the model inside an expansion; pass the PeftModel that lpr_lab.upcycle returned, or load the base "
            "again with lpr_lab.load_base."
        )
    mlps = find_decoder_mlps(dense)
    if not isinstance(allocation, Allocation):
        allocation = Allocation(tuple(allocation))
    if len(allocation.new_experts) != len(mlps):
        raise UsageError(
            f"The allocation names {len(allocation.new_experts)} layers, but the model has {len(mlps)}. Use one number "
            f"per layer, for example lpr_lab.uniform({len(mlps)})."
        )
    return list(allocation.new_experts)


def _first_expansion(
    model: PreTrainedModel, counts: list[int], top_k: int, router_input: str, router_bias: bool, dispatch: str
) -> PeftModel:
    use_portable_linear(model)
    chosen = [(mlp, count) for mlp, count in zip(find_decoder_mlps(model), counts, strict=True) if count]
    refuse_nonstandard_mlps([mlp for mlp, _ in chosen], model.config.model_type)
    config = MoeLprConfig(
        task_type=TaskType.CAUSAL_LM,
        layer_paths=[mlp.path for mlp, _ in chosen],
        layer_indices=[mlp.layer for mlp, _ in chosen],
        new_experts=[[count for _, count in chosen]],
        groups=[[]],
        stages=[{"name": "G1 expand", "expansion": 0, "classifiers": []}],
        top_k=top_k,
        router_input=router_input,
        router_bias=router_bias,
        dispatch=dispatch,
        **describe_base(model),
    )
    return wrap(model, config)


def _add_expansion(
    model: PeftModel, counts: list[int], top_k: int, router_input: str | None, router_bias: bool | None
) -> PeftModel:
    own = expansion_config(model)
    asked = {"top_k": top_k, "router_input": router_input, "router_bias": router_bias}
    for name, value in asked.items():
        if value is not None and value != getattr(own, name):
            raise UsageError(
                f"{name} = {value!r}, but the first expansion of this model has {getattr(own, name)!r}; all expansions "
                "of one model share it."
            )
    mlps = find_decoder_mlps(cast("PreTrainedModel", model.get_base_model()))
    known = dict(zip(own.layer_paths, zip(*own.new_experts, strict=True), strict=True))
    chosen = [(mlp, count) for mlp, count in zip(mlps, counts, strict=True) if count or mlp.path in known]
    none = (0,) * len(own.new_experts)
    config = dataclasses.replace(
        own,
        layer_paths=[mlp.path for mlp, _ in chosen],
        layer_indices=[mlp.layer for mlp, _ in chosen],
        new_experts=[
            *([known.get(mlp.path, none)[group] for mlp, _ in chosen] for group in range(len(own.new_experts))),
            [count for _, count in chosen],
        ],
        groups=[*own.groups, []],
        stages=[
            *own.stages,
            {"name": f"G{len(own.new_experts) + 1} expand", "expansion": len(own.new_experts), "classifiers": []},
        ],
    )
    sync_to_config(model, config)
    return model


@torch.no_grad()
def _fill(
    model: PeftModel,
    earlier: MoeLprConfig | None,
    expert_init: str,
    amount: float | None,
    router_init: str,
    router_rows: str,
    seed: int,
) -> None:
    """Give the newest expansion's experts and routers their start."""
    config = expansion_config(model)
    newest = len(config.new_experts) - 1
    for layer in moe_layers(model):
        generator = torch.Generator().manual_seed((seed * 1_009 + newest) * 1_003 + layer.layer)
        before = layer.router_of(len(earlier.stages) - 1) if earlier and router_rows == "append" else None
        init_router(layer.router, router_init, generator, before)
        stack = layer.stack_of(newest)
        if stack is not None:
            init_experts(stack, read_mlp(layer.base_layer), expert_init, amount, generator)


def count_parameters(model: PeftModel) -> dict[str, int]:
    """Return how many parameters the base has, how many are new, and how many a token of the expanded model uses.

    Counted at the selected stage; `routers` includes routing classifiers.
    """
    base = sum(num_values(parameter) for name, parameter in model.named_parameters() if PREFIX not in name)
    new = routers = idle = 0
    for layer in moe_layers(model):
        experts = sum(p.numel() for stack in layer.stacks for p in stack.parameters())
        new += experts
        routers += sum(p.numel() for part in (layer.router, layer.classifier) if part for p in part.parameters())
        idle += experts // (layer.num_experts - 1) * (layer.num_experts - min(layer.top_k, layer.num_experts))
    return {
        "base": base,
        "new_experts": new,
        "routers": routers,
        "active_per_token": base + new + routers - idle,
    }
