"""Hooks that capture routing, MLP inputs and attention outputs during forward passes, removed afterwards.

Training losses, analysis and the dashboard all use these contexts; nothing else looks inside a running model.

Letters: B batch, S sequence, T = B·S tokens, D model width, E experts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lpr_lab.errors import UnsupportedModelError
from lpr_lab.model.adapter import forward_context
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.peft import PeftModel
from lpr_lab.model.router import Routing

DIVIDED_DECODER = "_divided_decoder"
"""Attribute of a divided model that holds what calls its decoder (see `parallel.sharding`)."""


class RoutingRecord:
    """Routing of the latest forward pass, per decoder layer.

    Attributes:
        routing: layer index -> `Routing` of T = B·S tokens, in the order of `input_ids.flatten()`.
        shape: (B, S) of that pass.
    """

    def __init__(self) -> None:
        self.routing: dict[int, Routing] = {}
        self.shape: tuple[int, int] = (0, 0)

    def begin(self) -> None:
        """Forget the previous forward pass."""
        self.routing = {}

    def add_routing(self, layer: int, routing: Routing, shape: tuple[int, int]) -> None:
        """Keep the first sight of a layer: activation checkpointing shows it a second time during the backward."""
        self.shape = (shape[0], shape[1])
        self.routing.setdefault(layer, routing)


@contextmanager
def record_routing(model: nn.Module) -> Iterator[RoutingRecord]:
    """Record the routing of every forward pass made inside the block; the record holds the latest one.

    Examples:
        >>> with record_routing(model) as record:  # doctest: +SKIP
        ...     model(**batch)
        ...     record.routing[0].router_logits.shape
    """
    context = forward_context(model)
    record = RoutingRecord()
    context.recorders.append(record)
    try:
        yield record
    finally:
        context.recorders.remove(record)


@contextmanager
def watch_mlp_inputs(model: nn.Module, see: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Call `see(layer, x)` with the input [B, S, D] of every decoder MLP that runs inside the block.

    Works on dense and on upcycled models, adapter enabled or not: what is seen is the tensor the router reads.
    """
    inner = causal_lm_of(model)
    handles = []
    try:
        for mlp in find_decoder_mlps(inner):

            def hook(_: nn.Module, args: tuple[torch.Tensor, ...], layer: int = mlp.layer) -> None:
                see(layer, args[0])

            handles.append(mlp.module.register_forward_pre_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def watch_attention_outputs(model: nn.Module, see: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Call `see(layer, a)` with what each decoder layer's attention block returns, [B, S, D], inside the block.

    That is the output of the attention module itself, before any norm and before the residual is added.

    Raises:
        UnsupportedModelError: a layer in which it is not clear which part is the attention.
    """
    handles = []
    try:
        for layer, module in enumerate(_attention_blocks(causal_lm_of(model))):

            def hook(_: nn.Module, __: tuple[Any, ...], output: Any, layer: int = layer) -> None:
                see(layer, output[0] if isinstance(output, tuple) else output)

            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def causal_lm_of(model: nn.Module) -> PreTrainedModel:
    """Return the causal LM itself, without PEFT's wrapping but with whatever adapter sits in it."""
    return cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)


def decoder_of(model: nn.Module) -> PreTrainedModel:
    """Return the model without its head: calling it saves the product with the vocabulary, often the largest of all.

    Takes what the model takes (`input_ids`, `position_ids`, `use_cache`), expansion included.
    """
    return cast("PreTrainedModel", vars(model).get(DIVIDED_DECODER, decoder_within(model)))


def decoder_within(model: nn.Module) -> PreTrainedModel:
    """Return the decoder itself, for what runs inside a forward pass: a divided model is whole only there."""
    return cast("PreTrainedModel", causal_lm_of(model).base_model)


def _attention_blocks(model: PreTrainedModel) -> list[nn.Module]:
    """Return each decoder layer's attention: the one part beside the MLP that has linear maps (norms have none)."""
    blocks = []
    for mlp in find_decoder_mlps(model):
        parent, _, mlp_name = mlp.path.rpartition(".")
        children = dict(model.get_submodule(parent).named_children())
        found = [name for name, child in children.items() if name != mlp_name and _has_linear_maps(child)]
        if len(found) != 1:
            raise UnsupportedModelError(
                f"Layer {mlp.layer} of {model.config.name_or_path or type(model).__name__} has "
                f"{len(found) or 'no'} parts with linear maps beside its {mlp_name} ({', '.join(children)}); expected "
                "exactly one, the attention. Compare MLP inputs instead: state='mlp_input'."
            )
        blocks.append(children[found[0]])
    return blocks


def _has_linear_maps(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Linear | Conv1D) for part in module.modules())
