"""What a shell is offered: runs, notebooks, parameters and their values; nothing heavy, and never an error."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lpr_lab import cli
from lpr_lab.runs.run import Run


def offered(*words: str) -> list[str]:
    """Return what bash is offered for the last of these words."""
    environ = {"_LPR_LAB_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("lpr-lab", *words))}
    done = CliRunner().invoke(cli.app, [], prog_name="lpr-lab", env=environ | {"COMP_CWORD": str(len(words))})
    assert done.exit_code == 0 and not done.stderr
    return done.stdout.split()


@pytest.fixture
def two_runs(runs) -> list[str]:
    return [Run.create(runs, kind="x", slug=slug, title="A test").id for slug in ("el", "hu")]


def test_commands_and_their_commands_are_offered():
    assert {"demo", "run", "runs", "app", "doctor"} <= set(offered(""))
    assert {"list", "show", "diff"} <= set(offered("runs", ""))


@pytest.mark.parametrize("command", ["runs show", "runs diff", "runs tag", "runs rm", "report"])
def test_runs_are_offered_wherever_one_is_asked_for(two_runs, command):
    assert set(offered(*command.split(), "")) == {"latest", *two_runs}
    assert offered(*command.split(), two_runs[0][:-2]) == [two_runs[0]]


def test_runs_of_a_folder_named_on_the_line_are_offered(runs, tmp_path):
    other = Run.create(tmp_path / "other", kind="x", slug="tr", title="Elsewhere").id
    assert offered("runs", "show", "--runs-dir", str(tmp_path / "other"), "2") == [other]


def test_a_damaged_run_or_no_folder_does_not_end_the_offer(two_runs, runs, monkeypatch):
    (runs / two_runs[0] / "run.json").write_text("{")
    assert set(offered("runs", "show", "2")) == set(two_runs)
    monkeypatch.setenv("LPR_LAB_RUNS", str(runs / "nowhere"))
    assert offered("runs", "show", "") == ["latest"]


def test_notebooks_are_offered_by_name_and_by_path(tmp_path, monkeypatch):
    assert "00_quickstart" in offered("run", "00")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.ipynb").touch()
    monkeypatch.chdir(tmp_path)
    assert offered("run", "mi") == ["mine/"]
    assert offered("run", "mine/o") == ["mine/own.ipynb"]


def test_parameters_of_that_notebook_are_offered_with_their_defaults():
    names = offered("run", "02_plan_experts", "-p", "")
    assert {"budget=", "budget=60", "original="} <= set(names)
    assert not any(name.startswith("run_dir") for name in names)
    assert offered("demo", "-p", "recipe=moe") == ["recipe=moe_lpr"]
    assert offered("run", "no_such_notebook", "-p", "") == offered("run", "-p", "") == []


def test_an_offer_imports_nothing_heavy(two_runs):
    """A person waits for it: 0.35 s on an idle machine, most of it typer."""
    code = (
        "import os, sys; from lpr_lab import cli\n"
        "os.environ |= {'_LPR_LAB_COMPLETE': 'complete_bash', 'COMP_WORDS': 'lpr-lab runs show 2', 'COMP_CWORD': '3'}\n"
        "try: cli.app(prog_name='lpr-lab')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'gradio', 'pandas', 'numpy', 'papermill', 'transformers', 'plotly', 'IPython'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(two_runs) <= set(done.stdout.split()) and done.stdout.splitlines()[-1] == "[]"


def test_files_of_parameters_are_offered_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "notes.txt").touch()
    assert {"00_quickstart.gpu", "mine.yaml"} <= set(offered("run", "00_quickstart", "-f", ""))
    assert offered("run", "00_quickstart", "-f", "mi") == ["mine.yaml"]
