"""Starts the ranks of one phase on this machine, waits for them, and says in a sentence why they failed.

The ranks are torchrun's: an agent (`agent`) starts them, and ends the others when one fails. All of them inherit the
reading end of a pipe from here. When it ends, because this process was interrupted or is gone, each rank finishes the
step under way, saves it, and ends: nothing is left behind.
"""

import codecs
import glob
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from lpr_lab import progress
from lpr_lab.experiments.processes.number import PROCESSES
from lpr_lab.experiments.processes.outcomes import pids, raise_failure
from lpr_lab.experiments.tracking.trackers import VARIABLE as TRACKERS
from lpr_lab.runs import environment
from lpr_lab.runs.run import Run

STOP_SECONDS = 60.0
"""How long ranks whose agent is gone may take to end by themselves."""


def launch(run: Run, phase: str, processes: int, trackers: tuple[str, ...] = ()) -> None:
    """Work on a phase of a run with several processes, and return when it is done.

    Args:
        run: which this process works on; the ranks open its directory.
        phase: see `experiments.ranks.PHASES`.
        processes: how many.
        trackers: who gets the numbers of training too.

    Raises:
        LprError: a rank failed or was killed; an error of ours keeps its kind.
        KeyboardInterrupt: Ctrl-C; the step under way was finished and saved. A second one ends all at once.
    """
    _clear_left_overs()
    folder = Path(tempfile.mkdtemp(prefix=f"{_prefix()}{os.getpid()}-"))
    arguments = [str(processes), str(folder), phase, str(run.path)]
    relayed = progress.in_notebook()
    process = subprocess.Popen(
        [sys.executable, "-m", "lpr_lab.experiments.processes.agent", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if relayed else 2,  # stdout is for results
        stderr=subprocess.STDOUT if relayed else None,
        env=_environment(processes, trackers),
        start_new_session=True,  # Ctrl-C in a terminal reaches this process alone, which then asks the ranks to stop
    )
    relay = threading.Thread(target=_relay, args=(process,), daemon=True)
    if relayed:
        relay.start()
    try:
        _wait(process)
        _end_ranks(process, folder, STOP_SECONDS)
        if relayed:
            relay.join(5)
        raise_failure(folder, phase, processes, process.returncode)
    finally:
        if process.poll() is None:
            process.kill()
        _end_ranks(process, folder, 0)
        shutil.rmtree(folder, ignore_errors=True)


def _prefix() -> str:
    """Return how folders of ranks are called; with the machine, for several may share a folder of temporary files."""
    return f"lpr-lab-ranks-{platform.node()}-"


def _clear_left_overs() -> None:
    """Delete the folders of processes of this machine that were killed, once none of their ranks is left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{glob.escape(_prefix())}*"):
        pid = folder.name.removeprefix(_prefix()).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)) and not any(_rank(one, folder) for one in pids(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def _environment(processes: int, trackers: tuple[str, ...]) -> dict[str, str]:
    """Return the environment of the ranks: the threads of this process are divided among them."""
    threads = str(max(1, torch.get_num_threads() // processes))
    ours = {"PYTHONPATH": environment.python_path(), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    ours |= {TRACKERS: ",".join(trackers)}
    if progress.is_hidden():
        ours["LPR_LAB_QUIET"] = "1"
    return {name: value for name, value in os.environ.items() if name != PROCESSES} | ours


def _relay(process: subprocess.Popen) -> None:
    """Show what the ranks print where this notebook shows its own progress."""
    assert process.stdout is not None
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while chunk := os.read(process.stdout.fileno(), 65536):
        out = progress.stream()
        out.write(decoder.decode(chunk))
        out.flush()


def _wait(process: subprocess.Popen) -> None:
    """Wait for the agent; when interrupted, ask the ranks to stop and wait for that."""
    try:
        process.wait()
    except KeyboardInterrupt:
        _close_input(process)
        progress.announce("Stopping all processes after the step under way; another interrupt stops them at once.")
        process.wait()
        raise


def _close_input(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()


def _end_ranks(process: subprocess.Popen, folder: Path, seconds: float) -> None:
    """See to it that no rank is left, also where the agent was killed: first they are asked."""
    _close_input(process)
    left = [found for pid in pids(folder) if (found := _rank(pid, folder))]
    _, left = psutil.wait_procs(left, timeout=seconds)
    for rank in left:
        with suppress(psutil.NoSuchProcess):
            rank.kill()
    psutil.wait_procs(left, timeout=5)


def _rank(pid: int, folder: Path) -> psutil.Process | None:
    """Return the process if it still is the rank that it was."""
    try:
        process = psutil.Process(pid)
        return process if str(folder) in process.cmdline() else None
    except psutil.Error:
        return None
