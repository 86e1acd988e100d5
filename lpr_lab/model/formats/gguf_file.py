"""A native model as a GGUF file, which llama.cpp and what is built on it (Ollama, LM Studio) read; and read again.

The library `gguf` gives names, keys and quantisation; this says which tensor of which class goes where:

    native class      architecture       what differs from it
    mixtral           llama              query and key rows interleaved; factors of the rotary frequencies as a tensor
    qwen3_moe         qwen3moe           no layer can be dense
    ernie4_5_moe      ernie4_5-moe       -

All of them weigh experts by a softmax whose chosen part sums to 1. `qwen2moe` doesn't normalise, so a Qwen2 goes
through `ernie4_5_moe`. Norms, biases, routers and the constants of selection are float32 in every file.

Letters: E experts, F hidden width, D model width.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import gguf
import numpy as np
import torch
from gguf import MODEL_ARCH, MODEL_TENSOR, GGMLQuantizationType, LlamaFileType
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lpr_lab.errors import UnsupportedModelError, one_of
from lpr_lab.model.formats.gguf_tokenizer import Vocabulary
from lpr_lab.model.formats.native import KEEP, from_state, in_halves, interleave, without_weights

FILE = "model.gguf"
WEIGHTS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
"""Types of the weight matrices, by llama.cpp's names; 32, 16, 16 and 8.5 bits per weight."""


@dataclass(frozen=True)
class _Architecture:
    arch: MODEL_ARCH
    interleaves: bool = False
    """Whether it wants query and key rows interleaved that the native class has in halves."""
    has_rope_factors: bool = False


_ARCHITECTURES = {
    "mixtral": _Architecture(MODEL_ARCH.LLAMA, interleaves=True, has_rope_factors=True),
    "qwen3_moe": _Architecture(MODEL_ARCH.QWEN3MOE),
    "ernie4_5_moe": _Architecture(MODEL_ARCH.ERNIE4_5_MOE),
}
FORMS = {
    "llama": ("mixtral", "ernie4_5_moe"),
    "mistral": ("mixtral", "ernie4_5_moe"),
    "qwen2": ("ernie4_5_moe",),
    "qwen3": ("qwen3_moe",),
}
"""Native forms to go through by `model_type` of the base, the plainest first."""

_WHOLE = {
    "model.embed_tokens": MODEL_TENSOR.TOKEN_EMBD,
    "model.norm": MODEL_TENSOR.OUTPUT_NORM,
    "lm_head": MODEL_TENSOR.OUTPUT,
}
_PER_LAYER = {
    "input_layernorm": MODEL_TENSOR.ATTN_NORM,
    "post_attention_layernorm": MODEL_TENSOR.FFN_NORM,
    "self_attn.q_proj": MODEL_TENSOR.ATTN_Q,
    "self_attn.k_proj": MODEL_TENSOR.ATTN_K,
    "self_attn.v_proj": MODEL_TENSOR.ATTN_V,
    "self_attn.o_proj": MODEL_TENSOR.ATTN_OUT,
    "self_attn.q_norm": MODEL_TENSOR.ATTN_Q_NORM,
    "self_attn.k_norm": MODEL_TENSOR.ATTN_K_NORM,
    "mlp.gate": MODEL_TENSOR.FFN_GATE_INP,
    "mlp.gate.moe_statics.e_score_correction_bias": MODEL_TENSOR.FFN_EXP_PROBS_B,
    "mlp.experts.down_proj": MODEL_TENSOR.FFN_DOWN_EXP,
}
_HALVES = (MODEL_TENSOR.FFN_GATE_EXP, MODEL_TENSOR.FFN_UP_EXP)
"""Of `mlp.experts.gate_up_proj` [E, 2F, D]: gate rows, then up rows."""


class _Entry(NamedTuple):
    """One tensor of the file: its name, the native one that it is made of, which half of it, heads to interleave."""

    name: str
    source: str
    half: int | None = None
    num_heads: int = 0
    is_matrix: bool = False


