import json
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lpr_lab.errors import DamagedError, LprError, MissingError, UsageError
from lpr_lab.measure.trace import RoutingTrace
from lpr_lab.runs import environment, formats, status
from lpr_lab.runs.find import default_runs_dir, find_same_config, list_runs, newest_run, record_config, start_run
from lpr_lab.runs.formats import read_table, write_table
from lpr_lab.runs.run import Run
from lpr_lab.storage import write_json, write_text

CONFIG = {"recipe": "route_first", "expanded": ["el", "no"], "learning_rate": 3e-4, "seed": 0}


def make(root: Path, **changes) -> Run:
    given = {"kind": "demo", "slug": "el no", "title": "A test", "config": CONFIG} | changes
    return Run.create(root, **given)


def id_of(run: Run | None) -> str | None:
    return run and run.id


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
    with pytest.raises(UsageError, match="settings of a run hold text"):
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
    with pytest.raises(UsageError, match=f"being worked on by process {process.pid}"):
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
    with pytest.raises(UsageError, match="finished and is never written over"):
        run.start()
    with pytest.raises(UsageError, match="other settings"):
        record_config(run, CONFIG | {"seed": 1})


# Taking up and finding


def test_start_run_takes_up_the_newest_unfinished_run_with_the_same_settings(tmp_path):
    given = {"kind": "demo", "slug": "el", "title": "A test", "root": tmp_path}
    first = start_run(CONFIG, **given)
    first.stop("interrupted")
    other = start_run(CONFIG | {"seed": 1}, **given)
    assert other.id != first.id
    again = start_run(CONFIG, **given)
    assert again.id == first.id
    again.finish({})
    assert start_run(CONFIG, **given).id != first.id


def test_start_run_in_a_given_directory_records_the_resolved_settings(tmp_path):
    run = make(tmp_path, config=None, config_input={"recipe": "route_first"})
    assert run.config == {"recipe": "route_first"}
    taken = start_run(CONFIG, kind="demo", slug="x", title="x", run_dir=run.path)
    assert taken.path == run.path
    assert Run(run.path).config == CONFIG
    assert Run(run.path).documents.config_input == {"recipe": "route_first"}
    taken.stop("interrupted")
    with pytest.raises(UsageError, match="other settings \\(seed differ"):
        start_run(CONFIG | {"seed": 1}, kind="demo", slug="x", title="x", run_dir=run.path)


def test_find_same_config_finds_by_what_was_given_too(tmp_path):
    run = make(tmp_path, config_input={"recipe": "route_first"})
    assert id_of(find_same_config(tmp_path, CONFIG, "demo")) == run.id
    assert id_of(find_same_config(tmp_path, {"recipe": "route_first"}, "demo")) == run.id
    assert find_same_config(tmp_path, CONFIG, "eval") is None
    assert id_of(find_same_config(tmp_path, {"expanded": ("el", "no"), **CONFIG}, "demo")) == run.id


def test_runs_are_listed_newest_first_with_examples_last(tmp_path):
    example = make(tmp_path / "examples")
    runs = [make(tmp_path) for _ in range(3)]
    for number, run in enumerate(runs):
        facts = json.loads((run.path / "run.json").read_text())
        write_json(run.path / "run.json", facts | {"created": f"2026-01-0{number + 1}T00:00:00Z"})
    listed = list_runs(tmp_path)
    assert [run.id for run in listed] == [runs[2].id, runs[1].id, runs[0].id, example.id]
    assert [run.is_example for run in listed] == [False, False, False, True]
    assert id_of(newest_run(tmp_path)) == runs[2].id
    assert Run.open(tmp_path, example.id).is_example
    with pytest.raises(UsageError, match="is an example"):
        Run.open(tmp_path, example.id).start()


def test_no_runs_folder_is_an_empty_list(tmp_path):
    assert list_runs(tmp_path / "nowhere") == []
    assert newest_run(tmp_path / "nowhere") is None


@pytest.mark.parametrize("run_id", ["../secret", "a/b", "", "latest", "examples", "run\n", ".hidden", "x" * 200])
def test_an_id_that_is_not_a_name_is_refused(tmp_path, run_id):
    with pytest.raises(UsageError, match="not a run id"):
        Run.open(tmp_path, run_id)


