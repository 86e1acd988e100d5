"""An experiment divides its experts by a score of layers: named as any allocation, measured once, kept in the run."""

import pytest

from helpers.tiny_corpus import small_settings
from lpr_lab.errors import UsageError
from lpr_lab.experiments import recipes
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.steps import plan
from lpr_lab.method.allocation import allocate
from lpr_lab.method.scores.table import KINDS, LayerScores
from lpr_lab.runs.run import Run

BUDGET = StageBudget(tokens=256, block_tokens=32, blocks_per_step=2)


@pytest.mark.parametrize("allocation", KINDS)
def test_the_plan_of_a_run_is_by_the_score_that_its_experiment_names(
    allocation, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    settings = small_settings(tmp_path, BUDGET) | {"original": ("en",), "expanded": ("el",), "score_tokens": 512}
    experiment = recipes.moe_lpr(**settings, allocation=allocation, new_experts_per_layer=4)
    run = Run.create(tmp_path, kind="expansion", slug="x", title="x", config=experiment.to_config())
    made = plan(experiment, run, tiny_model("llama"), tiny_tokenizer, tiny_corpus)
    scores = LayerScores.from_json(run.phases["scores"])
    assert scores.kind == allocation and made == allocate(scores, 8) and made.total == 8
    table = run.tables.read("scores")
    assert table is not None and len(table) == 2
    assert plan(experiment, run, None, None, None) == made  # an interrupted run keeps to it, and measures nothing


def test_notebooks_and_commands_name_it_by_a_parameter():
    made = recipes.from_notebook("moe_lpr", {}, settings={"allocation": "predicted_gain", "score_tokens": 1024})
    assert made.allocation == "predicted_gain" and made.scores.tokens_per_language == 1024


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"allocation": "gradients"}, "gradient"),
        ({"allocation": "neurons", "parent": "a-run"}, "a-run"),
        ({"allocation": "gradient", "quantization": "nf4"}, "nf4"),
        ({"score_tokens": 0}, "score_tokens"),
        ({"score_neuron_share": 1.5}, "1.5"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_loaded(wish, said):
    with pytest.raises(UsageError, match=said):
        recipes.moe_lpr(**wish)
