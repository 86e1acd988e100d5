"""Test programs in processes of their own, alone or two together under torchrun."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

TESTS = Path(__file__).parents[1]


def together(processes: int) -> tuple[str, ...]:
    """Return what starts a program that many times, under torchrun."""
    return ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))


TOGETHER = together(2)


def run_program(
    program: Path,
    *arguments: str,
    under: tuple[str, ...] = (),
    timeout: float = 300,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run a program with one thread and the helpers at hand, and return what it printed; fail where it fails.

    Args:
        program: a Python file.
        arguments: of the program.
        under: what runs it.
        timeout: in seconds.
        variables: further ones of its environment.
    """
    done = subprocess.run(
        [sys.executable, *under, str(program), *arguments],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