def test_an_unknown_run_is_named_with_the_closest_one(tmp_path):
    run = make(tmp_path)
    with pytest.raises(MissingError, match=f"Did you mean '{run.id}'"):
        Run.open(tmp_path, run.id[:-1] + "x")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("run.json", "{", "not readable as JSON"),
        ("run.json", None, "run.json is missing"),
        ("run.json", '{"schema_version": 99}', "newer lpr_lab"),
        ("run.json", "[]", "schema_version"),
        ("run.json", '{"schema_version": true}', "schema_version"),
        ("run.json", '{"schema_version": 0}', "schema_version"),
        ("status.json", None, "status.json is missing"),
        ("status.json", '{"state": "dancing"}', "no known state"),
        ("status.json", "\0\0\0", "not readable as JSON"),
    ],
)
def test_a_damaged_run_is_listed_with_its_problem_and_hides_no_other(tmp_path, name, content, says):
    good, bad = make(tmp_path), make(tmp_path)
    if content is None:
        (bad.path / name).unlink()
    else:
        (bad.path / name).write_text(content)
    problems = {run.id: run.problem for run in list_runs(tmp_path)}
    assert problems[good.id] is None
    assert says in (problems[bad.id] or "")
    with pytest.raises(DamagedError, match=says):
        Run.open(tmp_path, bad.id)
    assert id_of(newest_run(tmp_path)) == good.id
    assert id_of(find_same_config(tmp_path, CONFIG, "demo")) == good.id


def test_a_damaged_config_is_named_and_skipped_in_searches(tmp_path):
    good, bad = make(tmp_path), make(tmp_path)
    (bad.path / "config.yaml").write_text("a: &x [1]\nb: *x\n")
    with pytest.raises(DamagedError, match="aliases"):
        _ = Run.open(tmp_path, bad.id).config
    (good.path / "metrics.jsonl").write_text("")
    assert id_of(find_same_config(tmp_path, CONFIG, "demo")) == good.id


def test_runs_folder_comes_from_the_environment_else_the_checkout_else_here(monkeypatch, tmp_path):
    monkeypatch.setenv("LPR_LAB_RUNS", str(tmp_path))
    assert default_runs_dir() == tmp_path
    monkeypatch.delenv("LPR_LAB_RUNS")
    monkeypatch.chdir(environment.CHECKOUT / "notebooks")
    assert default_runs_dir() == environment.CHECKOUT / "runs"
    monkeypatch.chdir(tmp_path)
    assert default_runs_dir() == tmp_path / "runs"


# Files


def test_metrics_come_back_as_a_table(tmp_path):
    run = make(tmp_path)
    assert run.metrics.read().empty and "value" in run.metrics.read()
    run.metrics.log({"step": 1, "tokens": 1024, "t": 2.5, "loss": 3.25, "balance": np.float32(1)}, stage="expand")
    run.metrics.log({"step": 2, "tokens": 2048, "t": 5.0, "loss": float("nan")}, stage="expand", lang="no")
    table = run.metrics.read()
    assert list(table["name"]) == ["loss", "balance", "loss"]
    assert table["value"].isna().tolist() == [False, False, True]
    assert table["lang"].iloc[2] == "no"


def test_a_resumed_stage_moves_the_numbers_it_will_repeat_aside(tmp_path):
    run = make(tmp_path)
    for step in range(1, 6):
        run.metrics.log({"step": step, "loss": step}, stage="expand")
    run.metrics.log({"step": 9, "loss": 9}, stage="review")
    assert run.metrics.truncate("expand", 3) == 2
    table = run.metrics.read()
    assert list(zip(table["stage"], table["step"], strict=True)) == [
        ("expand", 1),
        ("expand", 2),
        ("expand", 3),
        ("review", 9),
    ]
    orphans = list(run.path.glob("metrics.orphan-*.jsonl"))
    assert len(orphans) == 1 and len(orphans[0].read_text().splitlines()) == 2
    assert run.metrics.truncate("expand", 3) == 0


@pytest.mark.parametrize("tail", [b'{"step": 2, "na', b"\0" * 100, b'{"step": 2\0\0'])
def test_a_line_cut_by_a_kill_is_not_read_and_is_dropped_before_appending(tmp_path, tail):
    run = make(tmp_path)
    run.metrics.log({"step": 1, "loss": 1}, stage="expand")
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    assert len(run.metrics.read()) == 1
    run.start()
    run.metrics.log({"step": 2, "loss": 2}, stage="expand")
    assert list(run.metrics.read()["step"]) == [1, 2]
    run.stop("interrupted")


def test_tables_keep_codes_and_hashes_as_text_and_numbers_as_numbers(tmp_path):
    table = pd.DataFrame(
        {
            "language": ["no", "nan", "el"],
            "test_set": ["1234567890123456", "12e4567890123456", "0000000000000000"],
            "bits_per_byte": [1.5, np.nan, 0.1 + 0.2],
            "n_documents": [3, 4, 5],
            "remark": ['a "quoted", word', "two\nlines", ""],
        }
    )
    run = make(tmp_path)
    run.tables.write("retention", table)
    back = run.tables.read("retention")
    assert back is not None
    pd.testing.assert_frame_equal(back, table, check_dtype=False)
    assert run.tables.names() == ("retention",)
    assert run.tables.read("change") is None
    run.tables.write("empty", table.iloc[:0])
    empty = run.tables.read("empty")
    assert empty is not None and list(empty.columns) == list(table.columns)


