"""Pieces of work in several processes."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lpr_lab.errors import LprError, UsageError
from lpr_lab.text.shards.pool import Task, Workers, num_workers


def test_results_are_in_the_order_of_the_tasks():
    with Workers(1) as workers:
        assert workers.run(divmod, [Task((n, 3), 1) for n in range(7)], label="x") == [divmod(n, 3) for n in range(7)]


def test_nobody_to_work_is_refused():
    with pytest.raises(UsageError, match="num_proc=0"):
        num_workers(0)
    assert num_workers(None) >= 1


@pytest.mark.slow
def test_a_worker_that_is_killed_is_said_with_what_to_do():
    with Workers(2) as workers, pytest.raises(LprError, match="num_proc=1"):
        workers.run(os._exit, [Task((9,), 1)] * 2, label="x")


@pytest.mark.slow
def test_workers_end_when_the_process_that_started_them_is_killed():
    script = (
        "import time; from lpr_lab.text.shards.pool import Task, Workers\n"  # no guard by __name__: none is needed
        "with Workers(2) as workers: workers.run(time.sleep, [Task((300,), 1)] * 2, label='x')"
    )
    child = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(workers := psutil.Process(child.pid).children(recursive=True)) < 3 and time.monotonic() < until:
        time.sleep(0.2)
    assert len(workers) >= 2
    time.sleep(3)
    child.send_signal(signal.SIGKILL)
    child.wait()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    for process in alive:
        process.kill()
    assert gone and not alive
