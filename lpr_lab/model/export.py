"""Writing an expansion as a model that transformers knows by itself, where that is exact.

A uniform expansion of a Llama or a Mistral computes what `MixtralForCausalLM` computes, and one of a Qwen3 what
`Qwen3MoeForCausalLM` computes: the same attention, and experts chosen by softmax in float32 -> top-k -> weights that
sum to 1. What is written needs neither this library nor PEFT.

    stack of ours                     native
    base MLP gate, up [F, D] each     experts.gate_up_proj[0] = gate rows, then up rows [2F, D]
    stack.up[i] [2F, D]               experts.gate_up_proj[1 + i]
    stack.down[i] [D, F]              experts.down_proj[1 + i]
    router.weight [E, D]              gate.weight

Everything a native class has no place for is refused with what can be done instead: this library's own adapter keeps
all of it. Padding layers with experts that are never chosen is not a way out: a native router has no constant per
expert, so no row scores lowest for every token.

Letters: D model width, F hidden width, E experts of a layer.
"""

from pathlib import Path
from typing import TypeGuard, cast

import torch
from accelerate import init_empty_weights
from peft import PeftModel
from torch import nn
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from lpr_lab import storage
from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.adapter_config import PREFIX
from lpr_lab.model.bases import without_progress_bars
from lpr_lab.model.families import find_decoder_mlps, read_mlp
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.quantized import quantization_of
from lpr_lab.model.stages import selected_stage

FORMATS = {"mixtral": ("llama", "mistral"), "qwen3_moe": ("qwen3",)}
"""Native format to the families (`model_type`) whose expansions it can hold."""

