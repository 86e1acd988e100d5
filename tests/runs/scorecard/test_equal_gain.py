"""Methods are compared where they gained the same: one that only learns more forgets no more; a worse one is found."""

import pytest

from helpers.sample_scorecard import CONFIG, arm_run
from lpr_lab.experiments.scorecard.plan import ARMS
from lpr_lab.runs.scorecard.equal_gain import CURVES, REFERENCE, arms_of, compare_at_equal_gain

RATES = {"thirtieth of the rate": 1e-5, "tenth of the rate": 3e-5, "third of the rate": 1e-4, "": 3e-4}


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """MoE-LPR gains 5 % and forgets 2 %. `full_replay` forgets as much for each point that it gains, `lora` twice."""
    root = tmp_path_factory.mktemp("runs")

    def of(name, gain, forgets):
        stages = {"finetune": {"hu": -gain, "en": forgets, "es": forgets}}
        recipe, _, rate = name.partition(", ")
        config = {**CONFIG, "recipe": recipe, "stage1": {"learning_rate": RATES[rate]}}
        noise = {"noise": 0.0002, "config": config}
        return {name: {seed: arm_run(root, 17 * len(name) + seed, stages, **noise) for seed in range(3)}}

    found = of(REFERENCE, 0.05, 0.02)
    for name, gain in zip(arms_of("full_replay"), (0.01, 0.04, 0.07, 0.1), strict=True):
        found |= of(name, gain, 0.4 * gain)
    for name, gain in zip(arms_of("lora"), (0.02, 0.06, 0.08), strict=True):
        found |= of(name, gain, 0.8 * gain)
    # The rate that suits it learns less than a lower one, and forgets a lot.
    for name, (gain, forgets) in zip(arms_of("sparse_moe"), ((0.03, 0.012), (0.07, 0.028), (0.048, 0.2)), strict=True):
        found |= of(name, gain, forgets)
    for name, gain in zip(arms_of("ssu")[:2], (0.06, 0.09), strict=True):
        found |= of(name, gain, 0.0)
    return found | of("llama_pro", 0.02, 0.0)


def test_learning_more_is_not_forgetting_more(arms):
    rows = {row["method"]: row for row in compare_at_equal_gain(arms)}
    same, worse = rows["full_replay"]["more"], rows["lora"]["more"]
    assert same.low < 0 < same.high and same.value == pytest.approx(0, abs=0.15) and same.seeds == 3
    assert worse.low > 0 and worse.value == pytest.approx(2, abs=0.2)
    assert [row["method"] for row in compare_at_equal_gain(arms)][2:] == ["lora", "ssu"]


def test_a_rate_beyond_the_one_that_gains_most_does_not_count_against_a_method(arms):
    more = {row["method"]: row["more"] for row in compare_at_equal_gain(arms)}["sparse_moe"]
    assert more.low < 0 < more.high and more.value == pytest.approx(0, abs=0.15)


def test_beyond_the_points_of_a_curve_nothing_is_said(arms):
    rows = {row["method"]: row for row in compare_at_equal_gain(arms)}
    assert rows["ssu"]["more"].problem and not rows["ssu"]["more"].seeds
    assert "llama_pro" not in rows, "one point is no curve"


def test_every_point_is_an_arm_and_one_curve_has_one_recipe():
    for method in CURVES:
        assert {ARMS[name].recipe for name in arms_of(method)} == {method}
