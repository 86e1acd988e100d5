"""The bake-off: equal parameters, no point made twice, and a difference that was planted is found and no other."""

import numpy as np
import pytest

from lpr_lab.errors import UsageError
from lpr_lab.experiments.bake_off import run
from lpr_lab.experiments.bake_off.arms import MEASURED, MORE, ORACLE, PROBE, BakeOff, planned
from lpr_lab.experiments.bake_off.table import arm_rows, as_markdown, score_rows

CURVES = {
    "mlp_input": [-0.1, 0.2, 0.4],
    "attention_output": [0.3, 0.2, 0.1],
    "neurons": [1.0, 0.0, 3.0],
    "gradient": [3.0, 2.0, 1.0],
    "predicted_gain": [1.0, 2.0, 3.0],
}
TESTS = ("heldout en", "heldout es", "heldout el", "heldout hu", "heldout tr", "dev el", "dev hu", "dev tr")


class StandIn:
    """A world in which only experts in the last layer help, each a little less than the one before."""

    def __init__(self, settings: BakeOff) -> None:
        self.settings, self.trainings = settings, 0
        self.model = self.tokenizer = self.corpus = None
        self.documents = {test: {"ids": ["a"], "bytes": [1]} for test in TESTS}

    def scored(self, model):
        generator = np.random.default_rng(0)
        return {test: generator.uniform(50, 150, 20).tolist() for test in TESTS}

    def trained(self, allocation, seed):
        self.trainings += 1
        helped = 1 - 0.02 * np.sqrt(allocation[-1])
        noise = np.random.default_rng([seed, *allocation])
        return {
            test: [one * (1 if test[-2:] in ("en", "es") else helped * (1 + noise.normal(0, 2e-4))) for one in nats]
            for test, nats in self.scored(None).items()
        }


@pytest.fixture
def world(monkeypatch):
    made = StandIn(BakeOff())
    monkeypatch.setattr(run.World, "load", lambda settings: made)
    monkeypatch.setattr(run, "measured_curves", lambda *_: dict(CURVES))
    return made


def test_all_arms_but_two_kinds_have_the_same_number_of_experts():
    arms = planned(BakeOff(), CURVES | {MEASURED: [0.1, 0.2, 0.7]}, 0)
    totals = {arm: made.total for arm, made in arms.items()}
    assert totals.pop(MORE) == 15 and {totals.pop(f"{PROBE}{layer}") for layer in range(3)} == {1}
    assert set(totals.values()) == {6} and ORACLE in totals


@pytest.mark.slow
def test_points_are_made_once_and_the_planted_layer_wins(world, tmp_path):
    file = tmp_path / "found.json"
    found = run.bake_off(world.settings, file, told=lambda _: None)
    made = world.trainings
    assert made == len(found["points"]) < sum(len(keys) for keys in found["arms"].values())
    again = run.bake_off(world.settings, file, told=lambda _: None)
    assert world.trainings == made and again["points"] == found["points"]
    rows = {row["arm"]: row for row in arm_rows(again)}
    assert rows[ORACLE]["experts"] == ["0 0 6"] or rows[ORACLE]["new"].value == min(
        row["new"].value for arm, row in rows.items() if arm != MORE
    )
    assert rows["oracle"]["new_to_uniform"].direction == rows["predicted_gain"]["new_to_uniform"].direction == -1
    assert rows["gradient"]["new_to_uniform"].direction == 1
    assert not any(row["original_to_uniform"].direction for row in rows.values())
    assert next(row for row in score_rows(again) if row["score"] == "gradient")["rank_correlation"] is not None
    assert as_markdown(again).count("\n") == len(rows) + 1


def test_results_of_other_settings_are_refused(world, tmp_path):
    run.bake_off(world.settings, tmp_path / "found.json", told=lambda _: None)
    with pytest.raises(UsageError, match="per_layer 2"):
        run.bake_off(BakeOff(per_layer=1), tmp_path / "found.json")


def test_one_seed_has_no_interval_and_no_verdict(world, tmp_path):
    found = run.bake_off(BakeOff(seeds=(0,)), tmp_path / "found.json", told=lambda _: None)
    assert not any(row["new_to_uniform"].direction for row in arm_rows(found))
