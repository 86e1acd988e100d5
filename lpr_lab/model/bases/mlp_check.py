"""Checks before upcycling that a new expert with an MLP's weights computes the same as the MLP.

`families` recognises an MLP by the linear maps it is made of. Its forward pass may do more with them: BitNet normalises
between the maps, Gemma 3n keeps only the largest activations, others clamp, scale or add. A new expert would then be no
copy, and the upcycled model not the base, without a word. So every MLP is run once beside a copy, on a few
random tokens, as in evaluation and as in training.

Letters: T tokens, D model width.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from lpr_lab.errors import UnsupportedModelError
from lpr_lab.model.bases.families import DecoderMLP, read_mlp
from lpr_lab.model.bases.quantized import is_quantized
from lpr_lab.model.experts import ExpertStack
from lpr_lab.model.machine import seed_device
from lpr_lab.text.packing import in_mode

_SCALES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Sizes of the tokens that are tried: a clamp acts on large ones only, an added constant shows on small ones."""

_TOKENS_PER_SCALE = 3

_TOLERANCE = 1e-3
_TOLERANCE_PACKED = 0.05
"""The largest difference that rounding explains, relative to the token's largest output. MLPs are compared in float32;
only one in four bits multiplies in whatever precision its packing has."""


@torch.no_grad()
def refuse_nonstandard_mlps(mlps: Sequence[DecoderMLP], family: str) -> None:
    """Refuse MLPs that compute something else than a new expert with their weights would.

    Args:
        mlps: of the decoder layers that get new experts.
        family: what messages call the model, such as `bitnet`.

    Raises:
        UnsupportedModelError: with the layer, the class of the MLP and the largest difference.
    """
    for mlp in mlps:
        what = f"The feed-forward block {type(mlp.module).__name__} of {family}, layer {mlp.layer},"
        for name, parameter in mlp.module.named_parameters():
            if parameter.is_meta:
                raise UnsupportedModelError(
                    f"{what} is not in memory ({name} is on the meta device); load the base whole, without offloading."
                )
        _refuse_other_function(mlp.module, what)


def _refuse_other_function(mlp: nn.Module, what: str) -> None:
    packed = any(is_quantized(parameter) for parameter in mlp.parameters())
    if not packed:
        mlp = copy.deepcopy(mlp).float()
    weights = read_mlp(mlp)
    expert = ExpertStack(weights, 1)
    expert.copy_from(weights)
    tokens = _tokens(weights.up.shape[1]).to(weights.up)
    for training in (False, True):
        copied = _run(expert, training, lambda: expert.expert(0, tokens))
        for x in (tokens, tokens[None]):  # as dispatch calls it, and as the decoder layer does
            try:
                output = _run(mlp, training, lambda x=x: mlp(x))
            except TypeError as error:
                raise UnsupportedModelError(
                    f"{what} cannot be upcycled: it takes more than tokens ({error})."
                ) from error
            difference = _relative_difference(output, copied)
            if difference > (_TOLERANCE_PACKED if packed else _TOLERANCE):
                raise UnsupportedModelError(
                    f"{what} cannot be upcycled, because it does more than its linear maps and their activation: a "
                    f"copy of them differs by {difference:.2g} times a token's largest output"
                    f"{' in training' if training else ''}. Choose a base whose feed-forward blocks do no more, such "
                    "as a Llama, a Qwen or a Gemma 3."
                )


def _tokens(width: int) -> torch.Tensor:
    """Return random tokens of several sizes, float32 [T, D], the same ones each time."""
    shape = (len(_SCALES), _TOKENS_PER_SCALE, width)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (x * torch.tensor(_SCALES)[:, None, None]).flatten(0, 1)


def _relative_difference(output: object, copied: torch.Tensor) -> float:
    """Return the largest difference over all tokens, relative to the token's largest output; inf for another shape."""
    if not isinstance(output, torch.Tensor) or output.numel() != copied.numel():
        return float("inf")
    left, right = output.reshape(copied.shape).float(), copied.float()
    largest = torch.maximum(left.abs(), right.abs()).amax(-1).clamp(min=torch.finfo(torch.float32).tiny)
    return float(((left - right).abs().amax(-1) / largest).nan_to_num(nan=torch.inf).max())


def _run(module: nn.Module, training: bool, call: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Call a module in training or evaluation, with the same random numbers each time, and leave no trace."""
    device = next(module.parameters()).device
    with (
        in_mode(module, training=training),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.autocast(device.type, enabled=False),
    ):
        seed_device(device, 0)
        return call()
