"""Watched children: what they print, how they end, and that none outlives us."""

import os
import sys
import time
from pathlib import Path

import pytest

from lpr_lab import fetching
from lpr_lab.fetching import last_line, run_watched


def run(tmp_path, code: str, **options):
    return run_watched([sys.executable, "-c", code], folders=[tmp_path], total_bytes=10, label="x", **options)


def test_exit_code_and_both_streams_come_back(tmp_path):
    code = "import os, sys; print('out', flush=True); print(os.environ['A'], file=sys.stderr); sys.exit(3)"
    assert run(tmp_path, code, environment={"A": "err"}) == (3, "out\nerr\n")
    assert list(tmp_path.iterdir()) == []


def test_the_growth_of_the_folder_is_the_progress(tmp_path, capsys):
    run(tmp_path, "open('arrived', 'wb').write(bytes(10))", working_directory=tmp_path)
    assert "100%" in capsys.readouterr().err


def test_a_child_does_not_outlive_an_interruption(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "import time; time.sleep(60)")
    assert time.monotonic() - started < 10


def test_the_last_line_that_says_something_is_quoted():
    assert last_line("E: first\nE: second\n\n") == "E: second"
    assert last_line("") == "no output"


def test_what_a_killed_process_left_is_cleared_under_the_lock(tmp_path):
    (tmp_path / ".staging-x-1").mkdir()
    (tmp_path / "finished").mkdir()
    with fetching.locked(tmp_path, "testing"):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "finished"]


def test_a_folder_that_vanishes_while_it_is_looked_into_stops_no_download(tmp_path, monkeypatch):
    (tmp_path / "kept").write_bytes(bytes(7))
    (tmp_path / "unpacked").mkdir()
    look = os.scandir

    def scandir(path):
        if Path(path).name == "unpacked":
            raise FileNotFoundError(path)
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert fetching._bytes_below(tmp_path) == 7
