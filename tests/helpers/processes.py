"""Test programs in processes of their own, alone, under torchrun, or as many as torchrun would start."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch.distributed import TCPStore

from helpers import warm

TESTS = Path(__file__).parents[1]
COMMON = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "OMP_NUM_THREADS": "1"}


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
        env={**os.environ, **COMMON, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def run_warm(program: Path, *arguments: str, timeout: float = 300) -> str:
    """As `run_program`, in a process that has the libraries imported, where there is no GPU."""
    if torch.cuda.is_available():
        return run_program(program, *arguments, timeout=timeout)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "printed.txt"
        process = warm.start([str(program), *arguments], env={**os.environ, **COMMON}, output=output)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        assert code == 0, _errors(output)
        return output.read_text(encoding="utf-8")


def run_ranks(
    program: Path,
    *arguments: str,
    processes: int,
    timeout: float = 300,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run a program as so many ranks as torchrun would, in processes with the libraries imported; fail where one fails.

    Args:
        program: a Python file.
        arguments: of the program.
        processes: how many ranks.
        timeout: in seconds.
        variables: further ones of their environment.
    """
    if torch.cuda.is_available():
        run_program(program, *arguments, under=together(processes), timeout=timeout, variables=variables)
        return
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        **os.environ,
        **COMMON,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        **variables,
    }
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"{rank}.txt" for rank in range(processes)]
        ranks = [
            warm.start(
                [str(program), *arguments], env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, output=output
            )
            for rank, output in enumerate(outputs)
        ]
        try:
            while None in (codes := [rank.poll() for rank in ranks]) and not any(codes):
                assert time.monotonic() < deadline, f"{program.name} takes longer than {timeout:.0f} s"
                time.sleep(0.02)
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        assert not any(codes), "\n".join(map(_errors, outputs))


def _errors(output: Path) -> str:
    return output.with_suffix(".err").read_text(encoding="utf-8")[-4000:]
