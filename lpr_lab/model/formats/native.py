"""Mixture-of-experts classes of transformers that compute what an expansion computes, and an expansion as one of them.

An expansion of a Llama or a Mistral computes what `MixtralForCausalLM` computes, one of a Qwen2 (Qwen1.5, the papers'
base, is of that class) what `Qwen2MoeForCausalLM` computes, and one of a Qwen3 what `Qwen3MoeForCausalLM` computes: the
same attention, and experts chosen by softmax in float32 -> top-k -> weights that sum to 1.

    stack of ours                     native
    base MLP gate, up [F, D] each     experts.gate_up_proj[0] = gate rows, then up rows [2F, D]
    stack.up[i] [2F, D]               experts.gate_up_proj[1 + i]
    stack.down[i] [D, F]              experts.down_proj[1 + i]
    router.weight [E, D]              gate.weight
    -                                 shared_expert, shared_expert_gate (Qwen2-MoE only): hidden width 1, all zeros

A shared expert of zeros adds exactly 0 to every token.

These classes have one number of experts for all layers. A layer without new experts is copies of its MLP under a router
of zeros: whichever are chosen, their weights sum to 1. Other numbers need padding with experts that are never chosen,
and no row of a linear router scores lowest for every token. `Ernie4_5_MoeForCausalLM` selects by softmax plus a
constant per expert that does not enter the weights: with -2 for padding and 0 for the others (a softmax lies between 0
and 1), padding comes last for every token. Its attention is Llama's with the rotated halves of each head interleaved,
which is an order of rows. Other classes with such a constant (DeepSeek-V3, GLM-4-MoE, dots1 and more) weigh experts by
sigmoids, whose quotients are not ours.

Letters: D model width, F hidden width, E experts of a layer, K chosen per token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeGuard

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import (
    Ernie4_5_MoeConfig,
    Ernie4_5_MoeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lpr_lab.errors import UnsupportedModelError
from lpr_lab.model.adapter_config import PREFIX
from lpr_lab.model.bases.families import find_decoder_mlps, read_mlp
from lpr_lab.model.mixture import MoELayer

KEEP = "Keep the adapter (lpr_lab.save_expansion), which holds everything."
NEVER = -2.0
"""Added to the softmax of a padding expert, for selection alone: below that of every other, which is at least 0."""


@dataclass(frozen=True)
class NativeFormat:
    """A native class: which bases (`model_type`) it can hold an expansion of, and what it can express."""

    families: tuple[str, ...]
    config: type[PretrainedConfig]
    model: type[PreTrainedModel]
    has_dense_layers: bool = False
    shared_expert: bool = False
    selection_bias: bool = False
    """Whether selection has a constant per expert, which rules out padding."""
    interleaved: bool = False
    """Whether the two halves of a head that rotate together lie interleaved."""
    without_effect: Mapping[str, tuple | None] = field(default_factory=dict)
    """Fields of a base's configuration that this class lacks, with the values at which they change nothing (None: any);
    others that it lacks must have their defaults."""


FORMATS = {
    "mixtral": NativeFormat(
        ("llama", "mistral"),
        MixtralConfig,
        MixtralForCausalLM,
        without_effect={"attention_bias": (False,), "mlp_bias": (False,), "pretraining_tp": (None, 0, 1)},
    ),
    "qwen2_moe": NativeFormat(
        ("qwen2",), Qwen2MoeConfig, Qwen2MoeForCausalLM, has_dense_layers=True, shared_expert=True
    ),
    "qwen3_moe": NativeFormat(
        ("qwen3",),
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        has_dense_layers=True,
        without_effect={"max_window_layers": None, "layer_types": None},
    ),
    "ernie4_5_moe": NativeFormat(
        ("llama", "mistral", "qwen2"),
        Ernie4_5_MoeConfig,
        Ernie4_5_MoeForCausalLM,
        selection_bias=True,
        interleaved=True,
        without_effect={
            "attention_bias": None,  # use_bias says it there
            "mlp_bias": (False,),
            "pretraining_tp": (None, 0, 1),
            "sliding_window": (None,),
            # Of Qwen2, read only with use_sliding_window, which is refused.
            "max_window_layers": None,
            "layer_types": None,
        },
    ),
}
"""What an expansion can be written as, by name."""


class Layout(NamedTuple):
    """What every layer of a native mixture has in common.

    Attributes:
        num_experts: E, padding included.
        top_k: K.
        dense: layers that stay plain MLPs.
    """

    num_experts: int
    top_k: int
    dense: list[int]


def is_mixture(layer: nn.Module) -> TypeGuard[MoELayer]:
    """Say whether a decoder layer's feed-forward block has new experts at the selected stage."""
    return isinstance(layer, MoELayer) and bool(layer.stacks)


