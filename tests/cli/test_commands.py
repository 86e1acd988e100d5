import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from helpers.cli_calls import call, in_a_process
from helpers.cli_results import IN_WORDS, RESULTS, SECONDS
from lpr_lab.experiments.notebooks.run import notebooks_dir
from lpr_lab.runs import environment
from lpr_lab.runs.find import list_runs


def write_quickstart(folder: Path, *cells: str) -> Path:
    parameters = (
        'recipe = "route_first"\nexpanded = ["el"]\nstage1_tokens = 5\nmax_minutes: float | None = None\nrun_dir = ""'
    )
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "x"}})
    book.cells = [nbformat.v4.new_code_cell(parameters), *map(nbformat.v4.new_code_cell, cells)]
    book.cells[0].metadata["tags"] = ["parameters"]
    folder.mkdir(parents=True)
    nbformat.write(book, folder / "00_quickstart.ipynb")
    return folder / "00_quickstart.ipynb"


START = """
from lpr_lab.runs.find import start_run
run = start_run({}, kind="x", slug="x", title="x", run_dir=run_dir)
"""


# Help and start-up


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; from lpr_lab import cli\n"
        "try: cli.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'gradio', 'pandas', 'numpy', 'papermill', 'transformers', 'plotly'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in ("demo", "run", "app", "doctor", "runs"))


@pytest.mark.parametrize(
    "command",
    [
        ["demo"],
        ["run"],
        ["sweep"],
        ["app"],
        ["doctor"],
        ["runs"],
        ["runs", "list"],
        ["runs", "show"],
        ["runs", "diff"],
        ["runs", "tag"],
        ["runs", "rm"],
        ["report"],
    ],
)
def test_every_command_explains_itself(command):
    done = call(*command, "--help")
    assert done.exit_code == 0
    assert "--help" in done.stdout


def test_an_unknown_command_is_a_usage_error():
    assert call("dmeo").exit_code == 2


# Running notebooks


def test_parameters_are_checked_before_anything_is_made(runs, tmp_path):
    path = str(write_quickstart(tmp_path / "notebooks"))
    wrong = call("run", path, "-p", "recipes=moe_lpr")
    assert wrong.exit_code == 2 and "Did you mean 'recipe'?" in wrong.stderr
    assert call("run", path, "-p", "stage1_tokens=1.5").exit_code == 2
    assert call("run", "nowhere").exit_code == 3
    assert not runs.exists()
    dry = call("run", path, "-p", 'expanded=["no"]', "--dry-run", "--json")
    assert json.loads(dry.stdout)["expanded"] == ["no"]
    assert not runs.exists()


def test_a_notebook_in_the_notebooks_folder_is_found_by_name(runs, tmp_path, monkeypatch):
    write_quickstart(tmp_path / "notebooks")
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    assert 'recipe: "route_first"' in call("run", "00_quickstart", "--dry-run").stdout


def test_a_parameter_file_of_ours_is_found_by_name_and_others_by_path(runs, tmp_path):
    by_name = call("run", "00_quickstart", "-f", "00_quickstart.gpu", "--dry-run", "--json")
    path = notebooks_dir() / "params" / "00_quickstart.gpu.yaml"
    assert by_name.exit_code == 0
    assert by_name.stdout == call("run", "00_quickstart", "-f", str(path), "--dry-run", "--json").stdout
    wrong = call("run", "00_quickstart", "-f", "00_quickstart.gpus", "--dry-run")
    assert wrong.exit_code == 3 and "'00_quickstart.gpu'" in wrong.stderr


