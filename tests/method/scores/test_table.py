"""Scores of layers divide a budget in proportion; no torch."""

import pytest

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.method.allocation import allocate, delta_for
from lpr_lab.method.scores.table import LayerScores


def scored(*values: float, kind: str = "gradient") -> LayerScores:
    return LayerScores(kind=kind, values=values)


def test_a_layer_of_twice_the_score_gets_twice_the_experts():
    assert allocate(scored(4, 2, 1, 1), 8).new_experts == (4, 2, 1, 1)


def test_similarity_is_the_score_one_over_itself():
    values = (0.2, 0.4, 0.1, 0.3)
    assert allocate(scored(*(1 / value for value in values)), 13) == allocate(values, 13)


def test_a_layer_without_a_score_gets_an_expert_only_when_it_must_or_all_others_are_full():
    assert allocate(scored(3, 0, 1, -2), 8).new_experts == (6, 0, 2, 0)
    assert allocate(scored(3, 0, 1, -2), 8, min_new=1).new_experts == (5, 1, 1, 1)
    assert allocate(scored(3, 0, 1, -2), 8, max_new=3).new_experts == (3, 1, 3, 1)


def test_controls_are_given_the_same_shares_and_each_reads_the_score():
    of = scored(4, 2, 1, 1)
    found = {by: allocate(of, 8, by=by).new_experts for by in (None, "gradient", "inverse", "first", "last", "random")}
    assert found[None] == found["gradient"] == found["first"] == (4, 2, 1, 1)
    assert found["last"] == (1, 1, 2, 4) and found["inverse"] in {(1, 1, 2, 4), (1, 1, 4, 2), (1, 2, 4, 1)}
    assert sorted(found["random"]) == [1, 1, 2, 4]


def test_scores_round_up_as_similarity_does():
    of = scored(4, 2, 1, 1)
    assert sum(allocate(of, delta_for(of, 8), "round_up").new_experts) == 8


def test_a_budget_of_parameters_counts_each_layer_s_size():
    assert allocate(scored(1, 1), 40, parameters_per_expert=[10, 20]).new_experts == (2, 1)


@pytest.mark.parametrize(
    ("given", "by"), [(scored(1, 2), "similarity"), (scored(1, 2), "neurons"), ([1, 2], "gradient")]
)
def test_what_was_not_measured_cannot_be_divided_by(given, by):
    with pytest.raises(UsageError, match=by):
        allocate(given, 2, by=by)


@pytest.mark.parametrize("values", [(), (0, 0), (-1, 0), (1, float("nan")), (float("inf"), 1)])
def test_scores_that_divide_nothing_are_refused(values):
    with pytest.raises(UsageError, match="gradient"):
        scored(*values)


def test_scores_survive_json_and_a_damaged_record_is_said_to_be():
    made = LayerScores(kind="neurons", values=(1.0, 3.0), expert_parameters=(5, 5), original=("en",), expanded=("el",))
    assert LayerScores.from_json(made.to_json()) == made
    assert made.to_frame()["share"].tolist() == [0.25, 0.75]
    with pytest.raises(DamagedError):
        LayerScores.from_json({"kind": "neurons"})
