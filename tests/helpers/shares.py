"""In which order several workers take the tests: what takes longest first, so that none is left with it at the end."""

from collections.abc import Iterable
from typing import Any

LONGEST = (
    "tests/experiments/test_resume.py",
    "tests/method/training/test_several_processes.py",
    "tests/experiments/processes/test_launch.py",
    "tests/experiments/processes/test_group.py",
    "tests/experiments/sweep/test_run.py",
    "tests/experiments/processes/test_commands.py",
    "tests/test_wheel.py",
    "tests/notebooks/test_stages.py",
    "tests/notebooks/test_quickstart.py",
    "tests/method/test_compute.py",
    "tests/model/test_bitsandbytes.py",
    "tests/experiments/sweep/test_engines.py",
    "tests/method/test_observed.py",
    "tests/load/test_readers.py",
)
"""Files of tests, the longest first."""


def shared(items: Iterable[Any], workers: int) -> list[Any]:
    """Return tests so that each worker begins with long files: `--dist worksteal` gives each an equal part of the list.

    Tests of a file stay together, for they share what is made once for a file.

    Args:
        items: tests with their `nodeid`.
        workers: how many there are; with one the order stays.
    """
    rest = list(items)
    if workers < 2:
        return rest
    total, parts = len(rest), [[] for _ in range(workers)]
    for number, file in enumerate(LONGEST):
        parts[number % workers] += [item for item in rest if item.nodeid.startswith(f"{file}::")]
    rest = [item for item in rest if item.nodeid.partition("::")[0] not in LONGEST]
    for part in parts:
        missing = max(0, total // workers - len(part))
        part += rest[:missing]
        del rest[:missing]
    return [item for part in parts for item in part] + rest
