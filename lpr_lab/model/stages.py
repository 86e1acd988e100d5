"""Stages of an expansion: begin one, select one, and set which parameters are trainable.

Every step after upcycling that changes routers begins a stage of its own, and the routers of earlier stages stay as
they were. So "before the review" and "after it" are two selections of one model in memory.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch

from lpr_lab.errors import UsageError, one_of
from lpr_lab.model.adapter import MoeLprModel, expansion_config, moe_layers
from lpr_lab.model.adapter_config import MoeLprConfig
from lpr_lab.model.init import init_router
from lpr_lab.model.mixture import all_layers
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.tuned.names import FINETUNE
from lpr_lab.model.tuned.pair import Tuned


def sync_to_config(model: PeftModel, config: MoeLprConfig) -> None:
    """Add or remove experts, routers and classifiers to match the config, and select its newest stage.

    What is added is empty (NaN) until it is filled or loaded; later stages and experts than `config` has are dropped.

    Raises:
        UsageError: neither is a continuation of the other.
    """
    own = expansion_config(model)
    if _history(own)[: len(config.stages)] != _history(config)[: len(own.stages)]:
        raise UsageError(
            f"The expansion in memory ({_names(own)}) and this one ({_names(config)}) have different histories. Load "
            "it on a fresh base with lpr_lab.load_expansion."
        )
    cast("MoeLprModel", model.base_model).sync_to_config(str(model.active_adapter), config)
    select_stage(model, config.stages[-1]["name"])


def _history(config: MoeLprConfig) -> list[Any]:
    """Return all that two adapters must share to hold the same tensors, stage by stage."""
    shared = [config.base_fingerprint, config.top_k, config.router_input, config.router_bias]
    experts = [
        {layer: count for layer, count in zip(config.layer_indices, group, strict=True) if count}
        for group in config.new_experts
    ]
    return [[stage, experts[: stage["expansion"] + 1], shared] for stage in config.stages]


def enter_stage(
    model: PeftModel, step: str, *, classifiers: Sequence[int] = (), classifier_input: str = "token"
) -> None:
    """Begin a stage of the newest expansion, or go on with it when it is the newest already.

    Its routers start as copies of those in use; the stage before keeps its own.

    Args:
        model: the expanded model, at its newest stage.
        step: what happens in it, such as `review`; the stage is then called `G1 review`.
        classifiers: decoder layers that get a routing classifier, Xavier-normal at the start as in LayerMoE.
        classifier_input: see `MoeLprConfig`.

    Raises:
        UsageError: an earlier stage is selected, a layer without experts, or other classifiers than it began with.
    """
    require_newest_stage(model)
    config = copy.deepcopy(expansion_config(model))
    expansion = len(config.new_experts) - 1
    stage = {"name": f"G{expansion + 1} {step}", "expansion": expansion, "classifiers": sorted(classifiers)}
    newest = config.stages[-1]
    if newest["name"] == stage["name"]:
        if newest["classifiers"] != stage["classifiers"]:
            raise UsageError(
                f"The stage {newest['name']!r} began with classifiers on layers {newest['classifiers']}, not "
                f"{stage['classifiers']}."
            )
        return
    mixtures = [layer.layer for layer in moe_layers(model)]
    dense = sorted(set(classifiers) - set(mixtures))
    if dense:
        raise UsageError(
            f"Layers {dense} have no new experts, so there is no router to put a classifier in front of; choose from "
            f"{mixtures}."
        )
    config.stages.append(stage)
    if classifiers:
        config.classifier_input = classifier_input
    config.__post_init__()
    sync_to_config(model, config)
    for layer in moe_layers(model):
        earlier = layer.router_of(len(config.stages) - 2)
        assert earlier is not None
        layer.router.load_state_dict(earlier.state_dict())
        if layer.classifier is not None:
            generator = torch.Generator().manual_seed(1_000_003 * len(config.stages) + layer.layer)
            init_router(layer.classifier, "xavier", generator)


def select_stage(model: PeftModel | Tuned, name: str) -> None:
    """Route as at an earlier stage, bit for bit, without the experts added later.

    Args:
        model: an expanded model.
        name: one of `stage_names(model)`, such as `G1 review`.

    Raises:
        UsageError: no such stage, with the closest one.
    """
    names = stage_names(model)
    one_of("stage", name, names)
    if isinstance(model, Tuned):
        return
    stage = names.index(name)
    for layer in all_layers(model):
        layer.stage = stage
        layer.expansion = expansion_config(model).stages[stage]["expansion"]


@contextmanager
def use_stage(model: PeftModel | Tuned, stage: str | None) -> Iterator[None]:
    """Temporarily select a stage, or the base (None)."""
    if stage is None:
        with model.disable_adapter():
            yield
        return
    before = selected_stage(model)
    select_stage(model, stage)
    try:
        yield
    finally:
        select_stage(model, before)


def stage_names(model: PeftModel | Tuned) -> list[str]:
    """Return the names of the stages that an expanded model holds, oldest first; a baseline has one."""
    if isinstance(model, Tuned):
        return [FINETUNE]
    return [stage["name"] for stage in expansion_config(model).stages]


def selected_stage(model: PeftModel | Tuned) -> str:
    """Return the name of the stage in use."""
    if isinstance(model, Tuned):
        return FINETUNE
    return stage_names(model)[all_layers(model)[0].stage]


def require_newest_stage(model: PeftModel) -> None:
    """Refuse to train or extend a model at which an earlier stage is selected."""
    if selected_stage(model) != stage_names(model)[-1]:
        raise UsageError(
            f"The stage {selected_stage(model)!r} is selected, and only the newest can be trained: call "
            f"lpr_lab.select_stage(model, {stage_names(model)[-1]!r}) first."
        )


def _names(config: MoeLprConfig) -> str:
    return ", ".join(stage["name"] for stage in config.stages)


def set_trainable(model: PeftModel, *, experts: bool, routers: bool) -> None:
    """Say what learns: the newest expansion's experts, the newest stage's routers and classifiers, or both.

    Everything else is frozen, always: expert 0, the experts of earlier expansions and the routers of earlier stages.
    That is what keeps the original languages and the earlier groups where they are.
    """
    require_newest_stage(model)
    newest = len(expansion_config(model).new_experts) - 1
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in moe_layers(model):
        stack = layer.stack_of(newest)
        if stack is not None:
            stack.requires_grad_(experts)
        layer.router.requires_grad_(routers)
        if layer.classifier is not None:
            layer.classifier.requires_grad_(routers)


@contextmanager
def trainable_parts(model: PeftModel, *, experts: bool, routers: bool) -> Iterator[None]:
    """Temporarily make these parts trainable (see `set_trainable`)."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    set_trainable(model, experts=experts, routers=routers)
    try:
        yield
    finally:
        for parameter, learns in before:
            parameter.requires_grad_(learns)
