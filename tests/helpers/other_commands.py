"""What another command does while one waits for it."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from lpr_lab.experiments.scorecard import run as making


def while_waiting(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen where a command waits for the runs of others."""
    monkeypatch.setattr(making, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: happens()))