def refuse_what_has_no_place(config: PretrainedConfig, form: str, weights: str) -> None:
    """Refuse, before anything is computed, settings of a native model that llama.cpp has no word for.

    Raises:
        UsageError: an unknown type of weights.
        UnsupportedModelError: another activation than SiLU, a sliding window, other positions, or rows that Q8_0 cannot
            divide into blocks of 32.
    """
    one_of("weights", weights, WEIGHTS)
    rope = config.rope_parameters or {}
    kinds = ("default", "linear", "llama3") if _ARCHITECTURES[form].has_rope_factors else ("default", "linear")
    found = None
    if config.hidden_act != "silu":
        found = f"the activation {config.hidden_act}, not silu"
    elif getattr(config, "sliding_window", None):
        found = f"a sliding window of {config.sliding_window} tokens"
    elif rope.get("rope_type", "default") not in kinds:
        found = f"rotary positions of the kind {rope['rope_type']}, not {' or '.join(kinds)}"
    elif rope.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        found = "rotary positions on part of a head"
    widths = (config.hidden_size, getattr(config, "moe_intermediate_size", None) or config.intermediate_size)
    if weights == "q8_0" and any(width % 32 for width in widths):
        found = f"rows of {' and '.join(map(str, widths))} numbers, and q8_0 has blocks of 32"
    if found:
        raise UnsupportedModelError(
            f"The base has {found}, which the architecture {gguf.MODEL_ARCH_NAMES[_ARCHITECTURES[form].arch]} of "
            f"llama.cpp does not compute. Export to {form} for transformers, or choose other weights. {KEEP}"
        )


