"""Export of an expanded model to a mixture-of-experts class of transformers, or to GGUF, where that is exact.

What is written needs neither this library nor PEFT. `native` says which classes compute what an expansion computes, and
how; `gguf_file` writes such a native model for llama.cpp. Everything that they have no place for is refused with what
can be done instead: this library's own adapter keeps all of it.
"""

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab import storage
from lpr_lab.errors import UnsupportedModelError, UsageError, one_of
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.bases.families import find_decoder_mlps, read_mlp
from lpr_lab.model.bases.quantized import quantization_of
from lpr_lab.model.bases.quiet import without_progress_bars
from lpr_lab.model.formats import gguf_file
from lpr_lab.model.formats.check_gguf import check_gguf
from lpr_lab.model.formats.compare import Difference, check_written, probe_logits
from lpr_lab.model.formats.native import FORMATS, KEEP, base_mlp, is_mixture, native_config, native_model, plan_layout
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.stages import selected_stage

GGUF = "gguf"


def export(
    model: PeftModel,
    path: str | Path,
    format: str,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_shard_size: str = "5GB",
    weights: str = "f32",
) -> Path:
    """Write the selected stage of an expansion as a native mixture of experts, whole or not at all.

    Before anything is written, the native model is built from the same tensors and its logits are compared. Before the
    folder gets its name, what was written is opened and compared once more: by transformers; a GGUF file tensor by
    tensor, and by llama.cpp too where `llama-cpp-python` is installed (`MANIFEST.json` says what was compared).

    Args:
        model: an expanded Llama or Mistral (`mixtral`), Qwen2 (`qwen2_moe`) or Qwen3 (`qwen3_moe`), in float32. Where
            layers have different numbers of experts, as LayerMoE allocates them, `ernie4_5_moe` holds the first three.
        path: a folder that does not exist yet; `AutoModelForCausalLM.from_pretrained(path)` loads it, or llama.cpp the
            file `model.gguf` in it.
        format: one of `native.FORMATS`, or `gguf`, which goes through one of them.
        tokenizer: saved beside the model, if given; a GGUF file needs it.
        max_shard_size: of one file, as in transformers.
        weights: type of the matrices of a GGUF file: `f32`, `f16`, `bf16` or `q8_0`. Routers are float32 in any case.

    Returns:
        The folder. Loaded in float32 it gives this model's logits; in bfloat16 its router is rounded too (not that of
        `ernie4_5_moe`), so a token between two experts may go to the other one.

    Raises:
        UsageError: an unknown format, a folder that exists, or a model that is not in float32.
        UnsupportedModelError: the native class has no place for something; the message says for what, and what to do.
        DamagedError: what was written does not give the same logits; nothing is left of it.

    >>> export(model, "exported", "mixtral", tokenizer=tokenizer)  # doctest: +SKIP
    >>> export(model, "exported", "gguf", tokenizer=tokenizer, weights="f16")  # doctest: +SKIP
    """
    path = Path(path)
    _refuse_arguments(path, format, tokenizer, weights)
    base = cast("PreTrainedModel", model.get_base_model())
    layers = [mlp.module for mlp in find_decoder_mlps(base)]
    form = _form_of_gguf(base.config, layers) if format == GGUF else format
    _refuse_what_has_no_place(model, base.config, layers, form)
    layout = plan_layout(layers, form, selected_stage(model), keep_dense=format != GGUF)
    config = native_config(base, layout, form)
    if format == GGUF:
        gguf_file.refuse_what_has_no_place(config, form, weights)
    native = native_model(config, layout, form, base, layers)
    expected = probe_logits(model)
    apart = Difference.of(expected, probe_logits(native))
    if not apart.is_rounding:
        raise UnsupportedModelError(f"The native model would not compute the same: {apart} {KEEP}")
    facts: dict[str, Any] = {"kind": "export", "format": format, "stage": selected_stage(model)}
    with storage.staged_directory(path, sealed=facts) as stage, without_progress_bars():
        if tokenizer is not None and format == GGUF:
            gguf_file.write(native, form, tokenizer, stage / gguf_file.FILE, weights)
            facts |= {"form": form, "weights": weights}
            facts |= check_gguf(stage / gguf_file.FILE, native, form, tokenizer, expected, weights)
        else:
            native.save_pretrained(stage, max_shard_size=max_shard_size)
            if tokenizer is not None:
                tokenizer.save_pretrained(stage)
            facts["difference"] = check_written(stage, native, expected)
    return path


