import json
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from helpers.plain_runs import CONFIG, make
from lpr_lab.errors import DamagedError, LprError, MissingError, UsageError
from lpr_lab.runs import environment, formats, status
from lpr_lab.runs.find import list_runs, record_config
from lpr_lab.runs.run import Run


def in_a_process(code: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **options)


# Making runs


def test_a_taken_name_is_never_reused(tmp_path, monkeypatch):
    digits = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("secrets.token_hex", lambda size: next(digits, "cccc") if size == 2 else "0")
    assert make(tmp_path).id.endswith("-aaaa")
    (tmp_path / "marker").write_text(next(path.name for path in tmp_path.iterdir() if path.name.endswith("aaaa")))
    assert make(tmp_path).id.endswith(("-bbbb", "-aaaa"))
    assert len(list_runs(tmp_path)) == 2


def test_a_run_that_could_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lpr_lab.runs.run.write_text", full)
    with pytest.raises(LprError, match="disk is full"):
        make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_latest_leads_to_the_newest_run_and_is_not_a_run_itself(tmp_path):
    first, second = make(tmp_path), make(tmp_path)
    assert (tmp_path / "latest").resolve() == second.path.resolve()
    assert len(list_runs(tmp_path)) == 2
    assert first.path.is_dir()


def test_config_keeps_text_as_text_for_every_yaml_reader(tmp_path):
    import yaml

    config = {"languages": ["no", "nan", "12e4567", "1:30", "2026-11-22", "null", "~", ""], "no": 1e-4, "flag": True}
    run = make(tmp_path, config=config, config_input={"languages": ["no"]})
    assert Run.open(tmp_path, run.id).config == config
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == config
    assert run.documents.config_input == {"languages": ["no"]}


@pytest.mark.parametrize("value", [float("nan"), Path("x"), object()])
def test_a_setting_that_is_not_json_is_refused(tmp_path, value):
    with pytest.raises(UsageError, match=r"settings .*hold text"):
        make(tmp_path, config={"value": value})
    assert not tmp_path.joinpath("latest").exists()


def test_environment_is_recorded_with_versions_and_commit(tmp_path):
    run = make(tmp_path)
    run.start()
    assert run.documents.read("env")
    assert run.documents.read("env")["python"] == sys.version.split()[0]
    assert "torch" in run.documents.read("env")["packages"]
    assert run.documents.read("env")["git"] is None or len(run.documents.read("env")["git"]["commit"]) == 40
    assert len(run.documents.read("env")["installed_sha256"]) == 64
    run.stop("interrupted")


def test_seeds_are_recorded_with_the_environment(tmp_path):
    run = make(tmp_path, config={"seed": 3, "stage1": {"data_seed": 4, "tokens": 5}})
    run.start()
    assert run.documents.read("env") and run.documents.read("env")["seeds"] == {"seed": 3, "stage1.data_seed": 4}
    run.stop("interrupted")


