"""Tiny random models of every causal language model that transformers knows, as far as a tiny one can be made."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

IDS = torch.arange(5, 29).view(2, 12)
MOST_PARAMETERS = 1_000_000

_WIDTHS = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "num_hidden_layers": 2, "vocab_size": 64, "max_position_embeddings": 64, "ffn_hidden_size": 48,
    "n_embd": 32, "n_inner": 48, "n_head": 4, "n_layer": 2, "n_positions": 64, "rotary_dim": 8,
    "d_model": 32, "num_heads": 4, "num_layers": 2, "ffn_dim": 48, "word_embed_proj_dim": 32,
    "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48,
    "vocab_size_per_layer_input": 64, "hidden_size_per_layer_input": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "q_lora_rank": 16, "kv_lora_rank": 16, "num_kv_shared_layers": 0,
    "mamba_chunk_size": 16,
}  # fmt: skip
_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_VARIANTS: tuple[dict[str, Any], ...] = (
    {"sliding_window": 16},
    {"sliding_window": 16, "layer_types": ["full_attention", "full_attention"]},
    {"attention_types": [[["global", "local"], 1]]},
    {"sliding_window": 16, "num_hidden_layers": 4, "global_head_dim": 8, "num_global_key_value_heads": 2},
    {"is_decoder": True},
)  # fmt: skip


def families() -> list[str]:
    """Return the model types, in alphabetical order."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_of(family: str) -> PreTrainedModel | None:
    """Return a tiny model of a family that can run, random in all its numbers; None where none can be made so."""
    for config in configs(family):
        try:
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
            if size > MOST_PARAMETERS:
                continue
            model = _randomised(AutoModelForCausalLM.from_config(config).float().eval())
            with torch.no_grad():
                if model(IDS).logits.isfinite().all():
                    return model
        except Exception:  # whatever a family says to sizes that nobody meant
            continue
    return None


def configs(family: str) -> Iterator[Any]:
    """Yield the configurations that are tried, those of a model with no more to it than text."""
    cls = CONFIG_MAPPING[family]
    if set(cls.sub_configs) - {"text_config"}:
        return  # towers for images or sound, whose sizes have other names
    known = {*getattr(cls, "__dataclass_fields__", {}), *cls.attribute_map}
    for more, ids in itertools.product(_VARIANTS, (_IDS, {})):
        wanted = {name: value for name, value in {**_WIDTHS, **ids, **more}.items() if name in known}
        try:
            yield cls(**wanted)
        except Exception:
            continue


@torch.no_grad()
def _randomised(model: PreTrainedModel) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(0.2 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model
