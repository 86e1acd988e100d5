"""One language at a time: the runs, what the base makes of each language, and the table."""

import json
import math

import pytest

from helpers.cli_calls import call
from helpers.other_commands import while_waiting
from helpers.sample_scorecard import arm_run, language_run, tiny_card
from lpr_lab.errors import MissingError
from lpr_lab.experiments import pipeline
from lpr_lab.experiments.each_language import make, plan, table
from lpr_lab.experiments.scorecard import run as making
from lpr_lab.experiments.scorecard.plan import card_for, experiment_of
from lpr_lab.measure.significance import rank_correlation, rank_correlation_interval
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.scorecard.kept_runs import unpack
from lpr_lab.storage import read_json_object


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    language_run(root, "hu", -0.05, tokens_per_byte=0.6, similarity=0.2)
    language_run(root, "hu", -0.07, seed=1, tokens_per_byte=0.6, similarity=0.2)
    return root


def test_every_language_gets_the_same_budget_and_recipe_and_differs_in_nothing_else():
    codes = plan.languages_of("smollm2-135m")
    assert {"el", "hi", "zh"} <= set(codes) and not {"en", "es"} & set(codes)
    configs = [experiment_of(plan.card_of("smollm2-135m", code), plan.ARM, 0).to_config() for code in codes]
    assert {tuple(config.pop("expanded")) for config in configs} == {(code,) for code in codes}
    assert all(config == configs[0] for config in configs)
    assert configs[0]["stage1"]["tokens"] == 20_480  # what one of three languages has in the scorecard


def test_a_row_has_what_its_runs_say_with_an_interval_over_seeds(runs):
    found = table.build_table("small-world", runs)
    (row,) = found["rows"]
    assert (row["language"], row["name"], row["script"], row["seeds"]) == ("hu", "Hungarian", "Latin", 2)
    assert row["gain"]["value"] == pytest.approx(-6, abs=0.5)
    assert row["gain"]["low"] < row["gain"]["value"] < row["gain"]["high"]
    assert row["cost"]["value"] == pytest.approx(1.5, abs=0.5)
    assert (row["tokens_per_byte"], row["similarity"]) == (0.6, 0.2)
    assert found["scripts"] == [
        {"script": "Latin", "languages": 1, "gain": row["gain"]["value"], "cost": row["cost"]["value"]}
    ]


def test_with_one_seed_the_interval_is_over_documents(tmp_path):
    language_run(tmp_path, "hu", -0.05)
    (row,) = table.build_table("small-world", tmp_path)["rows"]
    assert row["seeds"] == 1 and row["gain"]["low"] < row["gain"]["value"] < row["gain"]["high"]


def test_a_run_with_another_budget_or_several_languages_has_no_row(tmp_path):
    card = plan.card_of("small-world", "hu")
    other = experiment_of(card_for("small-world", expanded=("hu",)), plan.ARM, 0).to_config()
    arm_run(tmp_path, 0, {"G1 expand": {"hu": -0.05}}, config=other)
    several = experiment_of(card_for("small-world"), plan.ARM, 0).to_config()
    arm_run(tmp_path, 0, {"G1 expand": {"hu": -0.05}}, config=several)
    assert card.stage1_tokens != other["stage1"]["tokens"]
    assert not table.build_table("small-world", tmp_path)["rows"]


def test_relations_over_languages_have_an_interval_from_five_on():
    def row(number):
        place = {0: 1, 1: 0}.get(number, number)  # all in order but the first two
        facts = {"tokens_per_byte": 0.1 * place, "similarity": 0.5, "base_bits_per_byte": None}
        return {**facts, "script": "Latin", "gain": {"value": -float(number)}, "cost": {"value": 0.1}}

    four = table.relations([row(number) for number in range(4)])
    six = table.relations([row(number) for number in range(7)])
    of_four, of_six = (
        next(one for one in found if (one["of"], one["with"]) == ("gain", "tokens_per_byte")) for found in (four, six)
    )
    assert of_four["value"] == pytest.approx(-0.8) and of_four["low"] is None
    assert -1 < of_six["value"] < -0.9 and of_six["high"] < 0
    assert next(one for one in six if one["with"] == "similarity")["value"] is None  # all the same
    assert not [one for one in six if one["with"] == "base_bits_per_byte"]


def test_rank_correlation_shares_ranks_of_equal_values():
    assert rank_correlation([1, 1, 2, 3], [1, 1, 2, 3]) == 1
    assert rank_correlation([3, 1, 1, 2], [3, 1, 2, 1.5]) == pytest.approx(3 / math.sqrt(4.5 * 5))
    assert math.isnan(rank_correlation([1, 1, 1], [1, 2, 3]))


def test_a_perfect_order_of_few_pairs_has_no_interval_that_says_there_is_no_other():
    for other in (range(6), [5, 4, 3, 2, 1, 0]):
        found = rank_correlation_interval(range(6), other)
        assert abs(found.value) == 1 and not found.has_interval
    assert rank_correlation_interval(range(6), [0, 1, 2, 3, 5, 4]).has_interval


