"""Joins the processes of distributed training (`torchrun`, `accelerate launch` or `mpirun`); usually there is one.

Accelerate's `PartialState` joins them, once per process: what it found then it says for ever. So a state that somebody
made too early, or in another way, could leave every rank alone with the whole training, all writing to one folder.
"""

import os

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env

from lpr_lab.errors import UsageError

_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers say how many processes they started; those that Accelerate itself reads."""
_WAYS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
_OTHER_WAYS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


def join_processes() -> PartialState:
    """Join the processes that were started together and return the state that knows them.

    Raises:
        UsageError: the environment speaks of more processes than Accelerate knows of, so that each would work alone; or
            it asks for a way to share a model that is not ours.
    """
    asked = [name for name in _OTHER_WAYS if parse_flag_from_env(name)]
    if asked:
        raise UsageError(
            f"{', '.join(asked)} asks Accelerate to divide the model over processes; here each process has a whole "
            "copy (DistributedDataParallel). Start with torchrun, or choose multi-GPU or multi-CPU in `accelerate "
            "config`."
        )
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
    return state


def _started() -> tuple[str, int]:
    """Return the variable that names the most processes, and their number; 1 where nobody says anything."""
    sizes = [(name, int(os.environ[name])) for name in _SIZES if os.environ.get(name, "").strip().isdigit()]
    return max(sizes, key=lambda size: size[1], default=("WORLD_SIZE", 1))
