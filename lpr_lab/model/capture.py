"""Reads routing and MLP inputs from a running model, and always stops reading at the end.

Training losses, analysis and the dashboard all use these contexts; nothing else looks inside a running model.

Letters: B batch, S sequence, T = B·S tokens, D model width, E experts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from lpr_lab.model.adapter import forward_context
from lpr_lab.model.families import find_decoder_mlps
from lpr_lab.model.router import Routing


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

    def see_routing(self, layer: int, routing: Routing, shape: tuple[int, int]) -> None:
        """Keep the first sight of a layer: activation checkpointing shows it a second time during the backward."""
        self.shape = (shape[0], shape[1])
        self.routing.setdefault(layer, routing)


@contextmanager
def record_routing(model: nn.Module) -> Iterator[RoutingRecord]:
    """Record the routing of every forward pass made inside the block; the record holds the latest one.

    Example:
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
    inner = cast("PreTrainedModel", model.get_base_model() if isinstance(model, PeftModel) else model)
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
