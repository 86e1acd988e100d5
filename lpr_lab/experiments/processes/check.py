"""Whether so many processes can train an experiment on this machine: said before anything starts."""

import os

import torch
from accelerate.utils import str_to_bool

from lpr_lab.errors import UsageError
from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.processes.number import started
from lpr_lab.processors import num_cores
from lpr_lab.progress import remark

STAGE_OF = {"expand": "stage1", "one_stage": "stage1", "review": "stage2", "finetune": "stage1"}
"""Budget of each step that trains by gradient."""


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
    gpus, cores = torch.cuda.device_count(), num_cores()
    if gpus and processes > gpus and not str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "no")):
        raise UsageError(
            f"{processes} processes need a GPU each, and this machine has {gpus}. Ask for at most {gpus}, or for "
            "processors with ACCELERATE_USE_CPU=true."
        )
    if not gpus and processes > cores:
        remark(f"{processes} processes share {cores} cores: they will be slower than {cores}.")
