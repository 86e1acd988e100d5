"""Import of adapters written by the released code of MoE-LPR and LayerMoE.

Both papers' code saves an adapter of its own PEFT method, `peft_type` `MOE`. Below the name of a layer's MLP:

    moe_router_embedding.weight       [E, D]       the router, without bias
    moe_experts.<j>.<map>.weight      like <map>   new expert 1 + j, map by map as in the base's MLP
    moe_token_classify.weight         [2, D]       LayerMoE only, in the layers that `group_nums` names

and in `adapter_config.json`:

    num_experts            experts per layer with expert 0: one number, or a list over all decoder layers (LayerMoE)
    layers_to_transform    which decoder layers are mixtures; all if absent
    topk                   experts per token
    group_nums             2 where there is a classifier, else 0: one number, or a list over all decoder layers
    old_num_experts        how many experts class 1 of a classifier may use

What they compute is what this library computes with `classifier_input="sequence"`, but for precision: routers were
kept and applied in bfloat16 there, in float32 here. A second expansion cannot be told from the first in these files, so
all new experts come as one expansion.

Letters: D model width, E experts of a layer.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lpr_lab import storage
from lpr_lab.errors import DamagedError, MissingError, UnsupportedModelError, UsageError
from lpr_lab.model.adapter import moe_layers, refuse_mismatch, wrap
from lpr_lab.model.adapter_config import MoeLprConfig
from lpr_lab.model.bases.families import DecoderMLP, find_decoder_mlps, read_mlp
from lpr_lab.model.bases.identity import describe_base, refuse_non_base
from lpr_lab.model.bases.mlp_check import refuse_nonstandard_mlps
from lpr_lab.model.bases.quantized import quantization_of
from lpr_lab.model.bases.tensor_files import open_tensors
from lpr_lab.model.mixture import MoELayer
from lpr_lab.model.peft import PeftModel, TaskType

# Switches of experiments that were never published; what they do is in no paper.
_UNPUBLISHED = ("spe_agn_hard_route", "spe_ori_agn_hard_route", "token_route", "pruned_experts_list")


def import_released(
    adapter_dir: str | Path,
    base_model: PreTrainedModel,
    *,
    expanded: Sequence[str] = (),
    original: Sequence[str] = (),
) -> PeftModel:
    """Put an adapter of the released MoE-LPR or LayerMoE code on its base, as an expansion like any other.

    Args:
        adapter_dir: with `adapter_config.json` and `adapter_model.safetensors`.
        base_model: the dense model it was trained on, in place. The adapter has no fingerprint of it, so only shapes
            can be compared; from here on the expansion is bound to this base.
        expanded: the languages its experts were trained on, which the files do not say.
        original: the languages it was reviewed on, likewise.

    Returns:
        The `peft.PeftModel` in evaluation mode. Its one stage is `G1 review` if routers were trained to leave
        original languages to expert 0, else `G1 expand`.

    Raises:
        MissingError: a file is not there, or the tensors are in a pickle.
        DamagedError: a tensor is missing, too many or of another shape.
        UnsupportedModelError: settings that mean something this library does not compute.

    >>> model, tokenizer = load_base("Qwen/Qwen1.5-1.8B")  # doctest: +SKIP
    >>> model = import_released("layermoe-g1-stage2", model, expanded=["el", "hu", "tr"])  # doctest: +SKIP
    """
    directory = Path(adapter_dir)
    if isinstance(base_model, PeftModel):
        raise UsageError("import_released takes the dense base; this model already carries an adapter.")
    if quantization_of(base_model):
        raise UnsupportedModelError(
            f"import_released takes a base with whole weights, and this one is quantised as "
            f"{quantization_of(base_model)}: the released experts were trained beside whole ones. Load it without "
            "quantization."
        )
    refuse_non_base(base_model)
    tensors = _tensors_of(directory)
    given = storage.read_json_object(directory / "adapter_config.json")
    mlps = find_decoder_mlps(base_model)
    counts, classified = _read_form(given, len(mlps))
    chosen = [mlp for mlp in mlps if counts[mlp.layer] > 1]
    if not chosen:
        raise DamagedError(f"{directory} adds no expert to any layer (num_experts = {given.get('num_experts')}).")
    refuse_nonstandard_mlps(chosen, base_model.config.model_type)
    width = base_model.config.get_text_config().hidden_size
    expected: dict[str, tuple[int, ...]] = {}
    for mlp in chosen:
        expected |= _shapes(mlp, width, counts[mlp.layer], mlp.layer in classified)
    with open_tensors(tensors) as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        refuse_mismatch(str(tensors), expected, found)
        config = _config(base_model, given, chosen, counts, classified)
        config.groups, config.original = [list(expanded)], list(original)
        model = wrap(base_model, config)
        for layer, mlp in zip(moe_layers(model), chosen, strict=True):
            _fill(layer, _prefix(mlp), file)
    return model.eval()


def _tensors_of(directory: Path) -> Path:
    """Return the file of tensors; refuse a pickle, which could run code when it is read."""
    path = directory / "adapter_model.safetensors"
    if not path.is_file() and (directory / "adapter_model.bin").is_file():
        raise MissingError(
            f"{directory} holds adapter_model.bin, a kind of file that can run code, and this library reads "
            "safetensors only. If you trust it, convert it once: torch.load(file, map_location='cpu', "
            "weights_only=True), then safetensors.torch.save_file(tensors, 'adapter_model.safetensors')."
        )
    if not path.is_file():
        raise MissingError(f"{directory} has no adapter_model.safetensors; expected an adapter of the released code.")
    return path


def _read_form(given: dict[str, Any], num_layers: int) -> tuple[list[int], set[int]]:
    """Return experts per decoder layer (1 where it is dense) and the layers with a classifier.

    Args:
        given: the released `adapter_config.json`.
        num_layers: decoder layers of the base.

    Raises:
        DamagedError: not a released adapter's, or made for another number of layers.
        UnsupportedModelError: settings that mean something this library does not compute.
    """
    if given.get("peft_type") != "MOE":
        raise DamagedError(
            f"The adapter's peft_type is {given.get('peft_type')!r}; adapters of the released MoE-LPR and LayerMoE "
            "code have 'MOE'. Open an expansion of this library with lpr_lab.load_expansion."
        )
    strange = [name for name in _UNPUBLISHED if given.get(name)]
    if strange:
        raise UnsupportedModelError(f"The adapter uses {', '.join(strange)}, which neither paper describes.")
    if given.get("topk", 1) < 2:
        raise UnsupportedModelError(
            "The adapter uses one expert per token (topk = 1); the released code then scales its output by the "
            "router's probability, and the model would not even start equal to the base. Only 2 or more can be "
            "imported."
        )
    mixtures = given.get("layers_to_transform")
    mixtures = range(num_layers) if mixtures is None else [mixtures] if isinstance(mixtures, int) else mixtures
    beyond = [layer for layer in mixtures if not 0 <= layer < num_layers]
    if beyond:
        raise DamagedError(f"The adapter has mixtures in layers {beyond}, but the base has {num_layers} layers.")
    experts = _per_layer(given, "num_experts", num_layers)
    counts = [experts[layer] if layer in mixtures else 1 for layer in range(num_layers)]
    groups = _per_layer(given, "group_nums", num_layers)
    usable = _per_layer(given, "old_num_experts", num_layers)
    classified = {layer for layer in range(num_layers) if groups[layer] and counts[layer] > 1}
    for layer in sorted(classified):
        if groups[layer] != 2 or usable[layer] not in (0, counts[layer]):
            raise UnsupportedModelError(
                f"The classifier of layer {layer} knows {groups[layer]} groups, and class 1 may use "
                f"{usable[layer] or counts[layer]} of {counts[layer]} experts; only 2 groups and all experts, the form "
                "that LayerMoE's scripts train, can be imported."
            )
    return counts, classified


def _per_layer(given: dict[str, Any], name: str, num_layers: int) -> list[int]:
    """Return a setting for every decoder layer: the released code has one number for all, a list, or nothing (0)."""
    value = given.get(name)
    if not isinstance(value, list):
        return [value or 0] * num_layers
    if len(value) != num_layers:
        raise DamagedError(f"{name} names {len(value)} layers, but the base has {num_layers}: it is for another base.")
    return value


def _prefix(mlp: DecoderMLP) -> str:
    return f"base_model.model.{mlp.path}"


def _shapes(mlp: DecoderMLP, width: int, num_experts: int, has_classifier: bool) -> dict[str, tuple[int, ...]]:
    """Return the tensors that the released code saves for one layer, with their shapes."""
    prefix = _prefix(mlp)
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}.moe_router_embedding.weight": (num_experts, width)}
    if has_classifier:
        shapes[f"{prefix}.moe_token_classify.weight"] = (2, width)
    for number in range(num_experts - 1):
        for name, tensor in mlp.module.state_dict().items():
            shapes[f"{prefix}.moe_experts.{number}.{name}"] = tuple(tensor.shape)
    return shapes


def _config(
    base: PreTrainedModel, given: dict[str, Any], chosen: list[DecoderMLP], counts: list[int], classified: set[int]
) -> MoeLprConfig:
    is_reviewed = bool(classified) or given.get("lpr_loss_coef") is not None
    stage = {"name": "G1 review" if is_reviewed else "G1 expand", "expansion": 0, "classifiers": sorted(classified)}
    return MoeLprConfig(
        task_type=TaskType.CAUSAL_LM,
        layer_paths=[mlp.path for mlp in chosen],
        layer_indices=[mlp.layer for mlp in chosen],
        new_experts=[[counts[mlp.layer] - 1 for mlp in chosen]],
        stages=[stage],
        classifier_input="sequence",
        top_k=given["topk"],
        **describe_base(base),
    )


@torch.no_grad()
def _fill(layer: MoELayer, prefix: str, file: Any) -> None:
    """Read one layer's router, classifier and experts from the released file, one expert at a time."""
    layer.router.weight.copy_(file.get_tensor(f"{prefix}.moe_router_embedding.weight"))
    if layer.classifier is not None:
        layer.classifier.weight.copy_(file.get_tensor(f"{prefix}.moe_token_classify.weight"))
    (stack,) = layer.stacks
    # A place to read each expert's maps into: of the form of the base's MLP, in the precision of experts.
    expert = copy.deepcopy(layer.base_layer).float()
    for number in range(stack.num_experts):
        maps = {name: file.get_tensor(f"{prefix}.moe_experts.{number}.{name}") for name in expert.state_dict()}
        expert.load_state_dict(maps, strict=True)
        read = read_mlp(expert)
        for name in ("up", "down", "up_bias", "down_bias"):
            place = getattr(stack, name)
            if place is not None:
                place[number].copy_(getattr(read, name))
