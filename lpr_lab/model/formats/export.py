"""Export of an expanded model to a mixture-of-experts class of transformers, where that is exact.

A uniform expansion of a Llama or a Mistral computes what `MixtralForCausalLM` computes, one of a Qwen2 (Qwen1.5, the
papers' base, is of that class) what `Qwen2MoeForCausalLM` computes, and one of a Qwen3 what `Qwen3MoeForCausalLM`
computes: the same attention, and experts chosen by softmax in float32 -> top-k -> weights that sum to 1. What is
written needs neither this library nor PEFT.

    stack of ours                     native
    base MLP gate, up [F, D] each     experts.gate_up_proj[0] = gate rows, then up rows [2F, D]
    stack.up[i] [2F, D]               experts.gate_up_proj[1 + i]
    stack.down[i] [D, F]              experts.down_proj[1 + i]
    router.weight [E, D]              gate.weight
    -                                 shared_expert, shared_expert_gate (Qwen2-MoE only): hidden width 1, all zeros

A shared expert of zeros adds exactly 0 to every token.

Everything a native class has no place for is refused with what can be done instead: this library's own adapter keeps
all of it. Padding layers with experts that are never chosen is not a way out: a native router has no constant per
expert, so no row scores lowest for every token.

Letters: D model width, F hidden width, E experts of a layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard, cast

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lpr_lab import storage
from lpr_lab.errors import UnsupportedModelError, UsageError, one_of
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.adapter_config import PREFIX
from lpr_lab.model.bases.families import find_decoder_mlps, read_mlp
from lpr_lab.model.bases.quantized import quantization_of
from lpr_lab.model.bases.quiet import without_progress_bars
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.rounding import logit_tolerance
from lpr_lab.model.stages import selected_stage
from lpr_lab.text.packing import in_mode


@dataclass(frozen=True)
class _Format:
    """A native class: which bases (`model_type`) it can hold an expansion of, and what it can express."""

    families: tuple[str, ...]
    config: type[PretrainedConfig]
    model: type[PreTrainedModel]
    has_dense_layers: bool = True
    shared_expert: bool = False
    without_effect: Mapping[str, tuple | None] = field(default_factory=dict)
    """Fields of a base's configuration that this class lacks, with the values at which they change nothing (None: any);
    others that it lacks must have their defaults."""


FORMATS = {
    "mixtral": _Format(
        ("llama", "mistral"),
        MixtralConfig,
        MixtralForCausalLM,
        has_dense_layers=False,
        without_effect={"attention_bias": (False,), "mlp_bias": (False,), "pretraining_tp": (None, 0, 1)},
    ),
    "qwen2_moe": _Format(("qwen2",), Qwen2MoeConfig, Qwen2MoeForCausalLM, shared_expert=True),
    "qwen3_moe": _Format(
        ("qwen3",),
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        without_effect={"max_window_layers": None, "layer_types": None},
    ),
}
"""What `export` can write, by name."""

_KEEP = "Keep the adapter (lpr_lab.save_expansion), which holds everything."


def export(
    model: PeftModel,
    path: str | Path,
    format: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_shard_size: str = "5GB",
) -> Path:
    """Write the selected stage of an expansion as a native mixture of experts, whole or not at all.

    Before anything is written, the native model is built from the same tensors and its logits are compared.

    Args:
        model: an expanded Llama or Mistral (`mixtral`), Qwen2 (`qwen2_moe`) or Qwen3 (`qwen3_moe`), in float32.
        path: a folder that does not exist yet; `AutoModelForCausalLM.from_pretrained(path)` loads it.
        format: `mixtral`, `qwen2_moe` or `qwen3_moe`.
        tokenizer: saved beside the model, if given.
        max_shard_size: of one file, as in transformers.

    Returns:
        The folder. Loaded in float32 it gives this model's logits; in bfloat16 its router is rounded too, so a token
        between two experts may go to the other one.

    Raises:
        UsageError: an unknown format, a folder that exists, or a model that is not in float32.
        UnsupportedModelError: the native class has no place for something; the message says for what, and what to do.

    >>> export(model, "exported", "mixtral", tokenizer=tokenizer)  # doctest: +SKIP
    """
    path = Path(path)
    one_of("format", format, FORMATS)
    if path.exists():
        raise UsageError(f"{path} exists; export to a folder that does not.")
    base = cast("PreTrainedModel", model.get_base_model())
    layers = [mlp.module for mlp in find_decoder_mlps(base)]
    _refuse_what_has_no_place(model, base.config, layers, format)
    mixtures = [layer for layer in layers if _is_mixture(layer)]
    config = _native_config(base.config, layers, mixtures, format)
    native = _native_model(config, FORMATS[format], base, layers)
    difference, largest = _largest_difference(model, native)
    if not difference <= logit_tolerance(largest):
        raise UnsupportedModelError(
            f"The native model would not compute the same: logits, the largest {largest:.1f}, differ by up to "
            f"{difference:.1e} (up to {logit_tolerance(largest):.1e} is rounding). {_KEEP}"
        )
    facts = {"kind": "export", "format": format, "stage": selected_stage(model), "difference": difference}
    with storage.staged_directory(path, sealed=facts) as stage, without_progress_bars():
        native.save_pretrained(stage, max_shard_size=max_shard_size)
        if tokenizer is not None:
            tokenizer.save_pretrained(stage)
    return path


def _is_mixture(layer: nn.Module) -> TypeGuard[MoELayer]:
    return isinstance(layer, MoELayer) and bool(layer.stacks)


def _refuse_what_has_no_place(model: PeftModel, base: PretrainedConfig, layers: list[nn.Module], format: str) -> None:
    """Refuse, with the reason and the next step, what the native class cannot express."""
    expansion = expansion_config(model)
    families = FORMATS[format].families
    if base.model_type not in families:
        fitting = next((name for name, known in FORMATS.items() if base.model_type in known.families), None)
        what_to_do = f"Use format={fitting!r}." if fitting else f"No native class computes it exactly. {_KEEP}"
        raise UnsupportedModelError(
            f"format={format!r} holds expansions of {', '.join(families)}, not of {base.model_type}. {what_to_do}"
        )
    if quantization_of(model):
        raise UnsupportedModelError(
            f"The base is in four bits ({quantization_of(model)}), and {format} is written with whole weights. {_KEEP}"
        )
    other = sorted({str(p.dtype) for p in model.parameters() if p.dtype != torch.float32})
    if other:
        raise UsageError(
            f"Part of the model is in {', '.join(other)}. Routers compute in float32 here, and in the model's one "
            "precision there, so only what is in float32 throughout can be exported exactly: save the adapter and load "
            "it with lpr_lab.load_expansion(path, dtype=torch.float32), or, where it was made on a base in bfloat16, "
            "with lpr_lab.load_expansion(path).float()."
        )
    mixtures = [layer for layer in layers if _is_mixture(layer)]
    stage = selected_stage(model)
    if not mixtures:
        raise UnsupportedModelError(f"No layer has new experts at the stage {stage!r}; save the base instead.")
    classified = [layer.layer for layer in mixtures if layer.classifier is not None]
    if classified:
        raise UnsupportedModelError(
            f"Layers {classified} have a routing classifier at the stage {stage!r}, and {format} has no place for one. "
            f"Select a stage without classifiers (lpr_lab.select_stage), or review without them. {_KEEP}"
        )
    if expansion.router_input != "token" or expansion.router_bias:
        found = "a bias" if expansion.router_bias else "the running mean of the document"
        raise UnsupportedModelError(
            f"The routers use {found}, and {format} routes by the token alone, without a bias. Upcycle with "
            f"router_input='token' and router_bias=False. {_KEEP}"
        )
    counts = sorted({layer.num_experts for layer in mixtures})
    dense = [number for number, layer in enumerate(layers) if not _is_mixture(layer)]
    if len(counts) > 1:
        raise UnsupportedModelError(
            f"Layers have {', '.join(map(str, counts))} experts at the stage {stage!r}, and {format} has one number "
            f"for all. Allocate with lpr_lab.uniform({len(layers)}). {_KEEP}"
        )
    if dense and not FORMATS[format].has_dense_layers:
        raise UnsupportedModelError(
            f"Layers {dense} have no new experts at the stage {stage!r}, and every layer of {format} is a mixture. "
            f"Allocate with lpr_lab.uniform({len(layers)}). {_KEEP}"
        )
    biased = [number for number, layer in enumerate(layers) if read_mlp(_base_mlp(layer)).up_bias is not None]
    if biased:
        raise UnsupportedModelError(f"The MLPs of layers {biased} have biases, and experts of {format} none. {_KEEP}")


def _native_config(
    base: PretrainedConfig, layers: list[nn.Module], mixtures: list[MoELayer], format: str
) -> PretrainedConfig:
    """Return the native configuration with every field of the base's that it knows; refuse those that would be lost."""
    native = FORMATS[format]
    known = {*native.config().to_dict(), "head_dim"}  # the Qwen classes read it without declaring it
    given = base.to_dict()
    for name in ("model_type", "architectures", "transformers_version", "_name_or_path", "dtype"):
        given.pop(name, None)
    carried = {name: value for name, value in given.items() if name in known}
    defaults = type(base)().to_dict()  # what is not declared there, such as notes of a converter, is read by nothing
    for name in sorted(set(given) & set(defaults) - set(carried)):
        neutral = native.without_effect.get(name, (defaults[name],))
        if neutral is not None and given[name] not in neutral:
            raise UnsupportedModelError(
                f"The base has {name} = {given[name]!r}, and {format} has no such setting; only "
                f"{' or '.join(map(repr, neutral))} can be exported. {_KEEP}"
            )
    # Qwen3-MoE attends through a window in all layers or in none, and Qwen2-MoE does not tell flash attention of it.
    if given.get("use_sliding_window"):
        raise UnsupportedModelError(
            f"The base attends through a sliding window in some layers (use_sliding_window), which {format} does not "
            f"do in every way that it can be run. {_KEEP}"
        )
    num_experts = mixtures[0].num_experts
    experts = {"num_experts_per_tok": min(mixtures[0].top_k, num_experts), "num_experts": num_experts}
    if native.has_dense_layers:
        dense = [number for number, layer in enumerate(layers) if not _is_mixture(layer)]
        experts |= {
            "moe_intermediate_size": base.intermediate_size,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": dense,
        }
    if native.shared_expert:
        experts |= {"shared_expert_intermediate_size": 1, "qkv_bias": True}
    return native.config(**{**carried, **experts}, dtype=torch.float32)