def write(
    native: PreTrainedModel, form: str, tokenizer: PreTrainedTokenizerBase, file: Path, weights: str = "f32"
) -> None:
    """Write a native model and its tokenizer as one GGUF file; one tensor at a time is held twice.

    Args:
        native: of the class that `form` names, without dense layers.
        form: a key of `native.FORMATS` that `FORMS` names.
        tokenizer: the base's.
        file: where to.
        weights: a key of `WEIGHTS`.

    Raises:
        UnsupportedModelError: a tokenizer or a tensor that llama.cpp has no place for.
    """
    architecture = _ARCHITECTURES[form]
    vocabulary = Vocabulary.of(tokenizer, native.config.vocab_size)
    state, entries = native.state_dict(), list(_entries(native, form))
    _refuse_left_over(state, entries)
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture.arch])
    _add_settings(writer, native.config)
    writer.add_file_type(WEIGHTS[weights][1])
    vocabulary.add_to(writer)
    factors = _rope_factors(native) if architecture.has_rope_factors else None
    if factors is not None:
        _announce(writer, f"{gguf.TENSOR_NAMES[MODEL_TENSOR.ROPE_FREQS]}.weight", factors, "f32")
    for entry in entries:
        _announce(writer, entry.name, _value(entry, state), weights if entry.is_matrix else "f32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors.numpy())
    for entry in entries:
        values = _value(entry, state).float().cpu().contiguous().numpy()
        writer.write_tensor_data(gguf.quantize(values, WEIGHTS[weights if entry.is_matrix else "f32"][0]))
    writer.close()


def read(file: Path, config: PretrainedConfig, form: str) -> PreTrainedModel:
    """Return the native model whose tensors a GGUF file holds, dequantised to float32.

    Args:
        file: written by `write`.
        config: the native configuration; the file's own settings are for llama.cpp to read.
        form: as in `write`.
    """
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    empty = without_weights(config, form)
    state: dict[str, torch.Tensor] = {}
    for entry in _entries(empty, form):
        tensor = written[entry.name]
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        values = in_halves(values, entry.num_heads) if entry.num_heads else values
        if entry.half == 1:
            values = torch.cat([state[entry.source], values], dim=1)
        state[entry.source] = values
    shapes = {name: like.shape for name, like in empty.state_dict().items()}
    state = {name: values.view(shapes[name]) for name, values in state.items()}  # constants of selection have one less
    state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    return from_state(config, form, state)


def _entries(native: PreTrainedModel, form: str) -> Iterator[_Entry]:
    """Yield the tensors of the file in order; what llama.cpp has no tensor for is left out."""
    config, names = native.config, gguf.TENSOR_NAMES
    heads = {MODEL_TENSOR.ATTN_Q: config.num_attention_heads, MODEL_TENSOR.ATTN_K: config.num_key_value_heads}
    for source, values in native.state_dict().items():
        stem, _, suffix = source.rpartition(".")
        if stem in _WHOLE and suffix == "weight":
            if stem != "lm_head" or not config.tie_word_embeddings:
                yield _Entry(f"{names[_WHOLE[stem]]}.weight", source, is_matrix=values.dim() > 1)
            continue
        found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", source)
        if not found:
            continue
        layer, inside = int(found[1]), found[2]
        if inside == "mlp.experts.gate_up_proj":
            for half, tensor in enumerate(_HALVES):
                yield _Entry(f"{names[tensor].format(bid=layer)}.weight", source, half, is_matrix=True)
            continue
        tensor = _PER_LAYER.get(inside) or _PER_LAYER.get(inside.removesuffix(f".{suffix}"))
        if tensor is None or (tensor is MODEL_TENSOR.ATTN_OUT and suffix == "bias"):
            continue
        is_constant = tensor is MODEL_TENSOR.FFN_EXP_PROBS_B
        kind = "bias" if suffix == "bias" or is_constant else "weight"
        yield _Entry(
            f"{names[tensor].format(bid=layer)}.{kind}",
            source,
            num_heads=heads.get(tensor, 0) if _ARCHITECTURES[form].interleaves else 0,
            is_matrix=values.dim() > 1 and not is_constant and tensor is not MODEL_TENSOR.FFN_GATE_INP,
        )


def _refuse_left_over(state: dict[str, torch.Tensor], entries: list[_Entry]) -> None:
    """Refuse tensors that are in no file of this architecture, unless they are zeros or tied to one that is."""
    kept = {entry.source for entry in entries}
    pointers = {state[name].data_ptr() for name in kept}
    lost = [n for n, v in state.items() if n not in kept and v.data_ptr() not in pointers and bool(v.any())]
    if lost:
        raise UnsupportedModelError(
            f"llama.cpp has no place for {lost[0]}{' and others' if len(lost) > 1 else ''} of this model. {KEEP}"
        )


def _value(entry: _Entry, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what the file holds under an entry's name, before it is rounded."""
    values = state[entry.source].detach()
    if entry.half is not None:
        return values.chunk(2, dim=1)[entry.half]
    if entry.source.endswith("e_score_correction_bias"):
        return values.flatten()
    return interleave(values, entry.num_heads) if entry.num_heads else values


def _announce(writer: gguf.GGUFWriter, name: str, values: torch.Tensor, weights: str) -> None:
    """Have the writer list a tensor, whose numbers follow later in the same order."""
    kind = WEIGHTS[weights][0]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    writer.add_tensor_info(
        name, list(values.shape), np.dtype(np.float32), values.numel() // block * size, raw_dtype=kind
    )


def _add_settings(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    """Write what llama.cpp reads of a configuration."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope: dict[str, Any] = config.rope_parameters or {}
    width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or 10_000.0))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    writer.add_expert_count(getattr(config, "num_local_experts", None) or config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_feed_forward_length(width)
    if writer.arch == gguf.MODEL_ARCH_NAMES[MODEL_ARCH.ERNIE4_5_MOE]:
        writer.add_interleave_moe_layer_step(1)
        writer.add_leading_dense_block_count(0)
        writer.add_expert_shared_count(0)


def _rope_factors(native: PreTrainedModel) -> torch.Tensor | None:
    """Return by what Llama 3 divides each rotary frequency, float32 [head width / 2]; None for other kinds."""
    rope: dict[str, Any] = native.config.rope_parameters or {}
    if rope.get("rope_type") != "llama3":
        return None
    scaled = cast("torch.Tensor", native.get_buffer("model.rotary_emb.inv_freq")).float().cpu()
    plain = rope["rope_theta"] ** -(torch.arange(len(scaled), dtype=torch.float32) / len(scaled))
    return plain / scaled