def plan_layout(layers: list[nn.Module], name: str, stage: str, *, keep_dense: bool = True) -> Layout:
    """Return the experts per layer of a native form, or refuse numbers that it cannot hold exactly.

    Args:
        layers: feed-forward blocks in decoder order, at least one of them a mixture.
        name: of the format.
        stage: name of the selected stage, for the message.
        keep_dense: leave layers without new experts as they are, where the class can.

    Raises:
        UnsupportedModelError: other numbers of experts in a class that cannot rule out padding, or layers that use
            fewer experts than the others.
    """
    counts = [layer.num_experts if is_mixture(layer) else 1 for layer in layers]
    most = max(counts)
    top_k = min(next(layer.top_k for layer in layers if is_mixture(layer)), most)
    several = sorted(set(counts) - {1})
    if len(several) > 1 and not FORMATS[name].selection_bias:
        fitting = _also_of(name)
        raise UnsupportedModelError(
            f"Layers have {', '.join(map(str, several))} experts at the stage {stage!r}, and {name} has one number for "
            f"all and no constant by which padding is never chosen. {fitting}Allocate with "
            f"lpr_lab.uniform({len(layers)}). {KEEP}"
        )
    short = [number for number, count in enumerate(counts) if 1 < count < top_k]
    if short:
        raise UnsupportedModelError(
            f"Layers {short} have fewer experts than top_k = {top_k} and give a token all of them, while {name} "
            f"chooses {top_k} in every layer. Allocate at least {top_k - 1} new experts per layer or none. {KEEP}"
        )
    stays = keep_dense and FORMATS[name].has_dense_layers
    return Layout(most, top_k, [number for number, count in enumerate(counts) if count == 1 and stays])


def _also_of(name: str) -> str:
    """Name the format that can pad and holds the same bases, as advice; empty where there is none."""
    for other, format in FORMATS.items():
        if format.selection_bias and set(FORMATS[name].families) <= set(format.families):
            return f"Use format={other!r}, which has one. "
    return ""


def native_config(base: PreTrainedModel, layout: Layout, name: str) -> PretrainedConfig:
    """Return the native configuration with every field of the base's that it knows.

    Raises:
        UnsupportedModelError: a setting of the base's would be lost.
    """
    native = FORMATS[name]
    known = {*native.config().to_dict(), "head_dim"}  # some classes read it without declaring it
    given = base.config.to_dict()
    for field_name in ("model_type", "architectures", "transformers_version", "_name_or_path", "dtype"):
        given.pop(field_name, None)
    # Qwen3-MoE attends through a window in all layers or in none, and Qwen2-MoE does not tell flash attention of it.
    if given.get("use_sliding_window"):
        raise UnsupportedModelError(
            f"The base attends through a sliding window in some layers (use_sliding_window), which {name} does not "
            f"do in every way that it can be run. {KEEP}"
        )
    if "use_sliding_window" in given and "use_sliding_window" not in known:
        given.pop("sliding_window", None)
    carried = {key: value for key, value in given.items() if key in known}
    defaults = type(
        base.config
    )().to_dict()  # what is not declared there, such as notes of a converter, is read by none
    for key in sorted(set(given) & set(defaults) - set(carried)):
        neutral = native.without_effect.get(key, (defaults[key],))
        if neutral is not None and given[key] not in neutral:
            raise UnsupportedModelError(
                f"The base has {key} = {given[key]!r}, and {name} has no such setting; only "
                f"{' or '.join(map(repr, neutral))} can be exported. {KEEP}"
            )
    return native.config(**{**carried, **_expert_settings(base, layout, native)}, dtype=torch.float32)