@torch.no_grad()
def _native_model(
    config: PretrainedConfig, format: _Format, base: PreTrainedModel, layers: list[nn.Module]
) -> PreTrainedModel:
    """Build the native model around the base's own tensors; only the experts are copied."""
    state = {
        name.replace(".base_layer.", "."): tensor for name, tensor in base.state_dict().items() if PREFIX not in name
    }
    for mlp, layer in zip(find_decoder_mlps(base), layers, strict=True):
        if not _is_mixture(layer):
            continue
        for name in [name for name in state if name.startswith(f"{mlp.path}.")]:
            del state[name]
        original, router = read_mlp(layer.base_layer), layer.router.weight.detach()
        state[f"{mlp.path}.gate.weight"] = router
        state[f"{mlp.path}.experts.gate_up_proj"] = torch.cat([original.up[None], *(s.up for s in layer.stacks)])
        state[f"{mlp.path}.experts.down_proj"] = torch.cat([original.down[None], *(s.down for s in layer.stacks)])
        if format.shared_expert:
            nothing = router.new_zeros(1, router.shape[-1])
            for name in ("shared_expert.gate_proj", "shared_expert.up_proj", "shared_expert_gate"):
                state[f"{mlp.path}.{name}.weight"] = nothing.clone()
            state[f"{mlp.path}.shared_expert.down_proj.weight"] = nothing.T.clone()
    with init_empty_weights(include_buffers=False):  # buffers such as the rotary frequencies are in no state dict
        native = format.model._from_config(
            config, dtype=torch.float32, attn_implementation=base.config._attn_implementation
        )
    native.load_state_dict(state, strict=True, assign=True)
    native.tie_weights()
    native.generation_config = base.generation_config
    nn.Module.to(native, base.device)
    return native.eval()


def _base_mlp(layer: nn.Module) -> nn.Module:
    return layer.base_layer if isinstance(layer, MoELayer) else layer


@torch.no_grad()
def _largest_difference(model: PeftModel, native: PreTrainedModel) -> tuple[float, float]:
    """Return the largest difference of logits, and the largest logit, on tokens drawn with a fixed seed."""
    vocabulary = native.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (2, 16), generator=torch.Generator().manual_seed(0)).to(model.device)
    with in_mode(model, training=False):
        expected = model(input_ids=ids).logits
    return float((native(input_ids=ids).logits - expected).abs().max()), float(expected.abs().max())
