"""The text of a run is the same text when the run is made and when it is studied."""

import json

import pytest

from helpers.tiny_corpus import small_settings
from lpr_lab.errors import UsageError
from lpr_lab.experiments import corpus, pipeline, recipes
from lpr_lab.experiments.config import StageBudget
from lpr_lab.runs.find import list_runs


@pytest.fixture
def asked(monkeypatch):
    """What `load_corpus` is asked for."""
    calls = []
    monkeypatch.setattr(corpus, "load_corpus", lambda name, **options: calls.append((name, options)))
    return calls


@pytest.mark.parametrize(("other", "is_own"), [("", True), ("org/name", True), ("elsewhere", False)])
def test_as_much_is_taken_of_the_runs_own_corpus_as_the_run_took(asked, other, is_own):
    budget = StageBudget(tokens=9_000_000)
    experiment = recipes.named("route_first", corpus="org/name", expanded=("el",), stage1=budget)
    corpus.corpus_of(experiment.to_config(), ["en", "el"], other)
    tokens = experiment.tokens_per_language if is_own else None
    assert asked == [(other or "org/name", {"languages": ["en", "el"], "tokens": tokens})]


def test_a_run_that_is_no_experiment_says_only_which_corpus(asked):
    corpus.corpus_of({"corpus": "org/name", "layers": "all"}, ["el"])
    assert asked == [("org/name", {"languages": ["el"], "tokens": None})]


@pytest.fixture(scope="module")
def without_replay(materials, tmp_path_factory):
    """Settings of short runs on text whose records are marked, none of an original language for replay."""
    lines = (materials / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for line in lines if (row := json.loads(line))["split"] != "replay" or row["language"] == "tr"]
    path = tmp_path_factory.mktemp("marked") / "marked.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    budget = StageBudget(tokens=2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)
    return small_settings(materials, budget) | {"corpus": str(path)}


@pytest.mark.parametrize(
    "recipe", ["moe_lpr", "one_stage", "full_replay", "ssu", "lape", "route_first", "local_review"]
)
def test_text_that_a_later_step_will_ask_for_is_missed_before_anything_is_trained(recipe, without_replay, tmp_path):
    with pytest.raises(UsageError, match="no replay text in"):
        pipeline.run(recipes.named(recipe, **without_replay), root=tmp_path)
    (run,) = list_runs(tmp_path)
    assert run.status.done_phases == ()


def test_a_recipe_that_replays_nothing_does_without(without_replay, tmp_path):
    run = pipeline.run(recipes.named("full", **without_replay), root=tmp_path)
    assert run.status.recorded_state == "finished"