def _refuse_arguments(path: Path, format: str, tokenizer: PreTrainedTokenizerBase | None, weights: str) -> None:
    one_of("format", format, (*FORMATS, GGUF))
    if path.exists():
        raise UsageError(f"{path} exists; export to a folder that does not.")
    if format == GGUF and tokenizer is None:
        raise UsageError("A GGUF file holds its tokenizer; give tokenizer=…, the base's.")
    if format != GGUF and weights != "f32":
        raise UsageError(f"weights={weights!r} is for format='gguf'; {format} is written in float32.")


def _form_of_gguf(base: PretrainedConfig, layers: list[nn.Module]) -> str:
    """Return the plainest native form known to llama.cpp that holds these numbers of experts."""
    forms = gguf_file.FORMS.get(base.model_type)
    if forms is None:
        raise UnsupportedModelError(
            f"format='gguf' holds expansions of {', '.join(gguf_file.FORMS)}, not of {base.model_type}: no mixture of "
            f"experts of llama.cpp computes what one of those does. {KEEP}"
        )
    counts = {layer.num_experts for layer in layers if is_mixture(layer)}
    return next((form for form in forms if len(counts) < 2 or FORMATS[form].selection_bias), forms[-1])


def _refuse_what_has_no_place(model: PeftModel, base: PretrainedConfig, layers: list[nn.Module], format: str) -> None:
    """Refuse, with the reason and the next step, what the native class cannot express, numbers of experts aside."""
    families = FORMATS[format].families
    if base.model_type not in families:
        fitting = next((name for name, known in FORMATS.items() if base.model_type in known.families), None)
        what_to_do = f"Use format={fitting!r}." if fitting else f"No native class computes it exactly. {KEEP}"
        raise UnsupportedModelError(
            f"format={format!r} holds expansions of {', '.join(families)}, not of {base.model_type}. {what_to_do}"
        )
    if quantization_of(model):
        raise UnsupportedModelError(
            f"The base is in four bits ({quantization_of(model)}), and {format} is written with whole weights. {KEEP}"
        )
    other = sorted({str(p.dtype) for p in model.parameters() if p.dtype != torch.float32})
    if other:
        raise UsageError(
            f"Part of the model is in {', '.join(other)}. Routers compute in float32 here, and in the model's one "
            "precision there, so only what is in float32 throughout can be exported exactly: save the adapter and load "
            "it with lpr_lab.load_expansion(path, dtype=torch.float32), or, where it was made on a base in bfloat16, "
            "with lpr_lab.load_expansion(path).float()."
        )
    _refuse_routing(model, layers, format)
    biased = [number for number, layer in enumerate(layers) if read_mlp(base_mlp(layer)).up_bias is not None]
    if biased:
        raise UnsupportedModelError(f"The MLPs of layers {biased} have biases, and experts of {format} none. {KEEP}")


def _refuse_routing(model: PeftModel, layers: list[nn.Module], format: str) -> None:
    """Refuse what decides here on the way of a token and has no place there."""
    expansion, stage = expansion_config(model), selected_stage(model)
    mixtures = [layer for layer in layers if is_mixture(layer)]
    if not mixtures:
        raise UnsupportedModelError(f"No layer has new experts at the stage {stage!r}; save the base instead.")
    classified = [layer.layer for layer in mixtures if layer.classifier is not None]
    if classified:
        raise UnsupportedModelError(
            f"Layers {classified} have a routing classifier at the stage {stage!r}, and {format} has no place for one. "
            f"Select a stage without classifiers (lpr_lab.select_stage), or review without them. {KEEP}"
        )
    if expansion.router_input != "token" or expansion.router_bias:
        found = "a bias" if expansion.router_bias else "the running mean of the document"
        raise UnsupportedModelError(
            f"The routers use {found}, and {format} routes by the token alone, without a bias. Upcycle with "
            f"router_input='token' and router_bias=False. {KEEP}"
        )
