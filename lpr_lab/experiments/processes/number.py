"""How many processes train together: as given, in the environment, or as a launcher started them. Torch-free.

It is no setting of an experiment: a run is the same run with one process and with eight. What it learns is the same up
to rounding, and which number each step was made with is recorded.
"""

import os

from lpr_lab.errors import UsageError

PROCESSES = "LPR_LAB_PROCESSES"
"""Environment variable: how many processes of this machine a training is to use."""
LED = "LPR_LAB_LED"
"""Environment variable, set for a notebook's process: the command that started it says when the others may go."""


def started() -> int:
    """Return how many processes a launcher started together with this one: torchrun's and Accelerate's `WORLD_SIZE`."""
    size = os.environ.get("WORLD_SIZE", "").strip()
    return int(size) if size.isdigit() else 1


def rank() -> int:
    """Return which of the processes that were started together this is; 0 when it is alone."""
    number = os.environ.get("RANK", "").strip()
    return int(number) if number.isdigit() and started() > 1 else 0


def leads() -> bool:
    """Whether this process is the first of several that were started together."""
    return started() > 1 and rank() == 0


def follows() -> bool:
    """Whether this process is one of several that were started together, and not the first."""
    return rank() > 0


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
