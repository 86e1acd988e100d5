"""Exact intervals of shares, and differences paired over items: A against A covers zero, a planted loss is found."""

import numpy as np
import pandas as pd
import pytest

from lpr_lab.measure.significance import BETTER, NOT_WORSE, UNCLEAR, WORSE
from lpr_lab.measure.tasks.scores import (
    CHANGE_COLUMNS,
    COLUMNS,
    ITEM_COLUMNS,
    ScoredItems,
    TaskReport,
    change_rows,
    scored_items,
    share_difference,
)


def answered(share, number=200, seed=0):
    return np.random.default_rng(seed).random(number) < share


def scored(before, after, *, task="choice", role="expanded"):
    right = {"base": before, "expanded": after}
    margins = {name: np.where(answers, 0.5, -0.5) for name, answers in right.items()}
    names = tuple(f"item {number}" for number in range(len(before)))
    return ScoredItems(task, "el", role, "heldout", "0123456789abcdef" * 4, names, right, margins)


def test_two_models_that_are_equally_good_differ_unclearly_in_nearly_all_draws():
    covered = 0
    for seed in range(100):
        difference = share_difference(answered(0.6, seed=2 * seed), answered(0.6, seed=2 * seed + 1))
        covered += difference.low <= 0 <= difference.high
    assert covered >= 90


def test_the_interval_covers_a_difference_that_there_is_in_nearly_all_draws():
    covered = 0
    for seed in range(100):
        before = answered(0.5, 100, seed=seed)
        after = np.where(answered(0.3, 100, seed=1000 + seed), answered(0.8, 100, seed=2000 + seed), before)
        difference = share_difference(before, after.astype(bool))
        covered += difference.low <= 0.3 * (0.8 - 0.5) <= difference.high
    assert covered >= 92


def test_the_same_answers_differ_by_nothing_within_an_interval_that_shrinks_with_more_items():
    few, many = (share_difference(answers, answers) for answers in (answered(0.5, 20), answered(0.5, 2000)))
    assert few.value == many.value == 0
    assert few.low < many.low < 0 < many.high < few.high


def test_the_interval_excludes_zero_where_the_exact_sign_test_does():
    nothing = np.zeros(100, dtype=bool)
    for gained, is_clear in ((5, False), (6, True)):  # p is 0.0625 and 0.03125
        after = nothing.copy()
        after[:gained] = True
        difference = share_difference(nothing, after)
        assert difference.value == pytest.approx(gained / 100)
        assert (difference.direction > 0) == is_clear


def test_a_planted_loss_is_found_and_called_worse():
    before = answered(0.8)
    after = before & answered(0.85, seed=1)
    (row,) = change_rows([scored(before, after)], "base", "expanded").to_dict("records")
    assert row["change_points"] == pytest.approx(100 * (after.mean() - before.mean()))
    assert row["ci_low"] < row["change_points"] < row["ci_high"] < 0
    assert row["margin_ci_low"] < row["margin_change"] < row["margin_ci_high"] < 0
    assert row["verdict"] == WORSE


@pytest.mark.parametrize(("role", "verdict"), [("expanded", BETTER), ("original", NOT_WORSE)])
def test_a_rise_from_the_base_on_an_original_language_is_not_a_gain(role, verdict):
    before = answered(0.3)
    (row,) = change_rows([scored(before, before | answered(0.5, seed=1), role=role)], "base", "expanded").to_dict(
        "records"
    )
    assert row["verdict"] == verdict


def test_a_report_says_chance_beside_every_share_that_has_one():
    report = TaskReport([scored(answered(0.25), answered(0.5)), scored(answered(0.9), answered(0.9), task="script")])
    frame = report.to_frame()
    assert list(frame.columns) == COLUMNS
    assert set(frame[frame["task"] == "choice"]["chance"]) == {0.25}
    assert frame[frame["task"] == "script"]["chance"].isna().all()
    assert ((frame["ci_low"] <= frame["accuracy"]) & (frame["accuracy"] <= frame["ci_high"])).all()


def test_items_hold_enough_to_compare_any_two_models_again():
    report = TaskReport([scored(answered(0.4), answered(0.6, seed=3))])
    rows = report.items()
    assert list(rows.columns) == ITEM_COLUMNS
    again = change_rows(scored_items(rows), "base", "expanded", 1000, 0)
    assert list(again.columns) == CHANGE_COLUMNS
    pd.testing.assert_frame_equal(again, report.changes(), check_exact=False)


def test_models_that_did_not_both_answer_are_not_compared():
    report = TaskReport([scored(answered(0.4), answered(0.6))])
    assert report.changes("base", "G1 expand").empty
    assert report.changes("base", "base")["verdict"].tolist() == [UNCLEAR]
