"""The comparison of rules that divide experts: the one that was planted is found, paired by seed, and no other."""

import pytest

from helpers.sample_scorecard import CONFIG, arm_run
from lpr_lab.runs.scorecard import allocations
from lpr_lab.runs.scorecard.allocations import MORE, ORACLE, UNIFORM, compare_allocations, measured_gains, probe_of

LAYERS = {"similarity": [0.1, 0.4, 0.3, 0.5]}


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Three seeds of each rule; `first` gains two points more than uniform, and all others as much as that."""
    root = tmp_path_factory.mktemp("runs")

    def of(name, change, new, seeds=3, dev=None, **phases):
        stages = {"G1 expand": {"hu": change, "en": 0.01, "es": 0.01}}
        runs = {}
        for seed in range(seeds):
            own = new if isinstance(new[0], int) else new[seed]
            runs[seed] = arm_run(
                *(root, 31 * len(name) + seed, stages),
                noise=0.0005,
                config={**CONFIG, "seed": seed, "arm": name},
                datasets=("heldout",) if dev is None else ("heldout", "dev"),
                plan={"new_experts": own, **phases.get("plan", {})},
                **{key: value for key, value in phases.items() if key != "plan"},
            )
        return {name: runs}

    scores = {"kind": "gradient", "values": [4.0, 3.0, 2.0, 1.0]}
    found = of(UNIFORM, -0.05, [2, 2, 2, 2]) | of("layer_moe, first", -0.07, [4, 2, 1, 1])
    found |= of("layer_moe, no classifier", -0.05, [4, 1, 2, 1], plan=LAYERS)
    found |= of("layer_moe, random", -0.05, [[1, 2, 1, 4], [4, 1, 1, 2], [2, 1, 4, 1]])
    found |= of("layer_moe, gradient", -0.05, [3, 2, 2, 1], scores=scores) | of(MORE, -0.05, [5] * 4, seeds=1)
    for layer, gain in enumerate((0.04, 0.01, 0.02, 0.003)):
        found |= of(probe_of(layer), -gain, [int(layer == other) for other in range(4)], dev=True)
    return found


def by_arm(found):
    return {name: row for row in found["rules"] for name in row["arms"]}


def test_a_rule_that_gains_more_is_found_beside_uniform_and_the_others_are_not(arms):
    rows = by_arm(compare_allocations(arms))
    best = rows["layer_moe, first"]
    assert best["expanded_less_uniform"].high < 0 < best["expanded_less_uniform"].seeds
    assert best["expanded_less_uniform"].value == pytest.approx(-2, abs=0.2)
    for name in ("layer_moe, no classifier", "layer_moe, random", "layer_moe, gradient"):
        assert rows[name]["expanded_less_uniform"].low <= 0 <= rows[name]["expanded_less_uniform"].high
    assert not rows[UNIFORM]["expanded_less_uniform"].seeds and ORACLE not in rows


def test_every_way_in_which_a_rule_divided_the_budget_stands_there(arms):
    rows = {name: row["experts"] for name, row in by_arm(compare_allocations(arms)).items()}
    assert rows["layer_moe, first"] == [[4, 2, 1, 1]] and len(rows["layer_moe, random"]) == 3


def test_rules_that_came_to_the_same_experts_are_one_row(arms):
    with_last = {**arms, "layer_moe, last": arms["layer_moe, first"]}
    rows = by_arm(compare_allocations(with_last))
    assert rows["layer_moe, last"] is rows["layer_moe, first"] and rows["layer_moe, first"]["rule"] == "first; last"
    oracle = by_arm(compare_allocations({**arms, ORACLE: arms[UNIFORM]}))[ORACLE]
    assert UNIFORM in oracle["arms"] and not oracle["expanded_less_uniform"].seeds


def test_one_seed_has_no_interval(arms):
    rows = by_arm(compare_allocations(arms))
    assert rows[MORE]["expanded_less_uniform"].seeds == 1
    assert rows[MORE]["expanded_less_uniform"].low != rows[MORE]["expanded_less_uniform"].low


def test_scores_of_layers_stand_beside_what_one_expert_gained_there(arms):
    probes = [probe_of(layer) for layer in range(4)]
    gains = measured_gains(arms, probes)
    assert gains == pytest.approx([4, 1, 2, 0.3], abs=0.3) and probes == allocations.probes_of(arms)
    scores = {row["score"]: row for row in compare_allocations(arms)["scores"]}
    assert scores["measured_gain"]["values"] == gains
    assert scores["gradient"]["correlation"].value == pytest.approx(0.8)
    assert scores["mlp_input"]["correlation"].value == pytest.approx(1.0), "the least alike gained most"


def test_gains_want_three_seeds_of_every_layer_measured_on_dev_text(arms):
    probes = [probe_of(layer) for layer in range(4)]
    assert measured_gains({**arms, probes[1]: {0: arms[probes[1]][0]}}, probes) is None
    assert measured_gains({**arms, probes[1]: arms["layer_moe, first"]}, probes) is None
    assert measured_gains(arms, ()) is None
