"""How many processes train together, and whether they can: said before anything starts. Torch-free until it is asked.

It is no setting of an experiment: a run is the same run with one process and with eight. What it learns is the same up
to rounding, and which number each step was made with is recorded.
"""

import os
import sys

from lpr_lab.errors import UsageError
from lpr_lab.experiments.config import Experiment

PROCESSES = "LPR_LAB_PROCESSES"
"""Environment variable: how many processes of this machine a training is to use."""
STAGE_OF = {"expand": "stage1", "review": "stage2"}
"""Budget of each step that trains by gradient."""


def started() -> int:
    """Return how many processes a launcher started together with this one: torchrun's and Accelerate's `WORLD_SIZE`."""
    size = os.environ.get("WORLD_SIZE", "").strip()
    return int(size) if size.isdigit() else 1


def rank() -> int:
    """Return which of the processes that were started together this is; 0 when it is alone."""
    number = os.environ.get("RANK", "").strip()
    return int(number) if number.isdigit() and started() > 1 else 0


def num_processes(given: int | None = None) -> int:
    """Return how many processes a training is to use: as given, else `$LPR_LAB_PROCESSES`, else 1.

    Args:
        given: None where nobody said.

    Raises:
        UsageError: no whole number from 1, or another number than a launcher has already started.
    """
    source, text = ("processes", given) if given is not None else (PROCESSES, os.environ.get(PROCESSES, "").strip())
    if text == "":
        return started()
    if not str(text).isdigit() or int(text) < 1:
        raise UsageError(f"{source} = {text}; expected how many processes train together, a whole number from 1.")
    if started() > 1 and int(text) != started():
        raise UsageError(
            f"{source} = {text}, but WORLD_SIZE = {started()}: this process was started together with others, by "
            "torchrun or `accelerate launch`, and these are what trains. Leave the number of processes to the launcher."
        )
    return int(text)


def check(experiment: Experiment, processes: int) -> None:
    """Refuse what so many processes cannot share, before any work; warn where they outnumber the processor's cores.

    Raises:
        UsageError: a stage's blocks per step cannot be shared equally, or there are fewer GPUs than processes.
    """
    if processes == 1:
        return
    for step in experiment.steps:
        if step in STAGE_OF:
            size = getattr(experiment, STAGE_OF[step]).blocks_per_step
            if size % processes:
                raise UsageError(
                    f"{STAGE_OF[step]}: blocks_per_step = {size} cannot be shared equally by {processes} processes. "
                    f"Use a number of processes that divides it, or a multiple of {processes} blocks."
                )
    if started() == 1:
        _check_machine(processes)


def _check_machine(processes: int) -> None:
    import torch

    gpus, cores = torch.cuda.device_count(), num_cores()
    if gpus and processes > gpus and os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true", "yes"):
        raise UsageError(
            f"{processes} processes need a GPU each, and this machine has {gpus}. Ask for at most {gpus}, or for "
            "processors with ACCELERATE_USE_CPU=true."
        )
    if not gpus and processes > cores:
        print(f"{processes} processes share {cores} cores: they will be slower than {cores}.", file=sys.stderr)


def num_cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
