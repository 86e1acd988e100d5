"""The instrument before its readings: nothing is found where nothing is, and a planted per cent is found."""

import numpy as np
import pytest

from helpers.sample_scores import finished_run, scored
from lpr_lab.errors import ComparisonRefusedError
from lpr_lab.measure.controls.equal_gain import GainPoint, at_gain, common_gain, difference_at_gain
from lpr_lab.measure.forgetting import bootstrap_draws, change_rows
from lpr_lab.measure.significance import UNCLEAR, WORSE
from lpr_lab.runs.compare.control_runs import excess_forgetting, find_old_only, forgetting_at_gain, forgotten_on
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.yaml_files import dump_yaml


def point(gain: float, forgetting: float, name: str = "", noise: float = 0.1, seed: int = 0, **made) -> GainPoint:
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(0, noise, 400), rng.normal(0, noise, 400)
    return GainPoint(name or f"{gain}", gain, forgetting, gain + shared, forgetting + own, 50, **made)


def configured(run, **changes):
    (run.path / "config.yaml").write_text(dump_yaml({**run.documents.config, **changes}))
    return type(run)(run.path)


# ------------------------------------------------------------------------------------------------ excess forgetting


def test_an_arm_against_itself_has_no_excess_and_against_another_seed_no_clear_one(tmp_path):
    run, twin, again = (finished_run(tmp_path, name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    same = excess_forgetting(run, twin)
    assert (same["excess"] == 0).all() and (same["verdict"] == UNCLEAR).all()
    assert list(same["language"]) == ["en", "es", "mean"] and set(same["control"]) == {twin.id}
    assert (excess_forgetting(run, again)["verdict"] == UNCLEAR).sum() >= 2


def test_a_planted_per_cent_is_found_although_bits_fell(tmp_path):
    control = finished_run(tmp_path, "old only", more=-0.05)
    run = finished_run(tmp_path, "run", more=-0.04)
    found = excess_forgetting(run, control)
    assert (found["change_percent"] < 0).all()  # what raw bits per byte would call no forgetting
    assert found["excess"].to_numpy() == pytest.approx(1, abs=1e-6) and (found["verdict"] == WORSE).all()
    assert (found["ci_low"] > 0).all() and (found["ci_low"] <= found["excess"]).all()


def test_where_there_is_no_held_out_text_forgetting_is_told_on_dev_text(tmp_path):
    runs = []
    for name, more in (("old only", -0.05), ("run", -0.04)):
        run = finished_run(tmp_path, name, more=more)
        assert forgotten_on(run) == "heldout"
        for table in ("change", "documents"):
            rows = run.tables.read(table)
            run.tables.write(table, rows[rows["dataset"] == "dev"])
        runs.append(type(run)(run.path))
    control, run = runs
    assert forgotten_on(run) == "dev"
    found = excess_forgetting(run, control)
    assert found["excess"].to_numpy() == pytest.approx(1, abs=1e-6) and len(found) == 3
    at_gain = forgetting_at_gain({name: [ModelRef(one, "")] * 2 for name, one in (("a", run), ("b", run))})
    assert list(at_gain["name"]) == ["a", "b"]
    with pytest.raises(ComparisonRefusedError, match="heldout"):
        forgotten_on(run, "heldout")


def test_shuffled_labels_show_nothing():
    """Whatever the true effect, models dealt to the two sides at random by document do not differ."""
    rng, claimed = np.random.default_rng(0), 0
    for trial in range(60):
        test = scored(seed=trial)[0]
        swap = rng.random(len(test.num_bytes)) < 0.5
        one, other = test.nats["base"], test.nats["G1 expand"]
        nats = {"base": np.where(swap, one, other), "expanded": np.where(swap, other, one)}
        shuffled = type(test)(test.language, test.role, test.dataset, test.fingerprint, test.num_bytes, nats)
        claimed += change_rows([shuffled], [bootstrap_draws(shuffled, 300)])["verdict"].iloc[0] != UNCLEAR
    assert claimed <= 8


def test_a_control_of_another_base_or_other_documents_is_refused(tmp_path):
    run, texts = finished_run(tmp_path, "run"), finished_run(tmp_path, "other", texts="x")
    with pytest.raises(ComparisonRefusedError, match="documents"):
        excess_forgetting(run, texts)
    with pytest.raises(ComparisonRefusedError, match="another/base"):
        excess_forgetting(run, configured(finished_run(tmp_path, "base"), base="another/base"))


def test_the_old_only_arm_is_the_run_that_differs_in_nothing_else(tmp_path):
    run = configured(finished_run(tmp_path, "run"), seed=0)
    other = configured(finished_run(tmp_path, "other"), control="old_only", seed=1)
    control = configured(finished_run(tmp_path, "control"), control="old_only", seed=0)
    assert find_old_only(run, [other, run, control]) == control
    assert find_old_only(run, [other]) is None and find_old_only(control, [control]) is None


# ---------------------------------------------------------------------------------------------------- at equal gain


def test_forgetting_is_read_off_the_line_between_the_two_points_that_enclose_the_gain():
    curve = [point(20, 8), point(5, 1), point(10, 2)]
    found = at_gain(curve, 15)
    assert found.forgetting.value == pytest.approx(5) and found.between == ("10", "20")
    assert found.forgetting.low < 5 < found.forgetting.high
    assert at_gain(curve, 10).between == ("10", "10") and at_gain(curve, 10).forgetting.value == 2


@pytest.mark.parametrize("gain", [4.9, 20.1])
def test_nothing_is_said_beyond_the_points(gain):
    with pytest.raises(ComparisonRefusedError, match=f"{gain:.2f}"):
        at_gain([point(5, 1), point(20, 8)], gain)
    with pytest.raises(ComparisonRefusedError, match="20"):
        common_gain({"a": [point(5, 1), point(8, 2)], "b": [point(12, 1), point(20, 2)]})


def test_two_points_of_one_gain_have_a_line_without_direction_and_claim_nothing():
    curve = [point(10.00, 1, seed=1), point(10.01, 9, seed=2)]
    assert not at_gain(curve, 10.005).forgetting.has_interval
    assert difference_at_gain(curve, [point(5, 1), point(20, 2)], 10.005).verdict() == UNCLEAR


def test_a_rate_so_high_that_it_gained_less_is_no_point_of_the_curve():
    low, best = point(5, 1, rate=1e-4), point(12, 2, rate=3e-4)
    beyond = point(8, 20, rate=1e-3)
    found = at_gain([low, beyond, best], 8.5)
    assert found.forgetting.value == pytest.approx(1.5) and found.between == ("5", "12")
    assert common_gain({"one": [low, best, beyond], "other": [best, point(30, 3, rate=9e-4)]}) == (12, 12)
    reviewed = point(8, 0.5, rate=3e-4, otherwise="with a review")
    assert at_gain([low, reviewed, best], 8).between == ("8", "8"), "another budget is another way to gain"
    unknown = [point(5, 1), point(8, 20), point(12, 2)]
    assert at_gain(unknown, 8).forgetting.value == 20, "of points without a rate nothing is known"


def test_a_curve_equals_itself_at_every_gain_and_a_planted_difference_is_found():
    curve = [point(5, 1), point(20, 8)]
    assert difference_at_gain(curve, curve, 12).value == 0 == difference_at_gain(curve, curve, 12).direction
    worse = [point(5, 2), point(20, 9)]
    found = difference_at_gain(worse, curve, 12)
    assert found.value == pytest.approx(1) and found.verdict() == WORSE


def test_runs_are_compared_at_a_gain_that_both_reached(tmp_path):
    ways = {
        name: [ModelRef(finished_run(tmp_path, f"{name}{more}", more=more), "") for more in (0.0, -0.06)]
        for name in ("lora", "full")
    }
    table = forgetting_at_gain(ways)
    assert list(table["name"]) == ["lora", "full"] and list(table["verdict"]) == ["", UNCLEAR]
    assert table["difference"].tolist() == [0, 0] and table["gain"].nunique() == 1
    with pytest.raises(ComparisonRefusedError):
        forgetting_at_gain(ways, gain=90)
    too_high = configured(finished_run(tmp_path, "lora high"), stage1={"learning_rate": 1e-2})
    lower = configured(ways["lora"][1].run, stage1={"learning_rate": 1e-4})
    rates = forgetting_at_gain({"lora": [ways["lora"][0], ModelRef(lower, ""), ModelRef(too_high, "")]})
    assert rates["n_models"].tolist() == [2], "a rate at which no more was gained does not count"
    other = ModelRef(finished_run(tmp_path, "texts", texts="x"), "")
    with pytest.raises(ComparisonRefusedError, match="other documents"):
        forgetting_at_gain({**ways, "other": [other]})


def test_stages_of_a_run_are_points_too(tmp_path):
    run = finished_run(tmp_path, "run")
    table = forgetting_at_gain({"stages": [ModelRef(run, "G1 expand"), ModelRef(run, "")]})
    assert table["n_models"].tolist() == [2] and "G1 expand" in table["between"][0]