@pytest.mark.parametrize("numbers", [(None, 1.5), (1.5, None), (None, None), (2.0, 1.5)])
@pytest.mark.parametrize("texts", [None, ("el", "007"), ("", "nan")])
def test_a_column_of_numbers_stays_one_wherever_a_number_is_missing(tmp_path, numbers, texts):
    table = pd.DataFrame(({} if texts is None else {"text": texts}) | {"number": pd.Series(numbers, dtype=float)})
    write_table(tmp_path / "table.csv", table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table, check_exact=True)
    write_table(tmp_path / "table.csv", table.astype({"number": object}))  # as records with None make it
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), table, check_exact=True)


def test_a_table_that_is_no_csv_is_named(tmp_path):
    run = make(tmp_path)
    (run.path / "tables").mkdir()
    (run.path / "tables" / "x.csv").write_bytes(b'"a","b"\n1,2,3\n4,5,6,7\n')
    with pytest.raises(DamagedError, match=r"x\.csv is not readable as a table"):
        run.tables.read("x")


def a_trace(num_tokens: int = 4) -> RoutingTrace:
    weights = np.random.default_rng(0).dirichlet([1, 1], size=(3, num_tokens))
    return RoutingTrace(
        text="Γεια",
        language="el",
        token_ids=list(range(num_tokens)),
        token_bytes=[None, *(bytes([0xCE, 0x93 + index]) for index in range(num_tokens - 1))],
        layers=np.array([0, 5, 29]),
        num_experts=np.array([2, 3, 2]),
        expert_ids=np.tile(np.array([0, 1]), (3, num_tokens, 1)),
        expert_weights=weights,
        original_weight=weights[..., 0],
        log_prob=np.array([np.nan, *[-1.5] * (num_tokens - 1)]),
        model={"base": "smollm2-135m", "top_k": 2},
    )


def test_a_trace_comes_back_as_it_was_written(tmp_path):
    run, trace = make(tmp_path), a_trace()
    run.traces.write("el", trace)
    back = run.traces.read("el")
    assert run.traces.names() == ("el",)
    assert (back.text, back.language, back.token_bytes, back.model) == ("Γεια", "el", trace.token_bytes, trace.model)
    np.testing.assert_array_equal(back.expert_ids, trace.expert_ids)
    np.testing.assert_allclose(back.expert_weights, trace.expert_weights, atol=5e-4)
    assert trace.log_prob is not None and back.log_prob is not None
    np.testing.assert_allclose(back.log_prob, trace.log_prob, rtol=1e-6)
    assert back.base_log_prob is None
    np.testing.assert_allclose(back.load(), trace.load())


def test_a_missing_or_damaged_trace_is_named(tmp_path):
    run = make(tmp_path)
    with pytest.raises(MissingError, match=r"no routing trace 'el'\. It has none"):
        run.traces.read("el")
    run.traces.write("el", a_trace())
    (run.path / "traces" / "el.npz").write_bytes(b"not a zip")
    with pytest.raises(DamagedError, match="el is damaged"):
        run.traces.read("el")
    run.traces.write("el", a_trace())
    write_text(run.path / "traces" / "el.tokens.jsonl", '{"i": 0, "id": 0, "bytes": null}\n')
    with pytest.raises(DamagedError, match="differ in length"):
        run.traces.read("el")
    (run.path / "traces" / "el.npz").unlink()
    with pytest.raises(MissingError, match=r"el\.npz is missing"):
        run.traces.read("el")


def test_figures_and_generations_come_back(tmp_path):
    run = make(tmp_path)
    run.figures.write("load", '{"data": [], "layout": {"title": "φ"}}')
    run.figures.write("change", {"data": []})
    assert run.figures.read() == {"change": {"data": []}, "load": {"data": [], "layout": {"title": "φ"}}}
    run.generations.append({"prompt": "Γεια", "base": "x", "expanded": "y"})
    run.generations.append({"prompt": "2"})
    assert [record["prompt"] for record in run.generations.read()] == ["Γεια", "2"]
    assert run.generations.read("other") == []


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "a\n"])
def test_no_name_leads_out_of_the_run(tmp_path, name):
    run = make(tmp_path)
    for call in (
        lambda: run.tables.write(name, pd.DataFrame()),
        lambda: run.tables.read(name),
        lambda: run.traces.write(name, a_trace()),
        lambda: run.traces.read(name),
        lambda: run.figures.write(name, {}),
        lambda: run.generations.append({}, name),
        lambda: run.paths.stage(name),
    ):
        with pytest.raises(UsageError, match="is no name for a"):
            call()


def test_a_checkpoint_counts_only_when_sealed(tmp_path):
    run = make(tmp_path)
    assert not run.paths.has_checkpoint
    run.paths.checkpoint.mkdir()
    assert not run.paths.has_checkpoint
    write_json(run.paths.checkpoint / "MANIFEST.json", {"files": {}})
    assert run.paths.has_checkpoint
    assert run.paths.stage("expand") == run.path / "stages" / "expand"
