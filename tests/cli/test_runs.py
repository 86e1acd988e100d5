import json
from pathlib import Path

import pytest

from helpers.cli_calls import call, in_a_process
from helpers.cli_results import IN_WORDS, RESULTS, SECONDS
from lpr_lab.runs.run import Run


def make_run(root: Path, **changes) -> Run:
    given = {"kind": "expansion", "slug": "el", "title": "A test", "config": {"language": "no"}} | changes
    return Run.create(root, **given)


def test_no_runs_says_how_to_make_one(runs):
    done = call("runs", "list")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "lpr-lab demo" in done.stderr
    assert call("runs", "show").exit_code == 3


def test_runs_are_listed_as_lines_and_as_json(runs):
    good, bad, example = make_run(runs), make_run(runs), make_run(runs / "examples", title="An example")
    (bad.path / "run.json").write_text("{")
    lines = call("runs", "list").stdout.splitlines()
    assert [good.id in line and "queued" in line for line in lines].count(True) == 1
    assert [bad.id in line and "unreadable" in line for line in lines].count(True) == 1
    assert example.id in lines[-1] and "example" in lines[-1]
    facts = json.loads(call("runs", "list", "--json").stdout)
    assert {fact["id"]: fact["problem"] is None for fact in facts} == {good.id: True, bad.id: False, example.id: True}
    assert call("runs", "list", "--kind", "review", "--json").stdout == "[]\n"


def test_a_run_is_shown_with_its_settings_and_its_results_in_words(runs):
    run = make_run(runs)
    run.start()
    run.phases.record("seconds", SECONDS)
    run.finish(RESULTS)
    shown = call("runs", "show").stdout
    assert 'language: "no"' in shown and "finished" in shown
    assert shown.endswith(IN_WORDS)
    facts = json.loads(call("runs", "show", run.id, "--json").stdout)
    assert facts["results"] == RESULTS and facts["config"] == {"language": "no"}


def test_a_run_that_is_no_expansion_is_shown_by_its_claims(runs):
    run = make_run(runs)
    run.start()
    run.finish({"claims": [{"text": "All is spelled.", "measured": 0.0, "holds": True}], "rows": [1] * 1000})
    assert call("runs", "show").stdout.endswith("\nHolds: All is spelled. Measured: 0.\n")


def test_results_of_another_kind_are_shown_as_they_are(runs):
    run = make_run(runs)
    run.start()
    run.finish({"answer": 42})
    assert '"answer": 42' in call("runs", "show").stdout


@pytest.mark.parametrize(("run_id", "code"), [("../x", 2), ("20260101-000000Z-none-0000", 3)])
def test_an_unknown_run_is_one_sentence_and_an_exit_code(runs, run_id, code):
    done = call("runs", "show", run_id)
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_an_unexpected_error_is_one_sentence_too_and_a_traceback_when_asked(runs, monkeypatch):
    def broken(*_):
        raise KeyError("surprise")

    monkeypatch.setattr("lpr_lab.runs.find.list_runs", broken)
    done = call("runs", "list")
    assert done.exit_code == 1
    assert "KeyError: 'surprise'" in done.stderr and "LPR_LAB_DEBUG=1" in done.stderr and done.stderr.count("\n") == 1
    monkeypatch.setenv("LPR_LAB_DEBUG", "1")
    assert isinstance(call("runs", "list").exception, KeyError)


def test_a_reader_that_closes_early_is_no_error(runs):
    for _ in range(3):
        make_run(runs)
    process = in_a_process("runs", "list")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=20)
    assert process.stderr is not None and "Traceback" not in process.stderr.read()


# Keeping order


def test_runs_are_tagged_found_by_it_and_untagged(runs):
    run, other = make_run(runs), make_run(runs)
    assert call("runs", "tag", run.id, "best", "βραβείο").stdout == "best\nβραβείο\n"
    assert json.loads(call("runs", "tag", run.id, "--json").stdout) == {"id": run.id, "tags": ["best", "βραβείο"]}
    found = json.loads(call("runs", "list", "--tag", "best", "--tag", "βραβείο", "--json").stdout)
    assert [fact["id"] for fact in found] == [run.id] and found[0]["tags"] == ["best", "βραβείο"]
    assert "#best" in call("runs", "list").stdout
    assert call("runs", "tag", run.id, "best", "βραβείο", "--remove").stdout == ""
    assert call("runs", "tag", other.id, "two words").exit_code == 2
    assert call("runs", "list", "--tag", "two words").exit_code == 2


