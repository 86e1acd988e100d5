"""A notebook under torchrun or `accelerate launch`: the first process executes it, the others train with it.

Torch is imported only where there are other processes.
"""

from pathlib import Path


def follow() -> Path:
    """Work with the first process on what its notebook shares, until it is done; return the run that it made."""
    from lpr_lab.experiments.processes.group import follow
    from lpr_lab.experiments.ranks import work

    return follow(work)


def release(path: Path) -> None:
    """Tell the other processes that the notebook is done, and which run it made."""
    from lpr_lab.experiments.processes.group import release

    release(path)
