import shutil
from pathlib import Path

import pytest

from helpers.sample_runs import make_run
from lpr_lab.dashboard import build, serve
from lpr_lab.dashboard.server.quick_gradio import skip_type_stubs
from lpr_lab.runs.run import Run

skip_type_stubs()  # as `lpr_lab.dashboard.build` does; the tests' own imports of pages come before it


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The dashboard on an empty folder of runs, for tests that look at its parts and change nothing."""
    return build(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def address(tmp_path_factory) -> str:
    """The address of a dashboard that serves an empty folder of runs."""
    return serve(tmp_path_factory.mktemp("runs"), port=None, open_browser=False, block=False)


@pytest.fixture(scope="session")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    return make_run(folder).path


@pytest.fixture
def runs_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(runs_dir: Path, template: Path) -> Run:
    """One finished run like the demo's, without weights."""
    shutil.copytree(template, runs_dir / template.name)
    return Run.open(runs_dir, template.name)
