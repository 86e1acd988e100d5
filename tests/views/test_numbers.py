"""Numbers on pages: exact enough to trust, short enough to read."""

import pytest

from lpr_lab.views.numbers import change, count, duration, percent


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1, "100%"), (0.5, "50%"), (0.9996, ">99.9%"), (0.997, "99.7%"), (0.0003, "<0.1%"), (0.004, "0.4%")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(-21.84, "−21.8%"), (0.33, "+0.3%"), (-0.01, "0.0%"), (None, "–"), (float("nan"), "–")]
)
def test_a_change_carries_its_sign_and_an_unknown_one_is_a_dash(value, text):
    assert change(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.9, "59 s"), (552, "9 min 12 s"), (11100, "3 h 5 min"), (200000, "2 days")]
)
def test_durations_use_their_largest_units(seconds, text):
    assert duration(seconds) == text


def test_counts_group_thousands():
    assert count(61440) == "61\u202f440"
