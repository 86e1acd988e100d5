"""Next-token loss straight from hidden states: logits of the whole vocabulary are made a few rows at a time.

The logits of a micro-batch, with their soft-max and their gradient, are often the largest tensors of a step. Here the
head is applied to some rows, their loss and its gradient are taken at once, and the logits are dropped. Rows without a
target never meet the head.

No family's head is known by name. The head is the model's own `forward` on a copy of its outermost module, without the
decoder, which is handed hidden states instead: so a bias, a scale (Granite, Cohere) and a soft cap (Gemma 2) are the
model's own. Whether that gives the model's logits is seen on a few tokens before anything relies on it; where it does
not, the logits are made whole, as the model makes them.

Torch's own `linear_cross_entropy` does the same for heads that are one matrix product. It was measured and not taken
(docs/performance.md).

Letters: B blocks, S tokens of each, N rows, D model width, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils.generic import ModelOutput

from lpr_lab.errors import one_of
from lpr_lab.model.bases.rounding import logit_tolerance
from lpr_lab.model.capture import causal_lm_of, decoder_within
from lpr_lab.text.packing import NO_TARGET, in_mode

REDUCTIONS = ("sum", "none")
_LOGITS_AT_ONCE = {"cpu": 2**24}
"""By device, how many logits are made at once; 64 MiB of them in float32."""
_LOGITS_ON_ACCELERATORS = 2**27
_PROBE_TOKENS = 8

Head = Callable[[torch.Tensor], torch.Tensor]
"""From hidden states [N, D] to logits [N, V]."""


@contextmanager
def next_token_losses(model: nn.Module, *, whole: bool = False) -> Iterator[bool]:
    """Let `model(**inputs, targets=...)` return next-token losses inside the block; without targets it is as before.

    Called so, a model returns cross entropy in nats, float32: with `reduction="sum"` (the default) the sum over all
    targets, with a gradient; with `reduction="none"` one number per position [B, S], 0 where there is no target, and
    no gradient. `targets` [B, S] are token ids, or -100 where nothing is to be predicted. All that wraps the model and
    is called before it, such as PEFT, DistributedDataParallel and FSDP, is called as for logits.

    Args:
        model: a causal LM, expanded, with another adapter, or plain; on its device.
        whole: make the logits whole in any case: the plain form that tests compare with.

    Yields:
        Whether logits are made a few rows at a time.
    """
    inner = causal_lm_of(model)
    plain = inner.forward
    direct = False

    def forward(*args: Any, targets: torch.Tensor | None = None, reduction: str = "sum", **kwargs: Any) -> Any:
        if targets is None:
            return plain(*args, **kwargs)
        one_of("reduction", reduction, REDUCTIONS)
        if not direct:
            return _of_whole_logits(plain(*args, **kwargs).logits, targets, reduction)
        # PEFT hands on every argument that its own forward has, most of them None.
        given = {name: value for name, value in kwargs.items() if value is not None}
        states = decoder_within(model)(*args, **given).last_hidden_state
        return loss_of_states(inner, states, targets, reduction)

    before = vars(inner).get("forward")
    inner.forward = forward
    try:
        direct = not whole and _is_separable(model)
        yield direct
    finally:
        if before is None:
            del inner.forward
        else:
            inner.forward = before


@contextmanager
def hidden_states(model: nn.Module) -> Iterator[bool]:
    """Let `model(**inputs, only_states=True)` return what its head would read, [B, S, D], inside the block.

    The model is called through all that wraps it, as in `next_token_losses`; `head_of` makes logits of the states.

    Args:
        model: a causal LM, expanded, with another adapter, or plain; on its device.

    Yields:
        Whether that gives the model's logits. Where it does not, the model has to be asked for its logits.
    """
    inner = causal_lm_of(model)
    plain = inner.forward
    before = vars(inner).get("forward")

    def forward(*args: Any, only_states: bool = False, **kwargs: Any) -> Any:
        if not only_states:
            return plain(*args, **kwargs)
        given = {name: value for name, value in kwargs.items() if value is not None}
        return decoder_within(model)(*args, **given).last_hidden_state

    inner.forward = forward
    try:
        yield _is_separable(model)
    finally:
        if before is None:
            del inner.forward
        else:
            inner.forward = before


def rows_at_once(vocabulary: int, device: torch.device) -> int:
    """Return how many rows of logits are made at once.

    >>> rows_at_once(49_152, torch.device("cpu"))
    341
    """
    return max(_LOGITS_AT_ONCE.get(device.type, _LOGITS_ON_ACCELERATORS) // vocabulary, 1)


def head_of(model: nn.Module) -> Head:
    """Return a model's own way from hidden states [N, D] to logits [N, V]; raises whatever the model raises."""
    inner, decoder = causal_lm_of(model), decoder_within(model)
    given = _Given(decoder)
    # Shares every tensor and every module with the model, whose own tree stays as it is. (`copy.copy` would call the
    # constructor of a divided model.)
    shell = object.__new__(type(inner))
    vars(shell).update(vars(inner))
    modules = {name: given if child is decoder else child for name, child in inner._modules.items()}
    vars(shell)["_modules"] = modules
    output = inner.get_output_embeddings()
    rounded = _rounded(output)
    if rounded is not None:
        modules.update({name: rounded for name, child in modules.items() if child is output})

    def head(states: torch.Tensor) -> torch.Tensor:
        given.states = states[None]
        return type(inner).forward(shell).logits[0]

    return head


@dataclass
class _States(ModelOutput):
    """Hidden states and nothing else; what a family hands on from its decoder's output besides them is None."""

    last_hidden_state: torch.Tensor | None = None

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Given:
    """Stands in the decoder's place and returns the states it was given; whatever else is asked of it, it has."""

    def __init__(self, decoder: nn.Module) -> None:
        self._decoder = decoder
        self.states: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> ModelOutput:
        return _States(last_hidden_state=self.states)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)


