import math

import numpy as np
import pandas as pd
import pytest

from lpr_lab.experiments.sweep.tables import by_setting, differences, known_metrics, usual_metrics, value_of

EXPANSION = {
    "schema_version": 1,
    "summary": {
        dataset: {
            "original": {"mean_change_percent": 1.0, "worst_change_percent": worst, "original_weight": 0.9},
            "expanded": {"mean_change_percent": -12.0, "worst_change_percent": -8.0, "original_weight": 0.1},
        }
        for dataset, worst in (("dev", 1.5), ("heldout", 2.0))
    },
    "change": [{"after": 1.25}],
}


def test_simple_names_mean_what_the_summary_of_an_expansion_says_of_held_out_text():
    names = ("gain", "forgetting", "worst_forgetting", "weight_on_original", "weight_on_expanded")
    assert [value_of(EXPANSION, name) for name in names] == [12.0, 1.0, 2.0, 0.9, 0.1]
    assert usual_metrics([{}, EXPANSION]) == ("gain", "forgetting", "weight_on_original", "weight_on_expanded")


def test_any_number_of_any_results_has_a_dotted_name():
    assert value_of(EXPANSION, "change.0.after") == 1.25
    assert known_metrics({"a": {"b": [1, {"c": 2}], "d": True}}) == ["a.b.0", "a.b.1.c"]
    assert all(not math.isnan(value_of(EXPANSION, name)) for name in known_metrics(EXPANSION))
    assert usual_metrics([{"schema_version": 1, "loss": 0.5, "n": 3, "name": "x"}]) == ("loss", "n")


@pytest.mark.parametrize("name", ["gain", "a.b", "change.7.after", "change.x", "summary"])
def test_a_number_that_is_not_there_is_missing_not_zero(name):
    assert math.isnan(value_of({"change": [{"after": 1}], "summary": {}}, name))
    assert math.isnan(value_of(None, name))


def summary(**columns) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_mean_and_spread_are_over_seeds():
    table = summary(rate=[1.0, 1.0, 2.0, 2.0], seed=[0, 1, 0, 1], loss=[1.0, 3.0, 5.0, np.nan])
    one, two = by_setting(table, ["rate", "seed"], ["loss"]).to_dict("records")
    assert (one["rate"], one["n"], one["mean"], one["min"], one["max"]) == (1.0, 2, 2.0, 1.0, 3.0)
    assert one["sd"] == pytest.approx(math.sqrt(2))
    assert one["ci_high"] - one["mean"] == pytest.approx(12.7062, abs=1e-3)  # sd / sqrt(2) is 1
    assert (two["n"], two["mean"]) == (1, 5.0) and math.isnan(two["sd"]) and math.isnan(two["ci_low"])


def test_seeds_alone_are_one_setting():
    (row,) = by_setting(summary(seed=[0, 1, 2], loss=[1.0, 2.0, 3.0]), ["seed"], ["loss"]).to_dict("records")
    assert (row["n"], row["mean"], row["sd"]) == (3, 2.0, 1.0)
    assert differences(summary(seed=[0, 1], loss=[1.0, 2.0]), ["seed"], ["loss"]).empty


def test_a_difference_is_paired_by_seed_so_what_seeds_share_is_no_noise():
    table = summary(mode=["a"] * 3 + ["b"] * 3, seed=[0, 1, 2] * 2, loss=[1.0, 50.0, -9.0, 1.5, 50.4, -8.4])
    (row,) = differences(table, ["mode", "seed"], ["loss"]).to_dict("records")
    assert (row["value"], row["against"], row["seeds"], row["verdict"]) == ("b", "a", 3, "more")
    assert row["difference"] == pytest.approx(0.5)
    assert row["ci_low"] == pytest.approx(0.5 - 4.3027 * 0.1 / math.sqrt(3), abs=1e-3)


def test_other_parameters_are_averaged_over_and_unmatched_points_left_out():
    table = summary(
        mode=["a", "a", "b", "b"] * 2,
        rate=[1.0, 2.0] * 4,
        seed=[0] * 4 + [1] * 4,
        loss=[1.0, 2.0, 2.0, 4.0, 1.0, 2.0, np.nan, 1.0],
    )
    rows = differences(table, ["mode", "rate", "seed"], ["loss"]).set_index("parameter")
    assert rows.loc["mode", "difference"] == pytest.approx((1.5 + -1.0) / 2)
    assert rows.loc["mode", "verdict"] == "no clear difference"
    assert rows.loc["rate", "difference"] == pytest.approx((1.5 + 1.0) / 2)


def test_one_seed_tells_nothing():
    (row,) = differences(summary(mode=["a", "b"], loss=[1.0, 2.0]), ["mode"], ["loss"]).to_dict("records")
    assert (row["difference"], row["seeds"], row["verdict"]) == (1.0, 1, "no clear difference")
    assert math.isnan(row["ci_low"])
