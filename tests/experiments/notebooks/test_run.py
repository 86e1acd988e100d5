"""Tiny notebooks through the real kernel. Each costs about two seconds, so each is asked several questions."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.sign import NotebookNotary

from lpr_lab.errors import BusyError, LprError, MissingError, UsageError
from lpr_lab.experiments.notebooks import run as notebooks
from lpr_lab.experiments.notebooks.executed import keep_copy
from lpr_lab.experiments.notebooks.run import run_notebook
from lpr_lab.runs import environment
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run
from lpr_lab.runs.status import claimed

PARAMETERS = 'language = "el"\ntokens = 5\nrun_dir = ""  # set by lpr-lab run'
START = """
from pathlib import Path
from lpr_lab.runs.find import start_run
run = start_run({"language": language, "tokens": tokens}, kind="small", slug="x", title="x", run_dir=run_dir)
"""

PRINTING = """
import os, sys
print("language is", language)
for step in range(5):
    print(f"\\rstep {step}", end="", file=sys.stderr, flush=True)
"""


def write_notebook(folder: Path, *cells: str, parameters: str = PARAMETERS, **metadata) -> Path:
    kernel = {"name": "python3", "display_name": "x", "language": "python"}
    book = nbformat.v4.new_notebook(metadata={"kernelspec": kernel, **metadata})
    book.cells = [nbformat.v4.new_markdown_cell("# A small notebook"), nbformat.v4.new_code_cell(parameters)]
    book.cells[1].metadata["tags"] = ["parameters"]
    book.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    folder.mkdir(exist_ok=True)
    nbformat.write(book, folder / "03_small.ipynb")
    return folder / "03_small.ipynb"


@pytest.mark.slow
def test_a_notebook_runs_here_with_this_interpreter_and_is_reused_when_started_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_notebook(
        tmp_path / "note{books}",
        START,
        PRINTING,
        "run.finish({'prefix': sys.prefix, 'folder': os.getcwd(), 'language': language, 'tokens': tokens})",
    )
    shown = io.StringIO()
    done = run_notebook(path, runs_dir=tmp_path / "r{u}ns", values={"language": "nan"}, output=shown)
    assert done.how == "new" and done.run.status.state == "finished"
    assert done.run.results == {"prefix": sys.prefix, "folder": str(tmp_path), "language": "nan", "tokens": 5}
    assert (done.run.kind, done.run.title) == ("small", "A small notebook")
    assert done.run.config == {"language": "nan", "tokens": 5}
    assert done.run.documents.config_input == {"notebook": "small", "parameters": {"language": "nan", "tokens": 5}}
    assert "language is nan\n" in shown.getvalue() and "\rstep 0" in shown.getvalue()
    with done.run.paths.log.open(newline="") as log:
        assert shown.getvalue() == f"Running {path.name} in {done.run.path}\n{log.read()}"
    copy = done.run.paths.notebook.read_text()
    assert "language is nan" in copy and "step 4" in copy
    assert "step 3" not in copy and '"input_path"' not in copy and len(copy) < 10_000
    assert not list(done.run.path.glob(".notebook*"))
    nbformat.validate(nbformat.read(done.run.paths.notebook, as_version=4))

    again = run_notebook(path, runs_dir=tmp_path / "r{u}ns", values={"language": "nan"}, output=shown)
    assert (again.how, again.run.id) == ("reused", done.run.id)
    write_notebook(path.parent, START, "run.finish({'changed': True})")
    changed = run_notebook(path, runs_dir=tmp_path / "r{u}ns", values={"language": "nan"}, output=shown)
    assert changed.how == "new" and changed.run.results == {"changed": True}


@pytest.mark.slow
def test_a_notebook_that_never_takes_up_its_run_is_finished_when_it_ends(tmp_path):
    path = write_notebook(tmp_path, "1 + 1", lpr_lab={"kind": "sum"})
    done = run_notebook(path, runs_dir=tmp_path / "runs", output=io.StringIO())
    assert (done.run.kind, done.run.status.state) == ("sum", "finished")


@pytest.mark.slow
def test_a_failed_cell_keeps_the_copy_and_the_error_and_the_mended_notebook_resumes(tmp_path):
    path = write_notebook(tmp_path, START, "run.phases.mark_done('corpus')", "raise ValueError('seven')")
    with pytest.raises(LprError, match=r"ValueError: seven.* traceback") as caught:
        run_notebook(path, runs_dir=tmp_path / "runs", output=io.StringIO())
    assert caught.value.exit_code == 1
    (run,) = list_runs(tmp_path / "runs")
    assert run.status.state == "failed"
    assert "ValueError: seven" in (run.status.error_tail or "") and "\x1b" not in (run.status.error_tail or "")
    assert "ValueError" in run.paths.notebook.read_text()

    write_notebook(tmp_path, START, "assert run.phases.is_done('corpus')\nfrom lpr_lab.errors import MissingError")
    with_ours = write_notebook(
        tmp_path, START, "from lpr_lab.errors import MissingError\nraise MissingError('No corpus.')"
    )
    with pytest.raises(MissingError, match=r"^No corpus\.$"):
        run_notebook(with_ours, runs_dir=tmp_path / "runs", output=io.StringIO())
    assert (run.status.state, run.status.exit_code, run.status.attempts) == ("failed", 3, 2)

    mended = write_notebook(tmp_path, START, "assert run.phases.is_done('corpus')")
    done = run_notebook(mended, runs_dir=tmp_path / "runs", output=io.StringIO())
    assert (done.how, done.run.id, done.run.status.state) == ("resumed", run.id, "finished")


@pytest.mark.slow
def test_a_value_that_only_the_code_can_refuse_leaves_nothing(tmp_path):
    path = write_notebook(tmp_path, START, "from lpr_lab.errors import MissingError\nraise MissingError('No model x.')")
    with pytest.raises(MissingError, match=r"^No model x\.$"):
        run_notebook(path, runs_dir=tmp_path / "runs", output=io.StringIO())
    assert list((tmp_path / "runs").iterdir()) == []


def start_and_wait_until_it_prints(path: Path, runs: Path, text: str) -> subprocess.Popen:
    code = (
        "import sys; from lpr_lab.experiments.notebooks.run import run_notebook\n"
        "try:\n"
        f"    run_notebook({str(path)!r}, runs_dir={str(runs)!r})\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(environment.CHECKOUT)}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environ)
    assert process.stderr is not None
    assert any(text in line for line in process.stderr)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.notebook)])
def test_an_interrupt_reaches_the_cell_and_leaves_the_run_interrupted(tmp_path, number):
    cell = (
        "import sys, time\n"
        "try:\n"
        "    with run.working('expand'):\n"
        "        print('busy', file=sys.stderr)\n"
        "        time.sleep(60)\n"
        "finally:\n"
        "    time.sleep(0.3); run.phases.mark_done('tidied')"
    )
    path = write_notebook(tmp_path, START, cell, "raise SystemError('no later cell is run')")
    process = start_and_wait_until_it_prints(path, tmp_path / "runs", "busy")
    process.send_signal(number)
    assert process.wait(timeout=20) == 130
    (run,) = list_runs(tmp_path / "runs")
    assert run.status.recorded_state == "interrupted"
    assert run.status.exit_code == 130
    assert run.phases.is_done("tidied")
    assert run.paths.notebook.is_file()


@pytest.mark.slow
def test_a_killed_command_leaves_no_kernel_and_is_resumed(tmp_path):
    busy = "import sys, time\nprint('busy', file=sys.stderr)\ntime.sleep(60)"
    path = write_notebook(tmp_path, START, busy)
    process = start_and_wait_until_it_prints(path, tmp_path / "runs", "busy")
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert kernels
    process.kill()
    process.wait()
    (run,) = list_runs(tmp_path / "runs")
    write_notebook(tmp_path, START)
    done = run_notebook(path, runs_dir=tmp_path / "runs", output=io.StringIO())
    assert (done.how, done.run.id) == ("resumed", run.id)
    assert psutil.wait_procs(kernels, timeout=5)[1] == []


@pytest.mark.slow
def test_a_kernel_that_dies_is_one_sentence(tmp_path):
    path = write_notebook(tmp_path, START, "import os\nos._exit(9)")
    with pytest.raises(LprError, match="died without a word"):
        run_notebook(path, runs_dir=tmp_path / "runs", output=io.StringIO())
    (run,) = list_runs(tmp_path / "runs")
    assert run.status.state == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("does", ["import time; time.sleep(100)", "raise SystemExit(1)"])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_kernel_that_does_not_answer_is_started_once_more(tmp_path, monkeypatch, does, failing):
    from lpr_lab.experiments.notebooks import kernel

    answers, started = kernel._ThisInterpreter.get_kernel_spec, []

    def get_kernel_spec(manager, name):
        spec = answers(manager, name)
        started.append(spec)
        if len(started) <= failing:
            spec.argv = [sys.executable, "-c", does]
        else:
            kernel._Client.running.startup_timeout = (
                60  # seconds; on a busy machine a real one needs more than those below
            )
        return spec

    monkeypatch.setattr(kernel._ThisInterpreter, "get_kernel_spec", get_kernel_spec)
    monkeypatch.setattr(notebooks, "START_TIMEOUT_SECONDS", 2)
    path = write_notebook(tmp_path, START)
    if failing == 1:
        assert run_notebook(path, runs_dir=tmp_path / "runs", output=io.StringIO()).run.status.state == "finished"
    else:
        with pytest.raises(LprError, match="twice"):
            run_notebook(path, runs_dir=tmp_path / "runs", output=io.StringIO())
        (run,) = list_runs(tmp_path / "runs")
        assert run.status.state == "failed"
    assert len(started) == 2


def test_a_run_that_is_being_worked_on_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "_LIVE_GRACE_SECONDS", 0.1)
    path = write_notebook(tmp_path)
    run = Run.create(
        tmp_path / "runs",
        kind="small",
        slug="x",
        title="x",
        config_input={"notebook": "small", "parameters": {"language": "el", "tokens": 5}},
    )
    run.start()
    with pytest.raises(UsageError, match=f"worked on .*{os.getpid()}"):
        run_notebook(path, runs_dir=tmp_path / "runs")
    run.stop("interrupted")


def test_a_run_that_another_command_has_just_taken_up_is_left_alone(tmp_path):
    path = write_notebook(tmp_path)
    given = {"notebook": "small", "parameters": {"language": "el", "tokens": 5}}
    run = Run.create(tmp_path / "runs", kind="small", slug="x", title="x", config_input=given)
    with claimed(run.path), pytest.raises(BusyError, match=f"taken up .*{run.id}"):
        run_notebook(path, runs_dir=tmp_path / "runs")
    assert run.status.state == "queued" and len(list_runs(tmp_path / "runs")) == 1


def test_a_silent_worker_is_not_said_to_have_failed_by_a_command_that_finds_its_lock_taken(tmp_path):
    path = write_notebook(tmp_path, START)
    given = {"notebook": "small", "parameters": {"language": "el", "tokens": 5}}
    run = Run.create(tmp_path / "runs", kind="small", slug="x", title="x", config_input=given)
    run.start()
    run._status_file.update(host="elsewhere", heartbeat="2020-01-01T00:00:00Z")
    assert run.status.state == "stalled"
    with pytest.raises(BusyError, match=f"{run.id} .*worked on"):
        run_notebook(path, runs_dir=tmp_path / "runs", output=io.StringIO())
    assert run.status.recorded_state == "running"
    run.stop("interrupted")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"langauge": "el"}, "mean 'language'"),
        ({"tokens": "many"}, "whole number"),
        ({"run_dir": "/tmp"}, "set by this command"),
    ],
)
def test_wrong_parameters_start_nothing(tmp_path, given, says):
    path = write_notebook(tmp_path)
    with pytest.raises(UsageError, match=says):
        run_notebook(path, runs_dir=tmp_path / "runs", values=given)
    assert not (tmp_path / "runs").exists()


def test_a_notebook_that_cannot_be_told_its_run_directory_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no parameter `run_dir"):
        run_notebook(write_notebook(tmp_path, parameters="a = 1"), runs_dir=tmp_path / "runs")


def test_checking_parameters_does_not_wait_for_papermill():
    code = "import sys, lpr_lab.experiments.notebooks.run; print('papermill' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.slow
def test_papermill_comes_without_the_grammar_of_addresses_and_leaves_it_to_others():
    code = (
        "import sys, lpr_lab.experiments.notebooks.kernel\n"
        "print('papermill' in sys.modules, 'jsonschema' in sys.modules, 'rfc3987_syntax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_a_package_without_its_checkout_says_where_the_notebooks_are(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    with pytest.raises(MissingError, match="notebooks is missing"):
        notebooks.notebooks_dir()


BARS = (
    "Scoring: 100%|████| 4/4 [00:01<00:00, 3.1it/s]\n[20260101-run] train ...\nexpand:  50%|██  | 1/2 [00:01<00:01]\n"
)


@pytest.mark.parametrize(
    ("outputs", "kept"),
    [
        ([], "[20260101-run] train ...\nexpand:  50%|██  | 1/2 [00:01<00:01]\n"),
        ([{"output_type": "display_data", "data": {"text/html": '<div class="lpr-live">'}, "metadata": {}}], None),
    ],
    ids=["alone", "below a live display"],
)
def test_an_executed_copy_keeps_no_progress_that_says_nothing_any_more(tmp_path, outputs, kept):
    stream = {"output_type": "stream", "name": "stdout", "text": "step 1\rstep 2\n" + BARS}
    only_bars = {"output_type": "stream", "name": "stderr", "text": BARS.splitlines(keepends=True)[0]}
    shown = [nbformat.from_dict(output) for output in (*outputs, stream, only_bars)]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=shown)])
    nbformat.write(book, tmp_path / "partial")
    keep_copy(tmp_path / "partial", tmp_path / "copy")
    left = nbformat.read(tmp_path / "copy", nbformat.NO_CONVERT).cells[0].outputs
    assert [output["output_type"] for output in left] == [*(output["output_type"] for output in outputs), "stream"]
    assert left[-1]["text"] == "step 2\n" + (kept or "")


def test_an_executed_copy_is_trusted_here_until_somebody_changes_an_output(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    output = nbformat.v4.new_output("display_data", {"text/html": "<style>p { color: red }</style>"})
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])])
    nbformat.write(book, tmp_path / "partial")
    keep_copy(tmp_path / "partial", tmp_path / "copy")
    kept = nbformat.read(tmp_path / "copy", nbformat.NO_CONVERT)
    assert NotebookNotary().check_signature(kept)
    kept.cells[0].outputs[0].data["text/html"] += "<script>1</script>"
    assert not NotebookNotary().check_signature(kept)


def test_an_executed_copy_is_kept_where_nothing_can_be_signed(tmp_path, monkeypatch):
    (tmp_path / "data").write_text("a file where Jupyter's folder would be")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "partial")
    keep_copy(tmp_path / "partial", tmp_path / "copy")
    assert nbformat.read(tmp_path / "copy", nbformat.NO_CONVERT).cells == []
