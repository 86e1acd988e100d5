"""`lpr-lab scorecard`: shown from runs or from what came with the code, made, saved."""

import json

import pytest

from helpers.cli_calls import call
from helpers.sample_scorecard import scorecard_runs
from lpr_lab.experiments.scorecard import build, plan
from lpr_lab.experiments.scorecard import run as making
from lpr_lab.runs.scorecard import table


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return root, scorecard_runs(root)


@pytest.fixture
def of_the_runs(made, monkeypatch):
    root, card = made
    monkeypatch.setitem(plan.CARDS, "small-world", card)
    return root


def test_the_table_has_the_instrument_first_and_then_every_claim(of_the_runs):
    done = call("scorecard", "show", "--runs-dir", str(of_the_runs))
    assert done.exit_code == 0 and done.stdout.index("The instrument:") < done.stdout.index("The claims:")
    assert "not run: no_copy" in done.stdout and str(of_the_runs) in done.stdout
    card = json.loads(call("scorecard", "show", "--json", "--runs-dir", str(of_the_runs)).stdout)
    assert len(card["claims"]) == 22 and card["source"]


def test_without_runs_it_is_the_one_that_came_with_the_code_and_without_that_it_says_how_to_make_one(
    tmp_path, monkeypatch, made
):
    root, card = made
    table.save(build.build(card, root), tmp_path / "results")
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results")
    done = call("scorecard", "show", "--runs-dir", str(tmp_path / "none"))
    assert done.exit_code == 0 and "came with the code" in done.stdout
    never = call("scorecard", "show", "--base", "gemma3-270m", "--runs-dir", str(tmp_path / "none"))
    assert never.exit_code == 0 and "not run: moe_lpr" in never.stdout and "22 not decidable" in never.stdout
    other = call("scorecard", "show", "--base", "other", "--runs-dir", str(tmp_path / "none"))
    assert other.exit_code == 3 and "scorecard run --base other" in other.stderr


def test_all_bases_stand_side_by_side(of_the_runs):
    done = call("scorecard", "bases", "--runs-dir", str(of_the_runs))
    assert done.exit_code == 0 and str(of_the_runs) in done.stdout
    head = done.stdout.splitlines()[0].split()
    assert {"small-world", "smollm2-135m", "gemma3-270m", "claim"} <= set(head)
    found = json.loads(call("scorecard", "bases", "--json", "--runs-dir", str(of_the_runs)).stdout)
    assert len(found["claims"]) == 22 and set(found["bases"]) == set(found["sources"])


def test_a_scorecard_of_chosen_languages_is_shown_and_saved_as_such(made, tmp_path):
    root, _ = made
    options = ("--expanded", "hu", "--runs-dir", str(root))
    shown = json.loads(call("scorecard", "show", "--json", *options).stdout)
    assert shown["source"].endswith(str(root)) and len(shown["arms"]) == 4
    assert {row["command"] for row in shown["claims"]} == {
        f"lpr-lab scorecard run --base small-world --expanded hu --only {number + 1}" for number in range(22)
    }
    none = json.loads(call("scorecard", "show", "--json", "--original", "es", *options).stdout)
    assert not none["arms"] and none["languages"]["original"] == ["es"] and none["source"].startswith("no run")
    over_ours = call("scorecard", "save", *options)
    assert over_ours.exit_code == 2 and "--out" in over_ours.stderr
    assert call("scorecard", "save", "--out", str(tmp_path), *options).exit_code == 0
    assert json.loads((tmp_path / "small-world.json").read_text())["languages"]["expanded"] == ["hu"]
    nothing = call("scorecard", "save", "--out", str(tmp_path), "--corpus", "mine.jsonl", *options)
    assert nothing.exit_code == 3 and "--corpus mine.jsonl --expanded hu" in nothing.stderr


def test_only_what_a_claim_needs_is_made_and_a_dry_run_makes_nothing(of_the_runs, monkeypatch):
    asked = []

    def make(card, names, seeds, root, **options):
        asked.append((list(names), seeds, options["dry_run"]))
        return making.Made(failed={("no_copy", 0): "out of paper"})

    monkeypatch.setattr(making, "make_missing", make)
    done = call("scorecard", "run", "--only", "15", "-n", "3", "--dry-run", "--runs-dir", str(of_the_runs))
    assert done.exit_code == 0 and asked == [(["moe_lpr", "no_copy"], 3, True)] and not done.stdout
    failed = call("scorecard", "run", "--only", "15", "--runs-dir", str(of_the_runs))
    assert failed.exit_code == 1 and "out of paper" in failed.stderr
    told = [line.split()[0] for line in failed.stdout.splitlines() if line[:2].strip().isdecimal()]
    assert told == ["15", "0"] and "1 not decidable here" in failed.stdout, "of the claim alone, and then the counts"
    none = call("scorecard", "run", "--only", "22", "--expanded", "hu", "--expanded", "tr")
    assert none.exit_code == 2 and "--further" in none.stderr
    wrong = call("scorecard", "run", "--arm", "no_copi", "--runs-dir", str(of_the_runs))
    assert wrong.exit_code == 2 and "no_copy" in wrong.stderr


def test_it_is_saved_as_a_small_file(of_the_runs, tmp_path):
    done = call("scorecard", "save", "--out", str(tmp_path), "--runs-dir", str(of_the_runs))
    assert done.exit_code == 0 and (tmp_path / "small-world.json").is_file()
    assert call("scorecard", "save", "--runs-dir", str(tmp_path / "none")).exit_code == 3


def test_its_runs_are_kept_beside_it_and_put_back_into_a_folder(of_the_runs, tmp_path, monkeypatch):
    call("scorecard", "save", "--out", str(tmp_path / "results"), "--runs-dir", str(of_the_runs))
    monkeypatch.setattr("lpr_lab.runs.scorecard.kept_runs.RESULTS", tmp_path / "results")
    done = call("scorecard", "unpack", "--runs-dir", str(tmp_path / "runs"))
    assert done.exit_code == 0 and len(done.stdout.split()) == 12
    shown = call("scorecard", "show", "--json", "--runs-dir", str(tmp_path / "runs"))
    assert json.loads(shown.stdout)["source"].endswith("runs")
    again = call("scorecard", "unpack", "--runs-dir", str(tmp_path / "runs"))
    assert again.exit_code == 0 and not again.stdout and "12 were there" in again.stderr