def test_the_interval_of_a_rank_correlation_covers_it_in_about_95_of_100_samples():
    import numpy as np

    rng, true, covered = np.random.default_rng(0), 0.6, 0
    for _ in range(300):
        one = rng.normal(size=20)
        other = true * one + math.sqrt(1 - true**2) * rng.normal(size=20)
        found = rank_correlation_interval(one.tolist(), other.tolist())
        covered += found.low <= 6 / math.pi * math.asin(true / 2) <= found.high
    assert 0.9 <= covered / 300 <= 0.99


def test_the_command_shows_saves_and_unpacks_it(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results")
    of_runs = ("--base", "small-world", "--runs-dir", str(runs))
    shown = call("languages", "show", *of_runs)
    assert shown.exit_code == 0 and "Hungarian" in shown.stdout and str(runs) in shown.stdout
    assert call("languages", "save", *of_runs).exit_code == 0
    elsewhere = ("--base", "small-world", "--runs-dir", str(tmp_path / "none"))
    saved = call("languages", "show", "--json", *elsewhere)
    rows, whole = json.loads(saved.stdout)["rows"], table.build_table("small-world", runs)["rows"]
    for row, own in zip(rows, whole, strict=True):
        assert {key: value for key, value in row.items() if not isinstance(value, dict)} == {
            key: value for key, value in own.items() if not isinstance(value, dict)
        }
        assert row["runs"] == own["runs"]
        for name in ("gain", "cost"):
            assert row[name] == pytest.approx(own[name], abs=1e-4), "kept numbers have seven digits"
    assert call("languages", "unpack", *elsewhere).exit_code == 0
    assert rows == table.build_table("small-world", tmp_path / "none")["rows"], "what is saved is what is kept"
    assert json.loads(call("languages", "show", "--json", *elsewhere).stdout)["source"].endswith("none")
    none = call("languages", "show", "--base", "gemma3-270m", "--runs-dir", str(runs))
    assert none.exit_code == 3 and "lpr-lab languages run --base gemma3-270m" in none.stderr


def test_without_runs_and_without_a_saved_table_it_says_how_to_make_one(tmp_path):
    with pytest.raises(MissingError, match="languages run"):
        table.language_table("small-world", tmp_path, tmp_path)


def test_what_came_with_the_code_is_what_its_runs_say(tmp_path):
    saved = sorted(table.RESULTS.glob("*.json"))
    assert saved
    for path in saved:
        unpack(path.stem, tmp_path, table.RESULTS)
        assert table.build_table(path.stem, tmp_path) == read_json_object(path)


def test_a_language_that_another_command_teaches_is_waited_for_when_the_others_are_done(
    materials, tmp_path, monkeypatch
):
    card, finished = tiny_card(materials), []

    def finish(run):
        run.finish({"schema_version": 1})
        finished.append(run.config["expanded"])

    monkeypatch.setattr(plan, "card_for", lambda base, **changes: card)
    monkeypatch.setattr(make, "language_facts", lambda experiment, corpus: {"similarity": 0.5})
    monkeypatch.setattr(making.Texts, "of", lambda self, experiment, dev=False: None)
    monkeypatch.setattr(making, "work_on", lambda experiment, run, corpus: finish(run))
    theirs = pipeline.start(experiment_of(plan.card_of(card.base, "el"), plan.ARM, 0), root=tmp_path)
    while_waiting(monkeypatch, lambda: theirs.status.is_live and finish(theirs))
    assert not make.make_languages(card.base, ["el", "tr"], tmp_path, say=lambda text: None)
    assert finished == [["tr"], ["el"]] and len(list_runs(tmp_path)) == 2
    assert all(run.phases.get(plan.PHASE) for run in list_runs(tmp_path))


@pytest.mark.slow
def test_each_language_is_taught_alone_and_once_and_the_base_is_measured_on_it(materials, tmp_path, monkeypatch):
    card = tiny_card(materials)
    monkeypatch.setattr(plan, "card_for", lambda base, **changes: card)
    said: list[str] = []
    read: list[tuple[str, ...]] = []
    real = making.corpus_of
    monkeypatch.setattr(making, "corpus_of", lambda config, codes: read.append(codes) or real(config, codes))
    failed = make.make_languages(card.base, ["el", "tr", "fi"], tmp_path, say=said.append)
    assert len(read) == len(set(read)), "a language's text is read once, to train and to measure"
    assert set(failed) == {"fi"}, "of which the corpus has no text"
    found = table.build_table(card.base, tmp_path)
    assert [row["language"] for row in found["rows"]] == ["el", "tr"]
    for row in found["rows"]:
        assert row["tokens_per_byte"] > 0 and -1 <= row["similarity"] <= 1 and row["base_bits_per_byte"] > 0
        assert math.isfinite(row["gain"]["value"]) and math.isfinite(row["cost"]["value"])
    runs = sorted(tmp_path.glob("2*"))
    assert not make.make_languages(card.base, ["el", "tr"], tmp_path, say=said.append)
    assert sorted(tmp_path.glob("2*")) == runs