def test_demo_runs_the_quickstart_says_the_result_in_words_and_reuses_it(runs, tmp_path, monkeypatch):
    cell = f"import sys; print('working', file=sys.stderr)\nrun.phases.record('seconds', {SECONDS})\n"
    cell += f"run.finish({RESULTS!r} | {{'tokens': stage1_tokens}})"
    write_quickstart(tmp_path / "notebooks", START, cell)
    monkeypatch.setenv("PYTHONPATH", str(environment.CHECKOUT))
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    done = call("demo", "--no-app", "--tokens", "7")
    assert done.exit_code == 0, done.stderr
    (run,) = list_runs(runs)
    assert done.stdout == f"{IN_WORDS}Run: {run.path}\n"
    assert "working" in done.stderr
    assert run.results["tokens"] == 7
    again = call("demo", "--no-app", "--tokens", "7", "--json", "-q")
    assert json.loads(again.stdout)["how"] == "reused"
    assert again.stderr == ""


def test_demo_refuses_a_taken_port_before_it_works_for_ten_minutes(runs):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        done = call("demo", "--port", port)
        assert done.exit_code == 2 and f"Port {port} is taken" in done.stderr
        assert call("app", "--port", port).exit_code == 2
    assert not runs.exists()


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_a_run_to_go_on_with(runs, tmp_path):
    path = write_quickstart(
        tmp_path / "notebooks", START, "import sys, time\nprint('busy', file=sys.stderr)\ntime.sleep(60)"
    )
    process = in_a_process("run", str(path), LPR_LAB_RUNS=str(runs))
    assert process.stderr is not None
    assert any("busy" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(timeout=20) == 130
    assert "goes on where this one stopped" in rest and "Traceback" not in rest
    (run,) = list_runs(runs)
    assert run.status.state == "interrupted"


# Serving


def test_app_says_where_it_listens_only_when_it_does_and_ctrl_c_ends_it_well(runs, monkeypatch):
    asked = {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def serve(folder, **options):
        asked.update(options, folder=folder)
        return f"http://127.0.0.1:{port}"

    def wait(self, timeout=None):
        raise KeyboardInterrupt

    monkeypatch.setattr("lpr_lab.dashboard.serve", serve)
    monkeypatch.setattr("threading.Event.wait", wait)
    done = call("app", "--port", str(port), "--no-browser")
    assert done.exit_code == 0, done.stderr
    assert done.stderr == f"Dashboard: http://127.0.0.1:{port}/  (Ctrl-C stops it)\n"
    here = {"host": "127.0.0.1", "token": None, "mcp": False}
    assert asked == {"folder": runs, "port": port, "page": "", "open_browser": False, "block": False, **here}


# Doctor


def test_doctor_looks_at_everything_and_fails_only_on_what_is_essential(runs, monkeypatch):
    findings = json.loads(call("doctor", "--json", "--port", "7861").stdout)
    names = {finding["name"] for finding in findings}
    looked_at = {"python", "packages", "gradio with plotly", "figures in JupyterLab", "runs folder", "memory", "gpu"}
    assert looked_at | {"disk for runs", "port 7861", "fonts", "chromium"} <= names
    assert all(finding["next_step"] for finding in findings if finding["state"] != "ok")
    monkeypatch.setattr("lpr_lab.experiments.doctor._plotly_js", {"gradio": "3.3.1", "plotly": "4.1.1"}.get)
    done = call("doctor")
    assert done.exit_code == 1
    assert "fail  gradio with plotly" in done.stdout and "pip install" in done.stdout


def test_doctor_names_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    done = call("doctor", "--json", "--runs-dir", "/proc/nowhere")
    (finding,) = (finding for finding in json.loads(done.stdout) if finding["name"] == "runs folder")
    assert finding["state"] == "fail" and "LPR_LAB_RUNS" in finding["next_step"]
    assert done.exit_code == 1


def test_help_answers_at_once():
    started = time.monotonic()
    in_a_process("--help").communicate()
    assert time.monotonic() - started < 3  # 0.3 s on an idle machine; the bound only notices an import of a library


def test_a_warning_for_users_is_a_line_and_one_for_programmers_keeps_its_place():
    code = (
        "import warnings, lpr_lab.cli as cli; cli.app = lambda: (warnings.warn('bf16 is slow here'), "
        "warnings.warn('an old name', FutureWarning)); cli.main()"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.splitlines()
    assert said[0] == "Note: bf16 is slow here" and "FutureWarning: an old name" in said[1]
