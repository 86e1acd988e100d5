"""Attention implementation, activation checkpointing and compilation during a training stage, undone at its end.

None of these choices changes what a model learns beyond rounding. `TrainSettings` names them; what runs only on a GPU
has tests marked `gpu`.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from lpr_lab.errors import UnsupportedModelError, UsageError, one_of
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.families import decoder_layers
from lpr_lab.model.capture import causal_lm_of
from lpr_lab.model.observe import EXPERTS, inductor

FLASH = "flash_attention_2"
ATTENTIONS = ("auto", "as_loaded", FLASH)
CHECKPOINTINGS = (False, True, EXPERTS)
"""What is run again in the backward pass: nothing, whole layers, or each expert by itself."""
# What transformers sets where layers run again.
_CHECKPOINTING = (
    "gradient_checkpointing",
    "_gradient_checkpointing_func",
    "_require_grads_hooks",
    "_require_grads_hook",
)


def check_attention(attention: str) -> None:
    """Refuse a name that `resolve_attention` does not know.

    Raises:
        UsageError: with the closest one.
    """
    one_of("attention", attention, ATTENTIONS)


def check_checkpointing(activation_checkpointing: bool | str) -> None:
    """Refuse what is none of `CHECKPOINTINGS`.

    Raises:
        UsageError: with what there is.
    """
    if activation_checkpointing not in CHECKPOINTINGS:
        raise UsageError(
            f"activation_checkpointing = {activation_checkpointing!r}; expected False, True (whole layers) or "
            f"{EXPERTS!r}."
        )


def resolve_attention(attention: str, model: nn.Module, precision: str) -> str:
    """Return `flash_attention_2` or `as_loaded` for `auto`: the former where it is installed and computes this model.

    Args:
        attention: one of `ATTENTIONS`.
        model: on the device it will be trained on.
        precision: `bf16` or `fp32`; flash attention has no other than half precision.

    Raises:
        UsageError: an unknown name, or flash attention asked for where it cannot be had, with the reason.
    """
    check_attention(attention)
    if attention == "as_loaded":
        return attention
    obstacle = _obstacle_to_flash(causal_lm_of(model), precision)
    if obstacle and attention == FLASH:
        raise UsageError(f"attention = {FLASH!r}, but {obstacle}. Leave it at 'auto', which takes it where it can.")
    return "as_loaded" if obstacle else FLASH


def _obstacle_to_flash(model: PreTrainedModel, precision: str) -> str:
    if model.device.type != "cuda":
        return f"it runs on CUDA only, and this model is on {model.device.type}"
    if precision != "bf16":
        return f"it computes in bf16, and precision is {precision}"
    if not is_flash_attn_2_available():
        return "the package flash-attn is not installed"
    if not model._supports_flash_attn:
        return f"transformers has none for {model.config.model_type}"
    # What is pooled over a row would be pooled over all rows, which flash attention sees as one.
    if any(layer.classifier is not None and layer.classifier.pools_sequence for layer in moe_layers(model)):
        return "a routing classifier of this model pools whole rows"
    return ""


@contextmanager
def compute_options(
    model: nn.Module,
    *,
    attention: str = "as_loaded",
    activation_checkpointing: bool | str = False,
    compiled: bool = False,
) -> Iterator[None]:
    """Set how the model computes inside the block, and undo it afterwards.

    Args:
        model: an expanded model, one with another adapter, or a plain one, in training mode.
        attention: from `resolve_attention`. Under `flash_attention_2`, packed documents stay apart only in batches of
            one row: make one of all with `as_one_row`.
        activation_checkpointing: keep of each layer its input alone and run it again in the backward pass: about a
            third more time for a fraction of the memory that activations take. `experts`: keep of each expert its input
            and its output, and make its way up again: about a fifth more products, and attention is kept.
        compiled: compile what surrounds the mixtures: attention, norms and residual sums. The mixtures themselves
            divide their tokens by numbers that no compiler knows, and stay as they are.

    Raises:
        UnsupportedModelError: transformers has no activation checkpointing for this model.
    """
    inner = causal_lm_of(model)
    with ExitStack() as stack:
        if attention != "as_loaded":
            configs = {id(part.config): part.config for part in inner.modules() if isinstance(part, PreTrainedModel)}
            stack.enter_context(_restore_attributes(configs.values(), "_attn_implementation_internal"))
            inner.set_attn_implementation(attention)
        if activation_checkpointing == EXPERTS:
            layers = moe_layers(model)
            stack.enter_context(_restore_attributes(layers, "checkpoint"))
            for layer in layers:
                layer.checkpoint = partial(checkpoint, use_reentrant=False)
        elif activation_checkpointing and not inner.is_activation_checkpointing:
            if not inner.supports_gradient_checkpointing:
                raise UnsupportedModelError(
                    f"transformers has no activation checkpointing for {inner.config.model_type}; train with "
                    "activation_checkpointing=False and fewer blocks_per_forward."
                )
            stack.enter_context(_restore_attributes(inner.modules(), *_CHECKPOINTING))
            inner.activation_checkpointing_enable()
            inner.disable_input_require_grads()  # else layers below the lowest expert would take part in the backward
        if compiled:
            stack.enter_context(_restore_attributes(inner.modules(), "forward", "_compiled_call_impl"))
            for layer in moe_layers(model):
                vars(layer)["forward"] = torch.compiler.disable(layer.forward)
            for block in decoder_layers(inner):
                block.compile(backend=inductor)
        yield


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a model on a device inside the block, and back where it was after it."""
    before = next(model.parameters()).device
    if (before.type, before.index or 0) == (device.type, device.index or 0):
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


@contextmanager
def fresh_gradients(model: nn.Module) -> Iterator[None]:
    """Begin the block without gradients, whoever left some, and leave none."""
    model.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        model.zero_grad(set_to_none=True)


def as_one_row(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return blocks [B, S] as one row [1, B·S].

    Flash attention reads where documents end from positions that begin anew at 0, and transformers lets it do so for
    a single row only: with more, it attends across documents without a word. Every block begins at position 0
    (`text.packing.pack`), so in one row the blocks stay apart as well.
    """
    return {name: tensor.reshape(1, -1) for name, tensor in batch.items()}


@contextmanager
def _restore_attributes(objects: Iterable[Any], *names: str) -> Iterator[None]:
    """Give objects back those attributes of their own that they had, and no others of these names."""
    before = [(thing, {name: vars(thing)[name] for name in names if name in vars(thing)}) for thing in objects]
    try:
        yield
    finally:
        for thing, kept in before:
            for name in names:
                vars(thing).pop(name, None)
            vars(thing).update(kept)