def test_changes_since_the_commit_leave_their_hash(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    said = {"rev-parse": "a" * 40 + "\n", "diff": "+ a line\n"}
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    monkeypatch.setattr(environment, "_git", lambda *arguments: said[arguments[0]])
    digest = sha256(b"+ a line\n").hexdigest()
    assert environment.git_state() == {"commit": "a" * 40, "dirty": True, "diff_sha256": digest}
    said["diff"] = ""
    assert environment.git_state() == {"commit": "a" * 40, "dirty": False}


def test_a_run_of_the_version_before_is_read_and_says_so_and_an_older_one_is_refused(tmp_path, monkeypatch):
    run = make(tmp_path)
    assert run.note == ""
    monkeypatch.setattr(formats, "SCHEMA_VERSION", 2)
    assert "schema 1, this one writes 2" in Run.open(tmp_path, run.id).note
    monkeypatch.setattr(formats, "SCHEMA_VERSION", 3)
    with pytest.raises(DamagedError, match="older lpr_lab"):
        Run.open(tmp_path, run.id)


def test_runs_are_read_without_torch_and_without_pandas(tmp_path):
    make(tmp_path)
    code = (
        "import sys; from lpr_lab.runs.find import list_runs; "
        f"assert len(list_runs({str(tmp_path)!r})) == 1; "
        "print([name for name in ('torch', 'pandas', 'numpy', 'transformers') if name in sys.modules])"
    )
    assert in_a_process(code).communicate()[0].strip() == "[]"


# States


def test_the_states_of_a_run_that_goes_well(tmp_path):
    run = make(tmp_path)
    assert run.status.state == "queued"
    with run.working(stage="expand"):
        assert run.status.state == "running"
        assert run.status.stage == "expand"
        run.phases.mark_done("expand")
    assert run.status.state == "running"
    run.finish({"answer": 42})
    assert run.status.state == "finished"
    assert run.results == {"answer": 42}
    assert run.phases.is_done("expand") and not run.phases.is_done("evaluate")


def test_an_exception_leaves_the_run_failed_with_its_tail(tmp_path):
    run = make(tmp_path)
    with pytest.raises(ZeroDivisionError), run.working(stage="expand"):
        raise ZeroDivisionError
    assert run.status.state == "failed"
    assert run.status.exit_code == 1
    assert "ZeroDivisionError" in (run.status.error_tail or "")


def test_one_of_our_errors_is_kept_as_its_sentence_and_exit_code(tmp_path):
    run = make(tmp_path)
    with pytest.raises(MissingError), run.working():
        raise MissingError("There is no corpus 'x'.")
    assert run.status.error_tail == "There is no corpus 'x'."
    assert run.status.exit_code == 3


def test_ctrl_c_leaves_the_run_interrupted_and_it_can_be_taken_up_again(tmp_path):
    run = make(tmp_path)
    run.start()
    run.phases.mark_done("corpus")
    with pytest.raises(KeyboardInterrupt), run.working():
        raise KeyboardInterrupt
    assert run.status.state == "interrupted"
    again = Run.open(tmp_path, run.id)
    with again.working(stage="expand"):
        assert again.status.state == "running"
        assert again.status.attempts == 2
        assert again.phases.is_done("corpus")
    again.finish()
    assert again.status.state == "finished"


def test_sigterm_leaves_the_run_interrupted(tmp_path):
    run = make(tmp_path)
    with pytest.raises(KeyboardInterrupt), run.working():
        signal.raise_signal(signal.SIGTERM)
    assert run.status.state == "interrupted"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def start_elsewhere(run: Run, then: str) -> subprocess.Popen:
    code = (
        "import time, os, sys\nfrom pathlib import Path\nfrom lpr_lab.runs.run import Run\n"
        f"run = Run(Path({str(run.path)!r}))\nrun.start('expand')\nprint('started', flush=True)\n{then}"
    )
    process = in_a_process(code)
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    return process


def test_a_killed_run_reads_as_interrupted(tmp_path):
    run = make(tmp_path)
    process = start_elsewhere(run, "time.sleep(60)")
    assert run.status.state == "running"
    process.kill()
    process.wait()
    assert run.status.recorded_state == "running"
    assert run.status.state == "interrupted"
    run.start()
    assert run.status.attempts == 2
    run.stop("interrupted")


def test_a_process_that_just_ends_leaves_the_run_interrupted(tmp_path):
    run = make(tmp_path)
    start_elsewhere(run, "sys.exit(0)").wait()
    assert run.status.recorded_state == "interrupted"


def test_two_processes_never_work_on_one_run(tmp_path):
    run = make(tmp_path)
    process = start_elsewhere(run, "time.sleep(60)")
    with pytest.raises(UsageError, match=f"worked on .*{process.pid}"):
        run.start()
    process.kill()
    process.wait()


def test_a_reused_process_number_is_not_mistaken_for_the_worker(tmp_path):
    run = make(tmp_path)
    run.start()
    run._status_file.update(start_ticks=1)
    assert run.status.state == "interrupted"
    run.stop("interrupted")


def test_a_silent_run_reads_as_stalled_and_a_beating_one_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "HEARTBEAT_SECONDS", 0.05)
    run = make(tmp_path)
    run.start()
    run._status_file.update(heartbeat="2020-01-01T00:00:00Z")
    deadline = time.monotonic() + 5
    while run.status.state != "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert run.status.state == "running"
    run.stop("interrupted")
    run._status_file.update(state="running", host="elsewhere", heartbeat="2020-01-01T00:00:00Z")
    assert run.status.state == "stalled"


def test_status_is_whole_at_every_moment(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "HEARTBEAT_SECONDS", 0.001)
    run = make(tmp_path)
    run.start()
    for number in range(50):
        run.phases.mark_done(f"phase-{number}")
        json.loads((run.path / "status.json").read_text())
    assert len(run.status.done_phases) == 50
    run.stop("interrupted")


def test_a_finished_run_is_never_worked_on_again(tmp_path):
    run = make(tmp_path)
    run.start()
    run.finish({"a": 1})
    with pytest.raises(UsageError, match=f"{run.id} .*finished"):
        run.start()
    with pytest.raises(UsageError, match="other settings"):
        record_config(run, CONFIG | {"seed": 1})
