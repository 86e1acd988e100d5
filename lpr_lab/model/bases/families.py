"""Finds each decoder layer's MLP in a Hugging Face causal LM, or refuses with the reason and what was found.

Discovery is by structure, not by model name: the decoder layers are the one `ModuleList` as long as
`config.num_hidden_layers`, and an MLP is recognised by the linear maps it is made of. Three layouts cover the dense
decoders: `gate_proj/up_proj/down_proj` (Llama, Mistral, Qwen, Gemma, OLMo, SmolLM), a fused `gate_up_proj/down_proj`
(Phi-3), and two plain maps (GPT-NeoX, GPT-2, whose `Conv1D` stores its weight transposed). Whether the forward pass
does nothing else with these maps is found out by running it (`model/bases/mlp_check.py`).

Letters: D model width, F hidden width of the MLP.
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lpr_lab.errors import UnsupportedModelError
from lpr_lab.model.bases.quantized import dequantized
from lpr_lab.model.peft import BaseTunerLayer

_PLAIN_NAMES = (("dense_h_to_4h", "dense_4h_to_h"), ("c_fc", "c_proj"), ("fc1", "fc2"), ("up_proj", "down_proj"))
_ACTIVATION_NAMES = ("act_fn", "activation_fn", "act", "activation")
_MLP_NAMES = ("mlp", "feed_forward", "ffn")
_FINAL_NORM_NAMES = ("norm", "ln_f", "final_layer_norm", "final_layernorm")
_MIXTURE_FIELDS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class MLPWeights(NamedTuple):
    """The linear maps of one MLP in one canonical form, as views or copies of the model's own tensors.

    Attributes:
        up: [2F, D] when gated (gate rows first, then up rows), else [F, D].
        down: [D, F].
        up_bias: [2F] or [F], or None.
        down_bias: [D], or None.
        gated: True for `down(act(gate(x)) * up(x))`, False for `down(act(up(x)))`.
        activation: the elementwise function between them.
        dropout: probability of the dropout on the output, 0 where there is none.
    """

    up: torch.Tensor
    down: torch.Tensor
    up_bias: torch.Tensor | None
    down_bias: torch.Tensor | None
    gated: bool
    activation: nn.Module
    dropout: float


class DecoderMLP(NamedTuple):
    """Where one MLP sits: decoder layer index, dotted module path from the causal LM, and the module itself."""

    layer: int
    path: str
    module: nn.Module


def refuse_by_config(config: PretrainedConfig, name: str) -> None:
    """Refuse, before any weight is loaded, what cannot be upcycled by its configuration alone.

    Raises:
        UnsupportedModelError: an encoder-decoder, or a model that already is a mixture of experts.
    """
    if config.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{name} is an encoder-decoder ({config.model_type}); expected a decoder-only causal language model. "
            "Choose one such as smollm2-135m, a Llama, a Qwen or a Gemma."
        )
    text_config = config.get_text_config()
    for field in _MIXTURE_FIELDS:
        experts = getattr(text_config, field, None)
        if isinstance(experts, int) and experts > 1:
            raise UnsupportedModelError(
                f"{name} already is a mixture of experts ({config.model_type}, {field} = {experts}); expected a dense "
                "model. Expand the dense model it was made from."
            )


def find_decoder_mlps(model: PreTrainedModel) -> list[DecoderMLP]:
    """Return the MLP of every decoder layer, in order.

    Args:
        model: a causal LM, dense or already upcycled here (then the mixture layer that stands in the MLP's place).

    Raises:
        UnsupportedModelError: no decoder stack, or a layer whose feed-forward block is none of the known layouts; the
            message lists what was found.
    """
    name = model.config.name_or_path or type(model).__name__
    refuse_by_config(model.config, name)
    path, layers = _decoder_layers(model, name)
    mlps = [_mlp_of_layer(name, index, f"{path}.{index}", layer) for index, layer in enumerate(layers)]
    if len({mlp.module for mlp in mlps}) < len(mlps):
        raise UnsupportedModelError(f"{name} shares one feed-forward block between layers; expected one per layer.")
    return mlps


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the decoder layers of a causal LM, from the first to the last, whatever adapters are in them.

    Raises:
        UnsupportedModelError: as `find_decoder_mlps`, where there is no decoder stack.
    """
    return [*_decoder_layers(model, model.config.name_or_path or type(model).__name__)[1]]


def final_norm(model: PreTrainedModel) -> nn.Module:
    """Return the norm between the last decoder layer and the head of a causal LM.

    It is found by name, beside the decoder layers. Whether the head reads what it gives is for the caller to see.

    Raises:
        UnsupportedModelError: there is none; the message lists what stands beside the layers.
    """
    name = model.config.name_or_path or type(model).__name__
    path, _ = _decoder_layers(model, name)
    around, _, own = path.rpartition(".")
    beside = {key: child for key, child in model.get_submodule(around).named_children() if key != own}
    for candidate in _FINAL_NORM_NAMES:
        if candidate in beside:
            return beside[candidate]
    raise UnsupportedModelError(
        f"{name} ({type(model).__name__}) has no norm after its last layer, so states of earlier layers cannot be put "
        f"through its head: expected one of {', '.join(_FINAL_NORM_NAMES)} beside the layers, found "
        f"{', '.join(beside) or 'nothing'}."
    )


def _decoder_layers(model: PreTrainedModel, name: str) -> tuple[str, nn.ModuleList]:
    """Return the path and the list of the decoder layers: not those of a vision tower that happens to be as deep."""
    num_layers = model.config.get_text_config().num_hidden_layers
    decoder = set(model.get_decoder().modules())
    stacks = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers and module in decoder
    }
    with_mlps = {path: layers for path, layers in stacks.items() if {*_MLP_NAMES} & {*dict(layers[0].named_children())}}
    stacks = with_mlps or stacks
    if len(stacks) != 1:
        raise UnsupportedModelError(
            f"{name} ({type(model).__name__}) has {', '.join(stacks) or 'no'} stack of {num_layers} decoder layers; "
            "expected the one of a decoder-only transformer."
        )
    return next(iter(stacks.items()))


