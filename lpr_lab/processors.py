"""How many processors there are to work with. Torch-free."""

import os


def num_cores() -> int:
    """Return how many processor cores this process may use: those it is bound to, where the system says so."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
