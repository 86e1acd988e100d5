import os
import shutil
from pathlib import Path

import pytest

from helpers.sample_runs import make_run
from lpr_lab.runs.run import Run


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """What is flushed and when is tested with the run directory; pages only read."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        return make_run(folder).path


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(runs_dir: Path, template: Path) -> Run:
    """One finished run like the demo's, without weights."""
    shutil.copytree(template, runs_dir / template.name)
    return Run.open(runs_dir, template.name)
