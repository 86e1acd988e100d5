"""Plans of one budget are comparable, and what a plan says of itself is checked."""

import numpy as np
import pytest

from lpr_lab.errors import UsageError
from lpr_lab.experiments.studies import plan as planning
from lpr_lab.experiments.studies.plan import PlanSettings
from lpr_lab.method.scores.table import LayerScores
from lpr_lab.method.similarity_table import SimilarityTable

SIMILARITY = [0.2, 0.1, 0.2, 0.4, 0.5, 0.4, 0.3, 0.2, 0.6]


@pytest.fixture
def table() -> SimilarityTable:
    pairs = np.array([[[1, value], [value, 1]] for value in SIMILARITY])
    return SimilarityTable(
        original=("en",),
        expanded=("el",),
        pairs=pairs,
        num_tokens=(9, 9),
        expert_parameters=(100,) * 9,
        state="mlp_input",
    )


@pytest.mark.parametrize("budget", [{"budget": 20}, {"budget": 2099, "budget_in": "parameters", "max_new": 6}])
def test_every_allocation_gets_the_same_budget(table, budget):
    plans = planning.allocations(PlanSettings(**budget), table)
    assert {plan.total for plan in plans.values()} == {20}
    assert set(plans) == {"uniform", "similarity", "inverse", "first", "last", "random"}
    assert max(plans["uniform"].new_experts) - min(plans["uniform"].new_experts) == 1


def test_a_score_that_was_measured_is_one_more_allocation_of_the_same_budget(table):
    scores = LayerScores(kind="gradient", values=(1.0, 3.0, *(0.5,) * 7))
    plans = planning.allocations(PlanSettings(budget=15, allocation="gradient"), table, scores)
    assert plans["gradient"].new_experts[:2] == (2, 6) and plans["gradient"].total == plans["similarity"].total == 15
    assert len(plans) == 7


def test_the_comparison_says_where_experts_go_and_which_routers_have_a_choice(table):
    plans = planning.allocations(PlanSettings(budget=9), table)
    rows = planning.compare(table, plans, top_k=2).set_index("allocation")
    assert rows.loc["uniform", "layer_by_layer"] == "1 1 1 1 1 1 1 1 1"
    assert rows.loc["uniform", "layers_with_a_choice"] == 0
    assert rows.loc["similarity", "layers_with_a_choice"] > 0
    assert rows.loc["first", "first_third"] > rows.loc["last", "first_third"]
    assert (rows[["first_third", "middle_third", "last_third"]].sum(axis=1) == 9).all()
    assert (rows["parameters"] == 900).all()


def test_classifiers_go_only_where_there_are_new_experts(table):
    settings = PlanSettings(budget=4, classifiers=2)
    plan = planning.allocations(settings, table)["similarity"]
    assert plan.new_experts[8] == 0  # the most similar layer of all
    chosen = planning.classifier_layers(settings, table, plan)
    assert len(chosen) == 2 and all(plan.new_experts[layer] for layer in chosen)
    assert planning.layers(settings, table, plan).query("classifier")["layer"].tolist() == list(chosen)


def test_claims_hold_for_a_humped_curve_and_fail_for_a_flat_one(table):
    settings = PlanSettings(budget=20)
    plans = planning.allocations(settings, table)
    assert {claim.name: claim.holds for claim in planning.check(settings, table, plans)} == {
        "in_order": True,
        "budget_spent": True,
        "hump": True,
        "last_layer": True,
    }
    wrong = plans | {"similarity": plans["inverse"], "first": planning.Allocation((1,) * 9)}
    broken = {claim.name: claim.measured for claim in planning.check(settings, table, wrong) if not claim.holds}
    assert set(broken) == {"in_order", "budget_spent"} and broken["budget_spent"] == 11


def test_unknown_names_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'similarity'"):
        PlanSettings(allocation="similarty")
    with pytest.raises(UsageError, match="experts, parameters"):
        PlanSettings(budget_in="bytes")
