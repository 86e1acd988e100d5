import json

import pytest

from helpers.plain_runs import CONFIG, id_of, make
from lpr_lab.errors import DamagedError, MissingError, UsageError
from lpr_lab.runs import environment
from lpr_lab.runs.find import default_runs_dir, find_same_config, list_runs, newest_run, start_run
from lpr_lab.runs.run import Run
from lpr_lab.storage import write_json


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
    with pytest.raises(MissingError, match=f"mean '{run.id}'"):
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
