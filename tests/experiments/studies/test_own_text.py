"""What is measured of any run is measured of one on plain text too, which has no held-out text of another genre."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from helpers.tiny_corpus import small_settings
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.controls.arms import make_old_only
from lpr_lab.experiments.expert_contexts import find_contexts
from lpr_lab.experiments.studies import evaluation, routing
from lpr_lab.experiments.studies.subjects import load_model
from lpr_lab.runs.compare.control_runs import excess_forgetting
from lpr_lab.runs.expert_contexts import read_contexts

pytestmark = pytest.mark.slow
BUDGET = StageBudget(tokens=2 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def finished(materials, own_text, tmp_path_factory):
    chosen = {"corpus": own_text, "original": ("en",), "expanded": ("el",)}
    experiment = recipes.moe_lpr(**small_settings(materials, BUDGET) | chosen)
    return pipeline.run(experiment, root=tmp_path_factory.mktemp("runs"))


def test_a_run_is_evaluated_anew_and_from_what_it_kept(finished):
    root = finished.path.parent
    for scores in ("new", "kept"):
        work = evaluation.start(evaluation.EvaluationSettings(after=finished.id, scores=scores), root=root)
        change = evaluation.measure(work)
        assert set(change["dataset"]) == {"dev"} and set(change["language"]) == {"en", "el"}
        evaluation.finish(work)


def test_its_routing_is_looked_at(finished):
    settings = routing.RoutingSettings(run=finished.id, causal_tokens=16, n_sentences=1)
    analysis = routing.start(settings, root=finished.path.parent)
    routing.measure(analysis)
    assert {one for name in ("load", "causal") for one in analysis.table(name)["dataset"]} == {"dev"}
    assert {"en-1", "el-1"} <= set(analysis.run.traces.names())


def test_its_old_only_arm_tells_excess_forgetting(finished):
    assert list(excess_forgetting(finished, make_old_only(finished))["language"]) == ["en", "mean"]


def test_contexts_of_its_experts_are_found(finished):
    model, tokenizer = load_model(finished)
    list(find_contexts(finished, lambda: nullcontext(SimpleNamespace(model=model, tokenizer=tokenizer))))
    assert set(read_contexts(finished).contexts["dataset"]) == {"dev"}
