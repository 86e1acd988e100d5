"""A GPU that is not there: tensors on `cuda` lie in plain memory, and what a real GPU would refuse is refused.

Code for GPUs breaks where tensors of two devices meet, and nobody without one sees it. Inside `pretend_gpu()` a tensor
that was moved to `cuda`, and all that is computed from it, is known to be "there"; an operation that is given tensors
from both places raises what torch raises on a GPU. Memory that nothing was written to reads as NaN, so whoever uses it
is found. Numbers are those of the processor. It says nothing about speed, kernels or rounding.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")

# Copies go from one place to the other, and what indexes a tensor of the GPU may lie on the processor.
_COPIES = ("aten::copy_", "aten::_to_copy")
_BY_INDEX = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


def _tensors_in(value: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in what is given to an operation: torch's own walk, for any tree, takes most of the time."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors_in(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors_in(part)


class _Places:
    """Which storages are on the GPU."""

    def __init__(self) -> None:
        self.refs: dict[int, StorageWeakRef] = {}
        self.within = False  # a call that was given tensors of the GPU: what it makes for itself is there too

    def put(self, tensor: torch.Tensor) -> None:
        ref = StorageWeakRef(tensor.untyped_storage())
        self.refs[ref.cdata] = ref

    def holds(self, tensor: torch.Tensor) -> bool:
        key = tensor.untyped_storage()._cdata
        ref = self.refs.get(key)
        if ref is not None and ref.expired():  # the address has another tenant now
            del self.refs[key]
            return False
        return ref is not None


class _Operations(TorchDispatchMode):
    """Sees every operation, backward passes included."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = list(_tensors_in((args, kwargs)))
        there = [tensor for tensor in tensors if self.places.holds(tensor)]
        name = func.name().split(".")[0]
        may_meet = name in _COPIES or (name in _BY_INDEX and self.places.holds(tensors[0]))
        if there and not may_meet:
            # A number of the processor may take part anywhere: torch lets scalars through.
            here = [tensor for tensor in tensors if not self.places.holds(tensor) and tensor.dim()]
            if here:
                shapes = f"{tuple(there[0].shape)} on cuda:0 and {tuple(here[0].shape)} on cpu"
                raise RuntimeError(f"Expected all tensors to be on the same device: {name} was given {shapes}")
        if name in _COPIES:
            is_there = self.places.holds(tensors[0])
        else:
            is_there = bool(there) if tensors else self.places.within
        outputs = func(*args, **kwargs)
        if is_there and name != "aten::_local_scalar_dense":
            for tensor in _tensors_in(outputs):
                self.places.put(tensor)
        return outputs


class _Calls(TorchFunctionMode):
    """Sees where tensors are asked to be, and answers where they are."""

    def __init__(self, places: _Places) -> None:
        super().__init__()
        self.places = places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return GPU if self.places.holds(args[0]) else func(*args, **kwargs)
        if func == torch.Tensor.is_cuda.__get__:
            return self.places.holds(args[0])
        if func in (torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist):
            return self._leave(func, args, kwargs)
        if func is torch.Tensor.cuda:
            return self._move(args[0], GPU)
        if func is torch.Tensor.to:
            return self._to(args, kwargs)
        if func is torch.Tensor.__deepcopy__:
            copied = func(*args, **kwargs)
            if self.places.holds(args[0]):
                self.places.put(copied)
            return copied
        wanted = kwargs.get("device")
        to_gpu = wanted is not None and torch.device(wanted).type == "cuda"
        if to_gpu:
            kwargs["device"] = CPU
        before = self.places.within
        self.places.within = any(self.places.holds(tensor) for tensor in _tensors_in((args, kwargs)))
        try:
            result = func(*args, **kwargs)
        finally:
            self.places.within = before
        if to_gpu:
            for tensor in _tensors_in(result):
                self.places.put(tensor)
        return result

    def _leave(self, func, args, kwargs):
        if func is torch.Tensor.cpu:
            return self._move(args[0], CPU)
        if func is torch.Tensor.numpy and self.places.holds(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        return func(*args, **kwargs)

    def _to(self, args, kwargs):
        """Follow `tensor.to` in all its forms: a device, a dtype, both, or those of another tensor."""
        tensor, device, dtype = args[0], kwargs.get("device"), kwargs.get("dtype")
        for value in (*args[1:], kwargs.get("other")):
            if isinstance(value, torch.Tensor):
                device, dtype = GPU if self.places.holds(value) else CPU, value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, torch.device | str) or (isinstance(value, int) and not isinstance(value, bool)):
                device = torch.device(value)
        if device is not None:
            tensor = self._move(tensor, torch.device(device))
        return tensor if dtype is None else tensor.to(dtype)

    def _move(self, tensor, device):
        if (device.type == "cuda") == self.places.holds(tensor):
            return tensor
        moved = tensor.clone()
        if device.type == "cuda":
            self.places.put(moved)
        else:
            self.places.refs.pop(moved.untyped_storage()._cdata, None)
        return moved


@contextmanager
def _unwritten_memory_is_nan() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # torch fills what `empty` returns only in this mode
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def pretend_gpu() -> Iterator[None]:
    """Have a GPU inside the block: where models go by default, and where they are trained."""
    import torch._dynamo  # optimisers ask for it, and it must not be imported under the modes below

    from lpr_lab.method.training import train as training
    from lpr_lab.model.bases import load as bases

    class Generator(torch.Generator):
        def __new__(cls, device=None):
            return super().__new__(cls)

    class Autocast(torch.autocast):  # what is computed "there" is rounded as it would be there
        def __init__(self, device_type, *how, **more):
            super().__init__(CPU.type if device_type == GPU.type else device_type, *how, **more)

    def of_the_processor(ask):
        return lambda device_type=GPU.type: ask(CPU.type if device_type == GPU.type else device_type)

    places = _Places()
    with ExitStack() as stack:
        for target, name, value in (
            (bases, "default_device", lambda: GPU),
            (training, "default_device", lambda: GPU),
            (torch, "Generator", Generator),
            (torch, "autocast", Autocast),
            (torch, "is_autocast_enabled", of_the_processor(torch.is_autocast_enabled)),
            (torch, "get_autocast_dtype", of_the_processor(torch.get_autocast_dtype)),
            (torch.cuda, "get_rng_state", lambda device: torch.get_rng_state()),
            (torch.cuda, "set_rng_state", lambda state, device: None),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        stack.enter_context(_unwritten_memory_is_nan())
        stack.enter_context(_Operations(places))
        stack.enter_context(_Calls(places))
        yield
