"""Processes that torchrun, `accelerate launch` or Slurm started together: the first leads, the others follow.

All of them run one command, `lpr-lab run 00_quickstart` or a script that calls `lab.run`. The first does what it would
do alone, and tells the others when there is a phase of a run that they can share; the others wait for that. What it
tells goes through the launcher's own store, which is there before any of them has joined the others, and which can be
waited for as long as it takes.
"""

import json
import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path

from torch.distributed import PrefixStore, Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from lpr_lab.errors import UsageError
from lpr_lab.experiments.processes.number import LED, started

_POLL_SECONDS = 0.5
_CONNECT_SECONDS = 300
_COUNT = "count"

_heard = 0


def share(phase: str, run: Path) -> None:
    """Tell the others to work on a phase of a run with this process, which has to do its part now."""
    _tell({"phase": phase, "run": str(run)})


def release(run: Path) -> None:
    """Tell the others that the command they followed is done, and which run it made.

    In a notebook's process nothing is told: the command that started the notebook does so.
    """
    if not os.environ.get(LED):
        _tell({"run": str(run)})


def follow(work: Callable[[str, Path], None]) -> Path:
    """Work on every phase that the first process shares, until it says that it is done; return the run that it made.

    Args:
        work: does this process's part of a phase of a run.
    """
    global _heard
    while True:
        _heard += 1
        message = _wait_for(str(_heard))
        path = Path(message["run"])
        if "phase" not in message:
            return path
        work(message["phase"], path)


def _tell(message: dict[str, str]) -> None:
    store = _store()
    store.set(str(store.add(_COUNT, 1)), json.dumps(message))


def _wait_for(key: str) -> dict[str, str]:
    store = _store()
    while not store.check([key]):  # in small pieces, so that a signal is heard
        time.sleep(_POLL_SECONDS)
    return json.loads(store.get(key))


@cache
def _store() -> Store:
    """Connect to the store of the launcher.

    Raises:
        UsageError: the launcher has none.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise UsageError(
            f"WORLD_SIZE = {started()}: several processes were started together, but not by torchrun or `accelerate "
            "launch`, whose store tells them what to do. Start them with one of these, or unset WORLD_SIZE to work "
            "alone."
        )
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=_CONNECT_SECONDS),
    )
    return PrefixStore(f"lpr_lab/{os.environ.get('TORCHELASTIC_RUN_ID', '')}", store)
