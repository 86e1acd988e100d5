"""Sittings of blind judgements: drawn from a recorded seed, counted exactly, told at the end, kept when asked."""

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.errors import DamagedError, MissingError, UsageError
from lpr_lab.measure.significance import share_interval
from lpr_lab.runs.people.sittings import (
    MAX_PROMPTS,
    Sitting,
    begin,
    delete_sitting,
    drawn,
    keep_sitting,
    kept_sitting,
    kept_sittings,
)
from lpr_lab.runs.run import Run

PROMPTS = [(f"Prompt {number}: ελληνικά", "el") for number in range(12)]


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path, kind="expansion", slug="x", title="x", config={})


def new(number=12) -> Sitting:
    return begin(("base", "expanded"), PROMPTS[:number], {"left": "base", "tokens": 8})


def judged(sitting: Sitting, wins: int) -> Sitting:
    """Let the second model win so many prompts, and the first all others."""
    while (place := sitting.current) is not None:
        sitting = sitting.with_written(place, "first", "second")
        wanted = place < wins
        choice = "right" if wanted != sitting.prompts[place].swapped else "left"
        sitting = sitting.with_choice(place, choice)
    return sitting


@given(st.integers(0, 2**32 - 1), st.integers(1, 100))
def test_order_and_sides_follow_from_the_seed_and_each_model_stands_left_half_the_time(seed, number):
    ordered, swaps = drawn(seed, number)
    assert (ordered, swaps) == drawn(seed, number)
    assert sorted(ordered) == list(range(number)) and abs(2 * sum(swaps) - number) <= 1


def test_a_sitting_can_be_drawn_again_from_what_it_records():
    sitting = new()
    ordered, swaps = drawn(sitting.seed, 12)
    assert [one.text for one in sitting.prompts] == [PROMPTS[place][0] for place in ordered]
    assert [one.swapped for one in sitting.prompts] == swaps
    assert len({tuple(one.text for one in new().prompts) for _ in range(5)}) > 1


def test_who_wins_is_counted_whichever_side_it_stood_on_with_the_exact_test_and_interval():
    sitting = judged(new(), wins=10)
    count = sitting.tally
    assert sitting.is_over and count.wins == (2, 10) and count.ties == 0 and count.blind == 12
    assert count.p == pytest.approx(2 * sum((1, 12, 66)) / 2**12)
    assert count.win_share(1) == share_interval(10, 12) and count.preferred == "expanded"
    assert judged(new(), wins=7).tally.preferred is None


def test_nothing_tells_who_is_who_before_the_end():
    sitting = new(3).with_written(0, "one", "two")
    assert sitting.pair(0).hidden and not judged(sitting, 1).pair(0).hidden
    with pytest.raises(UsageError, match="goes on"):
        sitting.to_frame()
    table = judged(sitting, wins=3).to_frame()
    assert table["preferred"].tolist() == ["expanded"] * 3
    assert (table["left"] == table["right"].map({"base": "expanded", "expanded": "base"})).all()
    for row in table.to_dict("records"):
        assert row[row["choice"]] == "expanded" and row["written by expanded"] in ("two", "second")


def test_only_the_prompt_that_is_shown_can_be_judged_and_once():
    sitting = new(3)
    with pytest.raises(UsageError, match="not written yet"):
        sitting.with_choice(0, "left")
    sitting = sitting.with_written(0, "a", "b").with_written(0, "c", "d")
    assert sitting.prompts[0].first == "a", "what was read does not change"
    with pytest.raises(UsageError, match="expected one of"):
        sitting.with_choice(0, "both bad")
    sitting = sitting.with_choice(0, "same")
    for place in (0, 2):
        with pytest.raises(UsageError, match="judged already"):
            sitting.with_choice(place, "left")
    assert sitting.current == 1 and sitting.tally.ties == 1


def test_where_both_wrote_the_same_nobody_is_asked():
    sitting = new(2).with_written(0, "same", "same")
    assert sitting.current == 1 and sitting.prompts[0].choice == "same" and sitting.tally.decided == 0


@pytest.mark.parametrize("number", [0, MAX_PROMPTS + 1])
def test_too_few_and_too_many_prompts_are_refused(number):
    with pytest.raises(UsageError, match=f"{number} prompts"):
        begin(("base", "expanded"), [(f"{place}", "") for place in range(number)], {})
    with pytest.raises(UsageError, match="two that differ"):
        begin(("base", "base"), PROMPTS, {})


def test_it_is_kept_only_when_asked_taken_up_from_the_file_and_deleted(run):
    sitting = new(2).with_written(0, "a", "ב").with_choice(0, "left")
    before = sorted(path.name for path in run.path.iterdir())
    assert kept_sitting(run, sitting.id) is None and before == sorted(path.name for path in run.path.iterdir())
    keep_sitting(run, sitting)
    again = kept_sitting(Run.open(run.path.parent, run.id), sitting.id)
    assert again == sitting and again.current == 1 and kept_sittings(run) == [sitting]
    assert json.loads((run.path / "sittings" / f"{sitting.id}.json").read_text())["seed"] == sitting.seed
    delete_sitting(run, sitting.id)
    assert kept_sittings(run) == []
    with pytest.raises(MissingError):
        delete_sitting(run, sitting.id)
    with pytest.raises(MissingError):
        delete_sitting(run, "../run")


def test_a_damaged_file_is_left_out_of_the_list_and_said_when_it_is_asked_for(run):
    keep_sitting(run, sitting := new())
    (run.path / "sittings" / f"{sitting.id}.json").write_text('{"prompts": 3}', encoding="utf-8")
    assert kept_sittings(run) == []
    with pytest.raises(DamagedError, match="no sitting"):
        kept_sitting(run, sitting.id)


def test_a_run_that_is_read_only_keeps_nothing(run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="read only"):
        keep_sitting(run, new())
    assert not (run.path / "sittings").exists() and re.fullmatch("[0-9a-f]{32}", new().id)