def _expert_settings(base: PreTrainedModel, layout: Layout, native: NativeFormat) -> dict[str, object]:
    settings: dict[str, object] = {"num_experts_per_tok": layout.top_k, "num_experts": layout.num_experts}
    if native.has_dense_layers or native.selection_bias:
        settings["moe_intermediate_size"] = base.config.intermediate_size
    if native.has_dense_layers:
        settings |= {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": layout.dense}
    if native.shared_expert:
        settings |= {"shared_expert_intermediate_size": 1, "qkv_bias": True}
    if native.selection_bias:
        has_bias = any(name.endswith("self_attn.q_proj.bias") for name in base.state_dict())
        settings |= {"moe_num_shared_experts": 0, "moe_layer_start_index": 0, "moe_layer_end_index": -1}
        settings |= {"moe_layer_interval": 1, "use_bias": has_bias}
    return settings


@torch.no_grad()
def native_model(
    config: PretrainedConfig, layout: Layout, name: str, base: PreTrainedModel, layers: list[nn.Module]
) -> PreTrainedModel:
    """Build the native model around the base's own tensors; experts, and rows in another order, are copied."""
    format = FORMATS[name]
    state = base_state(base)
    for mlp, layer in zip(find_decoder_mlps(base), layers, strict=True):
        if mlp.layer in layout.dense:
            continue
        for key in [key for key in state if key.startswith(f"{mlp.path}.")]:
            del state[key]
        state |= {f"{mlp.path}.{key}": value for key, value in _expert_tensors(layer, layout, format).items()}
    if format.interleaved:
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for key in state:
            count = heads.get(key.split(".")[-2]) if ".self_attn." in key else None
            state[key] = state[key] if count is None else interleave(state[key], count)
    native = from_state(config, name, state, base.config._attn_implementation)
    native.generation_config = base.generation_config
    nn.Module.to(native, base.device)
    return native


def base_state(base: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the tensors of the base inside an expansion by their names in the plain base; none is copied."""
    return {key.replace(".base_layer.", "."): value for key, value in base.state_dict().items() if PREFIX not in key}


def without_weights(config: PretrainedConfig, name: str, attention: str | None = None) -> PreTrainedModel:
    """Return a native model whose tensors have names and shapes alone."""
    with init_empty_weights(include_buffers=False):  # buffers such as the rotary frequencies are in no state dict
        return FORMATS[name].model._from_config(config, dtype=torch.float32, attn_implementation=attention)


def from_state(
    config: PretrainedConfig, name: str, state: dict[str, torch.Tensor], attention: str | None = None
) -> PreTrainedModel:
    """Return the native model that has exactly these tensors, in evaluation mode; a bias that is missing is zero."""
    native = without_weights(config, name, attention)
    like = state["model.norm.weight"]
    for key, value in native.state_dict().items():
        if key not in state and key.endswith("_proj.bias" if ".self_attn." in key else "lm_head.bias"):
            state[key] = like.new_zeros(value.shape)
    native.load_state_dict(state, strict=True, assign=True)
    native.tie_weights()
    return native.eval()


def _expert_tensors(layer: nn.Module, layout: Layout, format: NativeFormat) -> dict[str, torch.Tensor]:
    """Return what stands in the place of a layer's MLP, padded to E experts, by name below the MLP's."""
    mlp = read_mlp(base_mlp(layer))
    if is_mixture(layer):
        up = torch.cat([mlp.up[None], *(stack.up for stack in layer.stacks)])
        down = torch.cat([mlp.down[None], *(stack.down for stack in layer.stacks)])
        router = layer.router.weight.detach()
    else:
        copies = layout.top_k if format.selection_bias else layout.num_experts
        up, down = mlp.up.repeat(copies, 1, 1), mlp.down.repeat(copies, 1, 1)
        router = mlp.up.new_zeros(copies, mlp.up.shape[1])
    chosen, padding = len(up), layout.num_experts - len(up)
    # Padding scores what expert 0 scores, so that the chosen keep a share of the softmax that no reader rounds to 0.
    tensors = {
        "gate.weight": torch.cat([router, router[:1].expand(padding, -1)]),
        "experts.gate_up_proj": torch.cat([up, up.new_zeros(padding, *up.shape[1:])]),
        "experts.down_proj": torch.cat([down, down.new_zeros(padding, *down.shape[1:])]),
    }
    if format.selection_bias:
        bias = router.new_tensor([[0.0] * chosen + [NEVER] * padding])
        tensors["gate.moe_statics.e_score_correction_bias"] = bias
    if format.shared_expert:
        nothing = router.new_zeros(1, router.shape[-1])
        for key in ("shared_expert.gate_proj", "shared_expert.up_proj", "shared_expert_gate"):
            tensors[f"{key}.weight"] = nothing.clone()
        tensors["shared_expert.down_proj.weight"] = nothing.T.clone()
    return tensors


def base_mlp(layer: nn.Module) -> nn.Module:
    """Return a decoder layer's own MLP."""
    return layer.base_layer if isinstance(layer, MoELayer) else layer


def interleave(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Put the rows of each head whose coordinates rotate together side by side: halves (a b, c d) -> (a c, b d).

    >>> interleave(torch.tensor([0, 1, 2, 3]), num_heads=1).tolist()
    [0, 2, 1, 3]
    """
    return rows.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def in_halves(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Undo `interleave`.

    >>> in_halves(torch.tensor([0, 2, 1, 3]), num_heads=1).tolist()
    [0, 1, 2, 3]
    """
    return rows.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()
