"""Processes that start with the libraries imported are new ones in every other respect, and fail as others do."""

import os
import signal

import pytest

from helpers import warm
from helpers.processes import run_ranks, run_warm

pytestmark = pytest.mark.slow

SAY = """
import os, sys, lpr_lab.storage
print("torch" in sys.modules, hasattr(lpr_lab.storage, "left"), sys.argv[1:], os.environ["X"], __name__)
"""


def test_one_has_its_own_environment_and_output_and_nothing_of_what_a_test_did(tmp_path, monkeypatch):
    from lpr_lab import storage

    monkeypatch.setattr(storage, "left", 1, raising=False)
    monkeypatch.setenv("X", "ours")
    (tmp_path / "say.py").write_text(SAY)
    assert run_warm(tmp_path / "say.py", "a", "b").split("\n")[0] == "True False ['a', 'b'] ours __main__"


def test_one_that_fails_or_is_killed_says_so(tmp_path):
    (tmp_path / "fail.py").write_text("raise SystemError('seven')")
    with pytest.raises(AssertionError, match="seven"):
        run_warm(tmp_path / "fail.py")
    (tmp_path / "wait.py").write_text("import time; time.sleep(60)")
    process = warm.start([str(tmp_path / "wait.py")], env=os.environ)
    assert process.poll() is None and os.getpgid(process.pid) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == process.returncode == -signal.SIGTERM


def test_a_rank_that_fails_ends_the_others(tmp_path):
    (tmp_path / "rank.py").write_text(
        "import os, time\nassert os.environ['WORLD_SIZE'] == '2'\n"
        "if os.environ['RANK'] == '1':\n    raise SystemError('of rank 1')\ntime.sleep(60)"
    )
    with pytest.raises(AssertionError, match="of rank 1"):
        run_ranks(tmp_path / "rank.py", processes=2, timeout=50)
