"""New processes that have torch and all that comes with it imported: a plain one takes seven seconds for that.

They are forked from one process per test worker, which has imported libraries and done nothing else (the fork server of
`multiprocessing`): nothing that a test did reaches them. What is about imports or about the start of a process belongs
into plain ones. Where there is a GPU all are plain, for what touched CUDA cannot be forked.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

TESTS = Path(__file__).parents[1]
LIBRARIES = ("lpr_lab.experiments.pipeline", "transformers.models.llama.modeling_llama", "ipykernel.kernelapp")


@cache
def context() -> Any:
    """Return how such processes are started, with the process that they are forked from at work."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(LIBRARIES))
    with mock.patch.dict(os.environ, PYTHONPATH=f"{TESTS.parent}:{TESTS}", OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return found


class Warm:
    """A program in such a process, with what `subprocess.Popen` has of it."""

    stdin = stdout = stderr = None

    def __init__(self, process: ForkServerProcess):
        self._process = process
        process.start()
        self.pid: int = process.pid  # pyright: ignore[reportAttributeAccessIssue]  # it was started
        with suppress(ProcessLookupError):  # it may be over already
            while self.poll() is None and os.getpgid(self.pid) != self.pid:
                time.sleep(0.005)  # until then a signal to its group would end the tests

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def start(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: str | None = None, output: Path | None = None
) -> Warm:
    """Start a program.

    Args:
        arguments: what comes after `python`: a file or `-m` and a module, and arguments of the program.
        env: all of its environment; what libraries read of it while they are imported is as it was for these tests.
        cwd: its working directory; that of the tests when not given.
        output: where what it prints goes, and its errors beside it as `.err`; as those of the tests when not given.
    """
    what = (list(arguments), dict(env), cwd or str(Path.cwd()), output and str(output))
    return Warm(context().Process(target=_become, args=what))


def launch_kernel(cmd: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None, **_: Any) -> Warm:
    """Start a kernel as `jupyter_client.launcher.launch_kernel` does."""
    return start(cmd[1:], env=os.environ if env is None else env, cwd=cwd)


def _become(arguments: list[str], env: dict[str, str], cwd: str, output: str | None) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env, JPY_PARENT_PID=str(os.getppid()))  # a kernel ends where its parent does
    os.chdir(cwd)
    if output is not None:
        for stream, path in ((sys.stdout, output), (sys.stderr, Path(output).with_suffix(".err"))):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    warnings._processoptions(env.get("PYTHONWARNINGS", "").split(","))  # type: ignore[attr-defined]
    sys.path[:0] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    import torch

    # A fork leaves torch a pool of threads to replace, and the first threads that need it must not race to do so.
    torch.set_num_threads(int(env.get("OMP_NUM_THREADS", "1")))
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")