def test_runs_are_moved_away_with_a_way_back_and_first_only_on_paper(runs):
    run = make_run(runs)
    child = make_run(runs, parents=[run.id])
    dry = call("runs", "rm", run.id, "--dry-run", "--json")
    assert json.loads(dry.stdout)[0]["children"] == [child.id] and child.id in dry.stderr and run.path.is_dir()
    done = call("runs", "rm", run.id)
    assert done.exit_code == 0 and "mv " in done.stderr and not run.path.exists()
    assert (runs / ".trash" / run.id / "run.json").is_file()
    assert call("runs", "rm", run.id).exit_code == 3


def test_a_run_that_cannot_be_read_can_be_moved_away(runs):
    run = make_run(runs)
    (run.path / "run.json").write_text("{")
    assert call("runs", "rm", run.id).exit_code == 0
    assert not run.path.exists()


def test_a_difference_shows_what_differs_and_all_when_asked(runs):
    one, two = make_run(runs), make_run(runs, config={"language": "nn", "seed": 1})
    shown = call("runs", "diff", one.id, two.id).stdout
    assert "language  no  nn" in shown and "Recorded by only some of them: seed." in shown
    assert "seed      –   1" in call("runs", "diff", one.id, two.id, "--all").stdout
    rows = json.loads(call("runs", "diff", one.id, two.id, "--json").stdout)["settings"]
    assert {"name": "language", "values": ["no", "nn"]} in rows
    assert call("runs", "diff", one.id, one.id).exit_code == 2
    assert call("runs", "diff", one.id, "20260101-000000Z-none-0000").exit_code == 3


def test_runs_are_listed_by_settings_and_in_their_order(runs):
    made = [make_run(runs, config={"seed": seed, "language": "no"}) for seed in (2, 10, 1)]
    where = ("--where", "seed>=2", "--sort", "seed")
    assert [line.split()[0] for line in call("runs", "list", *where).stdout.splitlines()] == [made[0].id, made[1].id]
    turned = json.loads(call("runs", "list", "--sort=-seed", "--json").stdout)
    assert [fact["id"] for fact in turned] == [made[1].id, made[0].id, made[2].id]
    refused = call("runs", "list", "--where", "seed")
    assert refused.exit_code == 2 and "is no condition" in refused.stderr


def test_a_note_is_written_read_shown_and_removed(runs):
    run = make_run(runs)
    assert call("runs", "note", run.id, "Το καλύτερο.\nTwo.").stdout == "Το καλύτερο.\nTwo.\n"
    assert call("runs", "note", run.id).stdout == "Το καλύτερο.\nTwo.\n"
    assert json.loads(call("runs", "show", run.id, "--json").stdout)["notes"] == "Το καλύτερο.\nTwo."
    assert call("runs", "note", run.id, "x", "--remove").exit_code == 2
    assert json.loads(call("runs", "note", run.id, "--remove", "--json").stdout) == {"id": run.id, "notes": ""}
    assert call("runs", "note", make_run(runs / "examples").id, "x").exit_code == 2


def test_texts_are_imported_from_a_file_of_lines_and_listed_by_group(runs, tmp_path):
    run = make_run(runs)
    file = tmp_path / "lines.txt"
    file.write_bytes("Μια μέρα\r\n\nفي يوم\n".encode())
    assert "2 texts" in call("runs", "texts", run.id, str(file), "--group", "Days", "-l", "el").stderr
    listed = call("runs", "texts", run.id).stdout.splitlines()
    assert listed[0] == "Days" and [line.split("  ")[-1] for line in listed[1:]] == ["Μια μέρα", "في يوم"]
    facts = json.loads(call("runs", "texts", run.id, "--json").stdout)
    assert {fact["text"] for fact in facts} == {"Μια μέρα", "في يوم"} and not any(fact["is_traced"] for fact in facts)
    file.write_bytes(b"fine\n\xff\n")
    refused = call("runs", "texts", run.id, str(file))
    assert refused.exit_code == 2 and "Line 2 is not UTF-8" in refused.stderr
    assert call("runs", "texts", run.id, str(tmp_path / "gone")).exit_code == 3
