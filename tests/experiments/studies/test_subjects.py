"""What evaluations, routing analyses and comparisons do in a folder of runs that has nothing to look at."""

import pytest

from helpers.tiny_notebooks import write_materials
from lpr_lab.experiments import recipes
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.studies import evaluation, generations, subjects
from lpr_lab.experiments.studies import routing as routing_analysis
from lpr_lab.runs.find import list_runs

ANSWERS = {
    "evaluation": lambda root: evaluation.start(evaluation.EvaluationSettings(), root=root),
    "routing": lambda root: routing_analysis.start(routing_analysis.RoutingSettings(), root=root),
    "comparison": lambda root: generations.start(generations.ComparisonSettings(), root=root),
}


@pytest.fixture
def short(tiny_model, tiny_tokenizer, sentences, tmp_path, monkeypatch):
    """Make the short expansion one of a tiny model, and return its settings."""
    experiment = recipes.route_first(
        **write_materials(tmp_path, tiny_model("llama"), tiny_tokenizer, sentences, ("en", "el"), 12),
        original=("en",),
        expanded=("el",),
        stage1=StageBudget(tokens=1024),
        fit_tokens_per_language=256,
        eval_tokens_per_language=256,
        precision="fp32",
    )
    monkeypatch.setattr(subjects, "short_expansion", lambda: experiment)
    return experiment


@pytest.mark.slow
@pytest.mark.parametrize("question", list(ANSWERS))
def test_without_an_expansion_a_short_one_is_made_looked_at_and_used_again(short, tmp_path, question):
    root = tmp_path / "runs"
    asked = ANSWERS[question](root)
    made = next(run for run in list_runs(root) if run.id in asked.run.parents)
    assert made.status.state == "finished" and made.config == short.to_config() and made.paths.has_checkpoint
    assert subjects.has_default_settings(made)
    again = ANSWERS[question](root)
    assert again.run.id != asked.run.id and again.run.parents == asked.run.parents == (made.id,)
    assert sum(run.kind == made.kind for run in list_runs(root)) == 1


def test_the_short_expansion_is_the_demo_with_less_text_and_one_language_less():
    short, demo = subjects.short_expansion(), recipes.route_first()
    assert set(short.expanded) < set(demo.expanded) and short.original == demo.original
    assert short.stage1.tokens * 6 == demo.stage1.tokens and short.steps == demo.steps
