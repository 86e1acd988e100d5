"""The text of a run is the same text when the run is made and when it is studied."""

import pytest

from lpr_lab.experiments import corpus, recipes
from lpr_lab.experiments.config import StageBudget


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
