"""A model divided over processes (FSDP2), for a base that does not fit one device.

Asked for in the field's own way, `accelerate launch --use_fsdp --fsdp_version 2` or its variables in the environment.
Every process then holds its part of every tensor on its device: of the frozen base in the precision that it was loaded
in, of what learns in float32, and so of its gradients and of the optimizer's moments. The tensors of one decoder layer
are put together while it computes, all of them on every process, whatever experts its tokens chose; embeddings, last
norm and head stay together from the first layer to the last.

What is divided is a twin, inside a block of `divided`: its modules are its own, and the model that the caller has stays
whole in the memory of the processor, so that loading, saving, upcycling and exporting know nothing of all this. A base
in the precision of its files is mapped from them, and processes of one machine share those pages; what learns is there
once per process.
"""

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from lpr_lab.errors import UnsupportedModelError
from lpr_lab.model.bases.families import decoder_layers
from lpr_lab.model.bases.quantized import quantization_of
from lpr_lab.model.capture import DIVIDED_DECODER, causal_lm_of
from lpr_lab.model.machine import default_device
from lpr_lab.model.parallel.processes import divides_model, join_processes


@contextmanager
def divided(model: nn.Module) -> Iterator[Any]:
    """Give inside the block the model to compute with: a divided twin where that was asked for, else the model itself.

    Every process has to enter the block, and to make equally many forward passes in it: they wait for one another in
    each layer. What learned is written back into the model at the end, on every process; a block that ends with an
    exception leaves the model as it was, for the others may not be there to put tensors together.

    Args:
        model: any; whole, on the processor or on this process's device.

    Raises:
        UnsupportedModelError: a base in four bits, which cannot be divided.
    """
    if not divides_model():
        yield model
        return
    join_processes()
    if quantization_of(model):
        raise UnsupportedModelError(
            f"The base is in four bits ({quantization_of(model)}), which FSDP2 cannot divide. Load it without "
            "quantization in bfloat16, or start without ACCELERATE_USE_FSDP: in four bits it may fit one device."
        )
    twin = _twin_of(model)
    _divide(twin)
    yield twin
    copy_learned(twin, model)
    del twin
    gc.collect()  # modules and their hooks refer to one another, and the device wants its memory back now


@torch.no_grad()
def copy_learned(source: nn.Module, target: nn.Module) -> None:
    """Copy what learns from a divided twin into its model, or back; every process has to. One and the same is left."""
    if source is target:
        return
    numbers = dict(source.named_parameters())
    for name, parameter in target.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(divided_like(whole(numbers[name]), parameter))


def _twin_of(model: nn.Module) -> nn.Module:
    """Return a model with modules and parameter objects of its own on the same numbers: none is copied."""
    parameters = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in model.parameters()}
    buffers = {id(b): b.detach() for b in model.buffers()}
    return copy.deepcopy(model, {**parameters, **buffers})


def _divide(model: nn.Module) -> None:
    """Divide a model in place: each decoder layer by itself, and what is left as a whole."""
    mesh = init_device_mesh(default_device().type, (join_processes().num_processes,))
    given = FullyShardedDataParallelPlugin(fsdp_version=2)
    options: dict[str, Any] = {"mesh": mesh, "shard_placement_fn": lambda parameter: _placement(parameter, mesh)}
    for layer in decoder_layers(causal_lm_of(model)):
        fully_shard(layer, reshard_after_forward=bool(given.reshard_after_forward), **options)
    fully_shard(model, **options)
    vars(model)[DIVIDED_DECODER] = _Decoder(model)


def _placement(parameter: nn.Parameter, mesh: DeviceMesh) -> Shard:
    """Return the dimension to divide: the first, or of a few stacked experts one of which all get an equal part."""
    is_even = [size % mesh.size() == 0 for size in parameter.shape]
    if not any(is_even) or parameter.shape[0] >= 16 * mesh.size():
        return Shard(0)
    return Shard(is_even.index(True))


class _Decoder(nn.Module):
    """Calls a divided model without its head.

    All of it has to be entered by its outermost module, which puts embeddings and last norm together.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.config = causal_lm_of(model).config
        self._is_alone = False
        causal_lm = causal_lm_of(model)
        decoder, with_head = causal_lm.base_model, causal_lm.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._is_alone:
                return with_head(*args, **kwargs)
            # PEFT names what was not given as well, and the decoder does not know all of it.
            return cast("nn.Module", decoder)(*args, **{name: v for name, v in kwargs.items() if v is not None})

        vars(causal_lm)["forward"] = forward

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return causal_lm_of(self.model).device

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model up to its last hidden states."""
        self._is_alone = True
        try:
            return self.model(*args, **kwargs)
        finally:
            self._is_alone = False


# ----------------------------------------------------------------------------------------------- tensors, whole and not


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whole: of a divided one, its parts put together, for which every process has to ask."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor in the precision, on the device and divided as another; nothing is sent."""
    if not isinstance(like, DTensor):
        return tensor.to(like)
    tensor = tensor.to(device=like.to_local().device, dtype=like.dtype)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


# ---------------------------------------------------------------------------------------------------------- gradients


def exchanging(model: nn.Module) -> nn.Module:
    """Return what to call so that gradients become the mean of those of all processes; what it returns is the model's.

    Args:
        model: from `divided`.
    """
    if divides_model() or join_processes().num_processes == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def without_exchange(model: nn.Module) -> AbstractContextManager[Any]:
    """Keep processes from exchanging gradients that are not yet those of the whole step.

    Those of a divided model are exchanged all the same: kept back, each process would have to hold all of them.

    Args:
        model: from `exchanging`.
    """
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def clip_gradients(parameters: Sequence[torch.Tensor], max_norm: float) -> float:
    """Scale gradients down to a norm, that of all their parts on all processes; return the norm before."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    norm = whole(norm)
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return float(norm)