# Fields of a base's configuration that its native counterpart lacks, with the values at which they change nothing.
# `layer_types` and `sliding_window` of Qwen3 only matter with `use_sliding_window`.
_WITHOUT_EFFECT = {
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "pretraining_tp": (None, 0, 1),
    "use_sliding_window": (False,),
    "max_window_layers": None,
    "layer_types": None,
}
_TOLERANCE = 1e-4
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
        model: an expanded Llama or Mistral (`mixtral`), or Qwen3 (`qwen3_moe`), in float32.
        path: a folder that does not exist yet; `AutoModelForCausalLM.from_pretrained(path)` loads it.
        format: `mixtral` or `qwen3_moe`.
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
    if format not in FORMATS:
        raise UsageError(f"format = {format!r}; expected one of {', '.join(FORMATS)}.")
    if path.exists():
        raise UsageError(f"{path} exists; export to a folder that does not.")
    base = cast("PreTrainedModel", model.get_base_model())
    layers = [mlp.module for mlp in find_decoder_mlps(base)]
    _refuse_what_has_no_place(model, base.config, layers, format)
    mixtures = [layer for layer in layers if _is_mixture(layer)]
    config = _native_config(base.config, layers, mixtures, format)
    native = _native_model(config, base, layers)
    difference = _largest_difference(model, native)
    if not difference <= _TOLERANCE:
        raise UnsupportedModelError(
            f"The native model would not compute the same: logits differ by up to {difference:.1e} (at most "
            f"{_TOLERANCE:.0e} is rounding). {_KEEP}"
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
    families = FORMATS[format]
    if base.model_type not in families:
        fitting = next((name for name, known in FORMATS.items() if base.model_type in known), None)
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
            f"The model is in {', '.join(other)}. Routers compute in float32 here and in the model's precision there, "
            "so only a float32 model can be exported exactly: load it with "
            "lpr_lab.load_expansion(path, dtype=torch.float32)."
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
    if dense and format == "mixtral":
        raise UnsupportedModelError(
            f"Layers {dense} have no new experts at the stage {stage!r}, and every layer of a Mixtral is a mixture. "
            f"Allocate with lpr_lab.uniform({len(layers)}). {_KEEP}"
        )
    biased = [number for number, layer in enumerate(layers) if read_mlp(_base_mlp(layer)).up_bias is not None]
    if biased:
        raise UnsupportedModelError(f"The MLPs of layers {biased} have biases, and experts of {format} none. {_KEEP}")


def _native_config(
    base: PretrainedConfig, layers: list[nn.Module], mixtures: list[MoELayer], format: str
) -> MixtralConfig | Qwen3MoeConfig:
    """Return the native configuration with every field of the base's that it knows; refuse those that would be lost."""
    kind = MixtralConfig if format == "mixtral" else Qwen3MoeConfig
    known = {*kind().to_dict(), "head_dim"}  # Qwen3-MoE reads it without declaring it
    given = base.to_dict()
    for name in ("model_type", "architectures", "transformers_version", "_name_or_path", "dtype"):
        given.pop(name, None)
    carried = {name: value for name, value in given.items() if name in known}
    defaults = type(base)().to_dict()  # what is not declared there, such as notes of a converter, is read by nothing
    for name in sorted(set(given) & set(defaults) - set(carried)):
        neutral = _WITHOUT_EFFECT.get(name, (defaults[name],))
        if neutral is not None and given[name] not in neutral:
            raise UnsupportedModelError(
                f"The base has {name} = {given[name]!r}, and {format} has no such setting; only "
                f"{' or '.join(map(repr, neutral))} can be exported. {_KEEP}"
            )
    if given.get("use_sliding_window"):
        raise UnsupportedModelError(
            f"The base attends through a sliding window in some layers (use_sliding_window), and {format} in all or "
            f"none. {_KEEP}"
        )
    num_experts = mixtures[0].num_experts
    experts = {"num_experts_per_tok": min(mixtures[0].top_k, num_experts), "num_local_experts": num_experts}
    if format == "qwen3_moe":
        dense = [number for number, layer in enumerate(layers) if not _is_mixture(layer)]
        experts |= {
            "moe_intermediate_size": base.intermediate_size,
            "norm_topk_prob": True,
            "mlp_only_layers": dense,
        }
    return kind(**{**carried, **experts}, dtype=torch.float32)


@torch.no_grad()
def _native_model(
    config: MixtralConfig | Qwen3MoeConfig, base: PreTrainedModel, layers: list[nn.Module]
) -> PreTrainedModel:
    """Build the native model around the base's own tensors; only the experts are copied."""
    kind = MixtralForCausalLM if isinstance(config, MixtralConfig) else Qwen3MoeForCausalLM
    state = {
        name.replace(".base_layer.", "."): tensor for name, tensor in base.state_dict().items() if PREFIX not in name
    }
    for mlp, layer in zip(find_decoder_mlps(base), layers, strict=True):
        if not _is_mixture(layer):
            continue
        for name in [name for name in state if name.startswith(f"{mlp.path}.")]:
            del state[name]
        original = read_mlp(layer.base_layer)
        state[f"{mlp.path}.gate.weight"] = layer.router.weight.detach()
        state[f"{mlp.path}.experts.gate_up_proj"] = torch.cat([original.up[None], *(s.up for s in layer.stacks)])
        state[f"{mlp.path}.experts.down_proj"] = torch.cat([original.down[None], *(s.down for s in layer.stacks)])
    with init_empty_weights(include_buffers=False):  # buffers such as the rotary frequencies are in no state dict
        native = kind._from_config(config, dtype=torch.float32, attn_implementation=base.config._attn_implementation)
    native.load_state_dict(state, strict=True, assign=True)
    native.tie_weights()
    native.generation_config = base.generation_config
    nn.Module.to(native, base.device)
    return native.eval()


def _base_mlp(layer: nn.Module) -> nn.Module:
    return layer.base_layer if isinstance(layer, MoELayer) else layer


@torch.no_grad()
def _largest_difference(model: PeftModel, native: PreTrainedModel) -> float:
    """Return the largest difference of logits on a short sequence of tokens drawn with a fixed seed."""
    vocabulary = native.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (2, 16), generator=torch.Generator().manual_seed(0)).to(model.device)
    was_training = model.training
    try:
        expected = model.eval()(input_ids=ids).logits
    finally:
        model.train(was_training)
    return float((native(input_ids=ids).logits - expected).abs().max())
