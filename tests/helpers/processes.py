"""Test programs in processes of their own, alone or two together under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
TOGETHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def run_program(program: Path, *arguments: str, under: tuple[str, ...] = (), timeout: float = 300) -> str:
    """Run a program with one thread and the helpers at hand, and return what it printed; fail where it fails."""
    done = subprocess.run(
        [sys.executable, *under, str(program), *arguments],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