def _mlp_of_layer(name: str, index: int, path: str, layer: nn.Module) -> DecoderMLP:
    children = dict(layer.named_children())
    for candidate in _MLP_NAMES:
        if candidate in children:
            mlp = children[candidate]
            map_names(mlp.get_base_layer() if isinstance(mlp, BaseTunerLayer) else mlp, f"{name}, layer {index}")
            return DecoderMLP(index, f"{path}.{candidate}", children[candidate])
    raise UnsupportedModelError(
        f"Layer {index} of {name} has no feed-forward block that can be upcycled; expected one of "
        f"{', '.join(_MLP_NAMES)}, found {', '.join(children)}."
    )


def read_mlp(mlp: nn.Module, where: str = "this model") -> MLPWeights:
    """Read an MLP's linear maps in canonical form.

    Raises:
        UnsupportedModelError: the module is none of the known layouts.
    """
    up_names, down_name, gated = map_names(mlp, where)
    ups = [_weight_and_bias(mlp.get_submodule(name)) for name in up_names]
    down = _weight_and_bias(mlp.get_submodule(down_name))
    biases = [bias for _, bias in ups if bias is not None]
    up = ups[0][0] if len(ups) == 1 else torch.cat([weight for weight, _ in ups])
    if len(up) != (2 if gated else 1) * down[0].shape[1]:
        raise UnsupportedModelError(
            f"The feed-forward block {type(mlp).__name__} of {where} cannot be upcycled: its maps "
            f"{', '.join(up_names)} give {len(up)} numbers and {down_name} takes {down[0].shape[1]}, so it does more "
            "than these maps say."
        )
    return MLPWeights(
        up=up,
        down=down[0],
        up_bias=torch.cat(biases) if len(biases) == len(ups) else None,
        down_bias=down[1],
        gated=gated,
        activation=next(getattr(mlp, key) for key in _ACTIVATION_NAMES if key in dict(mlp.named_children())),
        dropout=_dropout(mlp),
    )


def mlp_state(
    mlp: nn.Module,
    up: torch.Tensor,
    down: torch.Tensor,
    up_bias: torch.Tensor | None = None,
    down_bias: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Return canonical linear maps (`MLPWeights`) by the names and in the layout that a module has them."""
    up_names, down_name, _ = map_names(mlp)
    biases = [None] * len(up_names) if up_bias is None else up_bias.chunk(len(up_names))
    maps = [*zip(up_names, up.chunk(len(up_names)), biases, strict=True), (down_name, down, down_bias)]
    state = {}
    for name, weight, bias in maps:
        state[f"{name}.weight"] = weight.T if isinstance(mlp.get_submodule(name), Conv1D) else weight
        if bias is not None:
            state[f"{name}.bias"] = bias
    return state


def _dropout(mlp: nn.Module) -> float:
    """Return the probability of the dropout on the output; StarCoder 2 and Seed-OSS keep it as a number."""
    modules = (child.p for _, child in mlp.named_children() if isinstance(child, nn.Dropout))
    return next(modules, float(getattr(mlp, "residual_dropout", 0.0)))


def map_names(mlp: nn.Module, where: str = "this model") -> tuple[tuple[str, ...], str, bool]:
    """Return the names of the maps up, that of the map down, and whether it is gated; copies no weight.

    Raises:
        UnsupportedModelError: the module is none of the known layouts.
    """
    children = dict(mlp.named_children())
    maps = {key for key, child in children.items() if isinstance(child, nn.Linear | Conv1D)}
    if any(key in children for key in _ACTIVATION_NAMES):
        if maps == {"gate_proj", "up_proj", "down_proj"}:
            return ("gate_proj", "up_proj"), "down_proj", True
        if maps == {"gate_up_proj", "down_proj"}:
            return ("gate_up_proj",), "down_proj", True
        for up_name, down_name in _PLAIN_NAMES:
            if maps == {up_name, down_name}:
                return (up_name,), down_name, False
    found = ", ".join(f"{key}: {type(child).__name__}" for key, child in children.items()) or "nothing"
    raise UnsupportedModelError(
        f"The feed-forward block {type(mlp).__name__} of {where} cannot be upcycled: expected gate/up/down, a fused "
        f"gate_up/down or two plain linear maps with an activation between them, found {found}."
    )


def _weight_and_bias(linear: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    assert isinstance(linear, nn.Linear | Conv1D)
    weight = dequantized(linear.weight)
    bias = None if linear.bias is None else linear.bias.detach()
    return (weight.T if isinstance(linear, Conv1D) else weight), bias
