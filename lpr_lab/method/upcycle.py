"""Upcycling: each dense MLP becomes a mixture whose expert 0 is that very MLP, frozen, and whose others are copies.

Because all experts are equal at the start and combine weights sum to 1, the upcycled model computes exactly what the
dense model computes, whatever the routers say (MoE-LPR §2.2).
"""

from collections.abc import Sequence

from peft import PeftModel, TaskType
from transformers import PreTrainedModel

from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.method.allocation import Allocation
from lpr_lab.model.adapter import MoeLprConfig, moe_layers, set_trainable, wrap
from lpr_lab.model.families import find_decoder_mlps
from lpr_lab.model.files import base_fingerprint


def upcycle(
    model: PreTrainedModel,
    allocation: Allocation | Sequence[int],
    top_k: int = 2,
    *,
    router_input: str = "token",
    router_bias: bool = False,
    seed: int = 0,
    dispatch: str = "grouped",
) -> PeftModel:
    """Return the model with mixtures of experts in place of its MLPs, as a PEFT adapter on the untouched base.

    Args:
        model: a dense causal LM from `load_base` or `AutoModelForCausalLM.from_pretrained`.
        allocation: new experts per decoder layer; layers with 0 stay dense.
        top_k: experts per token, at least 2.
        router_input: `token`, as in the papers, or `token_and_mean`: also the causal running mean of the document.
        router_bias: give routers a constant per expert; closed-form routers need it (the papers have none).
        seed: for the routers' Xavier-normal start.
        dispatch: `grouped`, or `loop` for the plain form that tests compare with.

    Returns:
        A `peft.PeftModel`, equal to `model` until trained; `save_pretrained(path)` writes only what is new.

    Raises:
        UnsupportedModelError: no MLPs of a known kind, or a model that already is a mixture or carries an adapter.
        UsageError: an allocation of the wrong length, or top_k < 2.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> dense = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        ...     num_attention_heads=4, num_key_value_heads=2, vocab_size=64))
        >>> expanded = upcycle(dense, [1, 2])
        >>> [layer.num_experts for layer in moe_layers(expanded)]
        [2, 3]
    """
    if isinstance(model, PeftModel) or moe_layers(model):
        raise UnsupportedModelError(
            "This model already carries an adapter; expected a dense base model. Load the base again with "
            "lpr_lab.load_base and upcycle that."
        )
    mlps = find_decoder_mlps(model)
    counts = list(
        allocation.new_experts if isinstance(allocation, Allocation) else Allocation(tuple(allocation)).new_experts
    )
    if len(counts) != len(mlps):
        raise UsageError(
            f"The allocation names {len(counts)} layers, but the model has {len(mlps)}. Use one number per layer, "
            f"for example lpr_lab.uniform({len(mlps)})."
        )
    if dispatch not in ("grouped", "loop"):
        raise UsageError(f"dispatch = {dispatch!r}; expected 'grouped' or 'loop'.")
    chosen = [(mlp, count) for mlp, count in zip(mlps, counts, strict=True) if count]
    config = MoeLprConfig(
        task_type=TaskType.CAUSAL_LM,
        layer_paths=[mlp.path for mlp, _ in chosen],
        layer_indices=[mlp.layer for mlp, _ in chosen],
        new_experts=[[count for _, count in chosen]],
        top_k=top_k,
        router_input=router_input,
        router_bias=router_bias,
        base_fingerprint=base_fingerprint(model),
        base_name=model.config.name_or_path or "",
        seed=seed,
        dispatch=dispatch,
    )
    expanded = wrap(model, config)
    set_trainable(expanded, experts=True, routers=True)
    return expanded.train(model.training)


def count_parameters(model: PeftModel) -> dict[str, int]:
    """Return how many parameters the base has, how many are new, and how many a token of the expanded model uses."""
    new = sum(p.numel() for layer in moe_layers(model) for stack in layer.stacks for p in stack.parameters())
    routers = sum(p.numel() for layer in moe_layers(model) for p in layer.router.parameters())
    total = sum(p.numel() for p in model.parameters())
    idle = 0
    for layer in moe_layers(model):
        per_expert = sum(p.numel() for p in layer.stacks[0].parameters()) // layer.stacks[0].num_experts
        idle += per_expert * (layer.num_experts - min(layer.top_k, layer.num_experts))
    return {"base": total - new - routers, "new_experts": new, "routers": routers, "active_per_token": total - idle}
