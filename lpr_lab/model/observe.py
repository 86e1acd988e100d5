"""Observes at run time what a forward pass computed with: precision, attention, checkpointing, compilation.

What was asked for is no evidence: a missing wrapper, or one that was there before, changes it silently.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface
from transformers.pytorch_utils import Conv1D

from lpr_lab.errors import LprError
from lpr_lab.model.bf16_products import are_widened
from lpr_lab.model.capture import causal_lm_of
from lpr_lab.model.mixture import all_layers

_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
EXPERTS = "experts"
"""The activation checkpointing that runs experts again, and not whole layers."""
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::_grouped_mm")
_compiled_watchers: list[Callable[[set[str]], None]] = []


@dataclass
class Observed:
    """What was seen of a step.

    Attributes:
        products: the precisions in which linear maps and experts computed.
        unexpected: the first part that computed in another than it should, its precision, and the one expected.
        attention: names of the attention implementations that were called.
        recomputed: whether a layer ran again in the backward pass.
        experts_recomputed: whether an expert did, called by itself.
        compiled: whether compiled code ran.
        widened: whether products of bfloat16 numbers were made by way of float32.
    """

    products: set[torch.dtype] = field(default_factory=set)
    unexpected: tuple[str, torch.dtype, torch.dtype] | None = None
    attention: set[str] = field(default_factory=set)
    recomputed: bool = False
    experts_recomputed: bool = False
    compiled: bool = False
    widened: bool = False

    @property
    def precision(self) -> str:
        """`bf16`, `fp32` or another name; several where products differed."""
        return _several({precision_name(dtype) for dtype in self.products})

    def add_product(self, name: str, dtype: torch.dtype, expected: torch.dtype) -> None:
        """Take in the precision of one product."""
        self.products.add(dtype)
        if dtype != expected and self.unexpected is None:
            self.unexpected = name, dtype, expected

    def facts(self) -> dict[str, Any]:
        """Return what results say of it: precision, and attention, activation_checkpointing and compile beside it."""
        again = self.recomputed or (EXPERTS if self.experts_recomputed else False)
        ways: dict[str, Any] = {"activation_checkpointing": again, "compile": self.compiled}
        if self.widened:
            ways["bf16_products"] = "by way of float32"
        return {"precision": self.precision, "computed_with": {"attention": _several(self.attention), **ways}}


def precision_name(dtype: torch.dtype) -> str:
    """Return the short name of a precision.

    >>> precision_name(torch.bfloat16)
    'bf16'
    """
    return _NAMES.get(dtype, str(dtype).removeprefix("torch."))


@contextmanager
def observe(model: nn.Module, seen: Observed, autocast: torch.dtype | None) -> Iterator[None]:
    """Observe what runs inside the block, in this thread; afterwards nothing is left on the model.

    Args:
        model: an expanded model, one with another adapter, or a plain one. What `compute_options` compiles is seen from
            outside only: its attention, and of its products those of experts and head.
        seen: takes in what is seen.
        autocast: the precision that products should be made in; None for that of the weights, part by part.

    Raises:
        LprError: at the end of the block, when products were made in another precision.
    """
    inner = causal_lm_of(model)
    compiled = [block for block in inner.modules() if block._compiled_call_impl is not None]
    within = {part for block in compiled for part in block.modules()}
    with ExitStack() as stack:
        for name, part in inner.named_modules():
            # Other linear maps (four bits, adapters) hand on another precision than they compute in.
            if type(part) in (nn.Linear, Conv1D) and part not in within:
                hook = _product_hook(seen, name, autocast or cast("torch.dtype", part.weight.dtype))
                stack.callback(part.register_forward_hook(hook).remove)
        for layer in all_layers(inner):
            name = f"the experts of layer {layer.layer}"
            watched = _watching_products(layer.dispatch, seen, name, autocast)
            stack.enter_context(mock.patch.object(layer, "dispatch", watched))
            if layer.checkpoint is not None:
                counted = _counting(layer.checkpoint, seen, "experts_recomputed")
                stack.enter_context(mock.patch.object(layer, "checkpoint", counted))
        for part in inner.modules():
            again = vars(part).get("_gradient_checkpointing_func")
            if again is not None:
                counted = _counting(again, seen, "recomputed")
                stack.enter_context(mock.patch.object(part, "_gradient_checkpointing_func", counted))
        if compiled:
            # Patching what compiled code calls would have it compiled once more: its graphs say what they call.
            stack.callback(_compiled_watchers.remove, watcher := _see_compiled(seen))
            _compiled_watchers.append(watcher)
        else:
            stack.enter_context(_attention_watched(seen))
        yield
    seen.widened = are_widened()
    if seen.unexpected is not None:
        name, found, expected = seen.unexpected
        raise LprError(
            f"Matrix products were to be made in {precision_name(expected)}, but {name} made one in "
            f"{precision_name(found)}. Something else changes the precision of this model, such as a wrapper around "
            "its forward, a hook, or an autocast around this call. Take it away, or load the model anew."
        )


def inductor(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
    """Compile as `torch.compile` does, and let `observe` know when what was compiled runs: a backend for it."""
    from torch._dynamo import lookup_backend  # seconds to import, and whoever compiles has done it

    run = lookup_backend("inductor")(graph, inputs)
    attention = _attention_in(graph)

    def compiled(*args: Any) -> Any:
        for see in tuple(_compiled_watchers):
            see(attention)
        return run(*args)

    return compiled


# -------------------------------------------------------------------------------------------------------- pieces


def _several(names: set[str]) -> str:
    return " and ".join(sorted(names)) or "not seen"


def _product_hook(seen: Observed, name: str, expected: torch.dtype) -> Callable[..., None]:
    def hook(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            seen.add_product(name, output.dtype, expected)

    return hook


class _Products(TorchDispatchMode):
    """Sees the precision of every matrix product."""

    def __init__(self, see: Callable[[torch.dtype], None]) -> None:
        super().__init__()
        self._see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.name().split(".")[0] in _PRODUCTS:
            self._see(result.dtype)
        return result


def _watching_products(
    dispatch: Callable[..., Any], seen: Observed, name: str, autocast: torch.dtype | None
) -> Callable[..., Any]:
    def watched(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with _Products(lambda dtype: seen.add_product(name, dtype, autocast or x.dtype)):
            return dispatch(x, *args, **kwargs)

    return watched


def _counting(again: Callable[..., Any], seen: Observed, what: str) -> Callable[..., Any]:
    """Return a checkpointing function that notices when what it keeps no states of runs a second time."""

    def counted(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        runs = 0

        def run(*given: Any, **named: Any) -> Any:
            nonlocal runs
            runs += 1
            if runs > 1:
                setattr(seen, what, True)
            return function(*given, **named)

        return again(run, *args, **kwargs)

    return counted


def _see_compiled(seen: Observed) -> Callable[[set[str]], None]:
    def see(attention: set[str]) -> None:
        seen.compiled = True
        seen.attention |= attention

    return see


@contextmanager
def _attention_watched(seen: Observed) -> Iterator[None]:
    plain, thread = AttentionInterface.get_interface, threading.get_ident()

    def get_interface(self: AttentionInterface, attn_implementation: str, default: Callable[..., Any]) -> Any:
        found = plain(self, attn_implementation, default)
        if threading.get_ident() == thread:
            seen.attention.add("eager" if found is default else attn_implementation)
        return found

    with mock.patch.object(AttentionInterface, "get_interface", get_interface):
        yield


def _attention_in(graph: torch.fx.GraphModule) -> set[str]:
    called = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    kinds = {"scaled_dot_product_attention": "sdpa", "flash_attn": "flash_attention_2", "softmax": "eager"}
    return {kind for mark, kind in kinds.items() if any(mark in target for target in called)}
