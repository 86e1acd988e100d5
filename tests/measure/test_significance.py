"""Who is better is decided in one place, and it is seldom wrong: checked against simulated documents and seeds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.measure import significance as s
from lpr_lab.measure.forgetting import ScoredDocuments, bootstrap_draws, change_rows
from lpr_lab.measure.preference import sign_test
from lpr_lab.runs.formats import json_records
from lpr_lab.views.numbers import interval

finite = st.floats(-1e6, 1e6)


@given(finite, finite)
def test_only_an_interval_that_leaves_zero_out_names_a_winner(one, two):
    low, high = sorted((one, two))
    clear = low > 0 or high < 0
    assert (s.verdict(low, high) == s.UNCLEAR) == (not clear)
    assert s.verdict(low, high) == s.verdict(-high, -low, less_is_better=False)
    if clear:
        assert (s.verdict(low, high) == s.BETTER) == (high < 0)


@pytest.mark.parametrize("low", [None, math.nan, -1.0, 1.0])
@pytest.mark.parametrize("high", [None, math.nan])
def test_without_an_interval_nobody_wins(low, high):
    assert s.verdict(low, high) == s.UNCLEAR and s.direction(high, low) == 0


@pytest.mark.parametrize("key", ["change_percent", "ci_low", "ci_high"])
@pytest.mark.parametrize("value", [None, math.nan, "", "worse", True])
def test_a_row_that_lacks_a_number_gives_no_verdict_unless_only_the_value_is_gone(key, value):
    row = {"change_percent": -2.0, "ci_low": -3.0, "ci_high": -1.0, key: value}
    assert s.change_of(row).verdict() == (s.BETTER if key == "change_percent" else s.UNCLEAR)
    assert s.change_of({}).verdict() == s.UNCLEAR


def documents(rng, count, shift=0.0, heavy=False) -> ScoredDocuments:
    """Score documents of very different length and difficulty; the second model differs by `shift` per document."""
    sizes = rng.integers(40, 1500, count)
    base = rng.normal(2.2, 0.4, count).clip(0.5) * np.log(2) * sizes
    noise = 0.03 * (rng.standard_t(3, count) if heavy else rng.normal(size=count))
    nats = {"base": base, "expanded": base * (1 + shift + noise)}
    return ScoredDocuments("el", "expanded", "heldout", f"{rng.integers(2**32):08x}" * 8, sizes, nats)


def verdicts(rng, count, trials, **how) -> list[str]:
    sets = [documents(rng, count, **how) for _ in range(trials)]
    return list(change_rows(sets, [bootstrap_draws(one, 600) for one in sets])["verdict"])


@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy tails"])
@pytest.mark.parametrize("count", [2, 6, 24, *(pytest.param(count, marks=pytest.mark.slow) for count in (3, 12))])
def test_where_nothing_differs_a_difference_is_claimed_about_once_in_twenty(count, heavy):
    claimed = [word for word in verdicts(np.random.default_rng(count), count, 1000, heavy=heavy) if word != s.UNCLEAR]
    assert len(claimed) <= 80  # plain percentiles claim 145 to 165 of 1000 with six documents, 75 to 85 with 24


def test_a_real_difference_is_found_and_never_with_the_wrong_sign():
    found = verdicts(np.random.default_rng(1), 24, 200, shift=-0.03)
    assert found.count(s.BETTER) >= 180 and s.WORSE not in found


def test_one_document_shows_nothing_however_far_it_moved():
    one = documents(np.random.default_rng(2), 1, shift=-0.5)
    (row,) = json_records(change_rows([one], [bootstrap_draws(one)]))
    assert row["verdict"] == s.UNCLEAR and (row["ci_low"], row["ci_high"]) == (None, None)
    assert interval(-math.inf, math.inf) == "–" and s.change_of(row).verdict() == s.UNCLEAR
    assert not s.mean_change([row]).has_interval


def test_the_mean_over_languages_covers_its_truth():
    rng, hits = np.random.default_rng(3), 0
    for _ in range(300):
        sets = [documents(rng, 24, shift=shift) for shift in (0.0, -0.1, 0.1)]
        truth = 0.0  # of the mean
        rows = change_rows(sets, [bootstrap_draws(one, 300) for one in sets]).to_dict("records")
        mean = s.mean_change(rows)
        hits += mean.low <= 100 * truth <= mean.high
    assert 0.91 <= hits / 300 <= 0.99


def test_a_mean_with_an_unknown_part_is_unknown():
    rows = [{"change_percent": -2.0, "ci_low": -3.0, "ci_high": -1.0}, {"change_percent": -4.0}]
    assert s.mean_change(rows).value == -3.0 and s.mean_change(rows).verdict() == s.UNCLEAR
    assert not s.mean_change([]).has_interval


def test_of_several_only_one_that_is_clearly_better_than_every_other_is_the_best():
    numbers = [3.0, 1.0, 1.1]

    def within(noise):
        return lambda a, b: s.Difference(d := numbers[a] - numbers[b], d - noise, d + noise)

    assert s.clear_best(3, within(0.05)) == 1
    assert s.clear_best(3, within(0.2)) is None  # the second and the third cannot be told apart
    assert s.clear_best(3, within(0.2), less_is_better=False) == 0
    assert s.clear_best(1, within(0.0)) is None and s.clear_best(0, within(0.0)) is None
    assert s.clear_best(3, lambda a, b: s.NOT_PAIRED) is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_of_a_share_and_the_sign_test_say_the_same(wins, losses):
    low, high = s.share_interval(wins, wins + losses)
    assert 0 <= low <= (wins / (wins + losses) if wins + losses else 0.5) <= high <= 1
    assert (low > 0.5 or high < 0.5) == (sign_test(wins, losses) < 0.05)


def test_seeds_that_do_not_differ_are_seldom_said_to():
    rng = np.random.default_rng(4)
    found = [s.direction(*s.student_interval(rng.normal(size=3))[2:]) for _ in range(2000)]
    assert 0.035 <= np.mean(np.abs(found)) <= 0.065


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (1000, 1.9623)]
)
def test_quantiles_of_student_are_those_of_the_printed_tables(freedom, quantile):
    assert s.student_quantile(0.975, freedom) == pytest.approx(quantile, abs=1e-3)
