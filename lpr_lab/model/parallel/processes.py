"""Joins the processes of distributed training (`torchrun`, `accelerate launch` or `mpirun`); usually there is one.

Accelerate's `PartialState` joins them, once per process: what it found then it says for ever. So a state that somebody
made too early, or in another way, could leave every rank alone with the whole training, all writing to one folder.
"""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env

from lpr_lab.errors import UsageError

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes they started; those that Accelerate itself reads."""
_WAYS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
_OTHER_WAYS = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


def join_processes() -> PartialState:
    """Join the processes that were started together and return the state that knows them.

    Raises:
        UsageError: the environment speaks of more processes than Accelerate knows of, so that each would work alone; or
            it asks for a way to share a model that is not ours.
    """
    asked = [name for name in _OTHER_WAYS if parse_flag_from_env(name)]
    if asked:
        raise UsageError(
            f"{', '.join(asked)} asks Accelerate for a way to divide the model that is not ours; expected whole copies "
            "(start with torchrun, or choose multi-GPU or multi-CPU in `accelerate config`) or FSDP with "
            "fsdp_version: 2."
        )
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        _check_fsdp()
    threads = torch.get_num_threads()
    state = PartialState(cpu=not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"))
    if torch.get_num_threads() != threads:
        # Accelerate divides the cores where nobody did. But sums round by the number of threads, and what was computed
        # before has to come out the same after.
        torch.set_num_threads(threads)
    name, expected = _started()
    if expected > state.num_processes:
        raise UsageError(
            f"{name} = {expected}, so {expected} processes were started together, but Accelerate knows of "
            f"{state.num_processes}: each would train alone, into the same folder. Either something made an "
            "accelerate.PartialState() or Accelerator() before lpr_lab did (remove it, or make it after the first "
            f"call), or the launcher is not one that it knows (start with torchrun). To train alone, unset {name}."
        )
    if state.distributed_type not in _WAYS:
        raise UsageError(
            f"Accelerate shares work by {state.distributed_type.value}, which was never tried here; expected GPUs "
            "(CUDA) or processors, started with torchrun."
        )
    if state.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return state


def _leave() -> None:
    """Part from the other processes in order when this one ends: threads that wait for them may abort it otherwise."""
    PartialState().destroy_process_group()


def divides_model() -> bool:
    """Say whether the environment asks that the processes divide a model among them (FSDP2): one alone never does."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP") and _started()[1] > 1


@contextmanager
def every_process_reads() -> Iterator[None]:
    """Have every process read a model that is loaded in this block, also where transformers would fill that of rank 0.

    It does so when told that Accelerate sends the others their numbers; here each maps the same files.
    """
    name = "FSDP_CPU_RAM_EFFICIENT_LOADING"
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def _check_fsdp() -> None:
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise UsageError(
            f"ACCELERATE_USE_FSDP asks for FSDP in version {version}; expected 2, which keeps frozen and trained "
            "parameters apart. Set FSDP_VERSION=2, or fsdp_version: 2 in the file of `accelerate config`."
        )
    if parse_flag_from_env("FSDP_OFFLOAD_PARAMS"):
        raise UsageError(
            "FSDP_OFFLOAD_PARAMS asks to keep the parts in the memory of the processor, which was never tried here; "
            "unset it (fsdp_offload_params: false), and take more processes where parts do not fit."
        )


def _started() -> tuple[str, int]:
    """Return the variable that names the most processes, and their number; 1 where nobody says anything."""
    sizes = [(name, int(os.environ[name])) for name in _SIZES if os.environ.get(name, "").strip().isdigit()]
    return max(sizes, key=lambda size: size[1], default=("WORLD_SIZE", 1))