def _rounded(output: Any) -> nn.Module | None:
    """Return a frozen head with weights as autocast rounds them, or None where it does not or remembers them itself.

    Autocast keeps what it rounded only where it learns; a frozen head would be rounded anew for every few rows.
    """
    if type(output) is not nn.Linear or output.weight.requires_grad:
        return None
    kind = output.weight.device.type
    if not torch.is_autocast_enabled(kind) or output.weight.dtype == torch.get_autocast_dtype(kind):
        return None
    dtype = torch.get_autocast_dtype(kind)
    rounded = copy.copy(output)
    vars(rounded)["_parameters"] = {
        name: None if tensor is None else tensor.detach().to(dtype) for name, tensor in output._parameters.items()
    }
    return rounded


def _is_separable(model: nn.Module) -> bool:
    """Return whether the head on what the decoder returns gives the model's logits, as seen on a few tokens."""
    ids = torch.arange(_PROBE_TOKENS, device=next(model.parameters()).device)[None]
    seen: dict[str, Any] = {}
    inner = causal_lm_of(model)
    outer = inner.forward

    def both(*args: Any, **kwargs: Any) -> Any:
        given = {name: value for name, value in kwargs.items() if value is not None}
        output = outer(*args, **kwargs)
        seen["logits"], seen["dtype"] = output.logits[0].float(), output.logits.dtype
        try:
            states = decoder_within(model)(*args, **given).last_hidden_state
            seen["own"] = head_of(model)(states[0]).float()
        except Exception:  # whatever a family says to being taken apart: then it is left whole
            seen["own"] = None
        return output

    inner.forward = both
    try:
        with in_mode(model, training=False), torch.no_grad():
            model(input_ids=ids, use_cache=False)
    finally:
        inner.forward = outer
    wanted, own = seen.get("logits"), seen.get("own")
    if wanted is None or own is None or own.shape != wanted.shape:
        return False
    computed = "float32" if seen["dtype"] == torch.float32 else "bfloat16"
    return float((own - wanted).abs().max()) <= logit_tolerance(float(wanted.abs().max()), computed)


def _of_whole_logits(logits: torch.Tensor, targets: torch.Tensor, reduction: str) -> torch.Tensor:
    """Return the losses of logits [B, S, V] that were made whole."""
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, reduction=reduction
    )
    return losses if reduction == "sum" else losses.view(targets.shape)


def loss_of_states(model: nn.Module, states: torch.Tensor, targets: torch.Tensor, reduction: str) -> torch.Tensor:
    """Return the losses of hidden states [B, S, D]; for arguments and result see `next_token_losses`."""
    head, flat, chosen = head_of(model), states.flatten(0, 1), targets.flatten()
    has_target = chosen != NO_TARGET
    if not has_target.all():
        flat, chosen = flat[has_target], chosen[has_target]
    rows = rows_at_once(causal_lm_of(model).config.get_text_config().vocab_size, states.device)
    if reduction == "sum":
        return _LossSum.apply(head, rows, flat, chosen, *_head_weights(model))
    losses = torch.zeros(targets.shape, device=states.device).flatten()
    pieces = zip(flat.split(rows), chosen.split(rows), strict=True)
    with torch.no_grad():
        losses[has_target] = torch.cat(
            [F.cross_entropy(head(piece).float(), of_piece, reduction="none") for piece, of_piece in pieces]
        )
    return losses.view(targets.shape)


def _head_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return what learns of everything beside the decoder, and of what the decoder shares with it (tied embeddings)."""
    inner, decoder = causal_lm_of(model), decoder_within(model)
    outside = (child for child in inner.children() if child is not decoder)
    return [parameter for child in outside for parameter in child.parameters() if parameter.requires_grad]


class _LossSum(torch.autograd.Function):
    """Summed loss of a few rows after another, each with its gradient at once, so that no logits outlive their rows.

    The gradient of a sum is known up to one factor before the backward pass asks for it, so nothing runs twice.
    """

    @staticmethod
    def forward(
        ctx: Any, head: Head, rows: int, states: torch.Tensor, targets: torch.Tensor, *weights: torch.Tensor
    ) -> torch.Tensor:
        ctx.gradients = []
        total = torch.zeros((), device=states.device)
        if not any(ctx.needs_input_grad):
            for piece, of_piece in zip(states.split(rows), targets.split(rows), strict=True):
                total += F.cross_entropy(head(piece).float(), of_piece, reduction="sum")
            return total
        of_states, of_weights = torch.zeros_like(states), [torch.zeros_like(weight) for weight in weights]
        for start in range(0, len(states), rows):
            piece = states[start : start + rows].detach().requires_grad_()
            with torch.enable_grad():
                logits = head(piece).float()
            # In place from here on: no more than two tensors of this size at once, and one pass over them less.
            log_probs = logits.detach().log_softmax(-1)
            places = targets[start : start + rows, None]
            total -= log_probs.gather(1, places).sum()
            gradient = log_probs.exp_().scatter_add_(1, places, log_probs.new_full(places.shape, -1.0))
            own, *others = torch.autograd.grad(logits, [piece, *weights], gradient)
            del logits, log_probs, gradient
            of_states[start : start + rows] = own
            for sum_, other in zip(of_weights, others, strict=True):
                sum_ += other
        ctx.gradients = [of_states, *of_weights]
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_states, *of_weights = (gradient * grads[0].to(gradient.dtype) for gradient in ctx.gradients)
        return None, None, of_states, None, *of_weights
