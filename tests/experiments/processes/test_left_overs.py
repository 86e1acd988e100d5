"""Temporary folders of ranks whose starter was killed are deleted by the next start, others are not."""

import os
import subprocess
import sys
import tempfile

from lpr_lab.experiments.processes import launch
from lpr_lab.experiments.processes.outcomes import write_pid


def test_only_folders_of_this_machine_without_a_living_process_go(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, used, living, elsewhere = (
        tmp_path / name
        for name in (
            f"{launch._prefix()}{gone.pid}-a",
            f"{launch._prefix()}{gone.pid}-b",
            f"{launch._prefix()}{os.getpid()}-c",
            f"lpr-lab-ranks-other-{gone.pid}-d",
        )
    )
    for folder in (dead, used, living, elsewhere):
        folder.mkdir()
    write_pid(dead, 0)  # this process, which is no rank of that folder
    rank = subprocess.Popen([sys.executable, "-c", "input()", str(used)], stdin=subprocess.PIPE)
    (used / "rank-0.pid.json").write_text(str(rank.pid))
    launch._clear_left_overs()
    rank.communicate()
    assert [folder.is_dir() for folder in (dead, used, living, elsewhere)] == [False, True, True, True]
