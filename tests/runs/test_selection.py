"""Runs are selected and ordered by any setting and number of theirs, in any script."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.errors import UsageError
from lpr_lab.runs.run import Run
from lpr_lab.runs.selection import (
    Condition,
    counts_of,
    names_in,
    order,
    read_conditions,
    select,
    values_of,
    write_conditions,
)

CHANGE = "results.summary.heldout.expanded.mean_change_percent"


def make(root, number, **config) -> Run:
    run = Run.create(root, kind="expansion", slug="x", title=f"Run {number}", config=config)
    results = {"schema_version": 1, "summary": {"heldout": {"expanded": {"mean_change_percent": -float(number)}}}}
    run.finish(results if number else {})
    return run


@pytest.fixture
def runs(tmp_path):
    return [
        make(tmp_path, 3, seed=1, learning_rate=1e-3, stage1={"tokens": 10}, note="α;β=1%"),
        make(tmp_path, 20, seed=2, learning_rate=3e-4, stage1={"tokens": 9}, note=None),
        make(tmp_path, 0, seed=10, learning_rate=3e-4, languages=["el", "tr"]),
    ]


def titles(runs):
    return [run.title for run in runs]


def chosen(runs, where):
    return titles(select(runs, read_conditions(where)))


def test_two_values_of_a_setting_are_either_or_and_settings_and_bounds_combine(runs):
    assert chosen(runs, "seed=1;seed=10") == ["Run 3", "Run 0"]
    assert chosen(runs, "seed=1;seed=10;learning_rate=0.0003") == ["Run 0"]
    assert chosen(runs, "seed>=2;seed<=9") == ["Run 20"]
    assert chosen(runs, f"{CHANGE}<=-4") == ["Run 20"]
    assert chosen(runs, "languages=el, tr") == ["Run 0"] and chosen(runs, "note=none") == ["Run 20"]
    assert chosen(runs, "stage1.tokens>=0") == ["Run 3", "Run 20"], "what was not recorded meets no condition"
    assert chosen(runs, "gone=1") == [] and chosen(runs, "") == titles(runs)


def test_numbers_are_ordered_as_numbers_both_ways_and_what_is_missing_comes_last(runs):
    assert titles(order(runs, "seed")) == ["Run 3", "Run 20", "Run 0"]
    assert titles(order(runs, "-seed")) == ["Run 0", "Run 20", "Run 3"]
    assert titles(order(runs, "stage1.tokens")) == ["Run 20", "Run 3", "Run 0"]
    assert titles(order(runs, "-stage1.tokens")) == ["Run 3", "Run 20", "Run 0"]
    assert titles(order(runs, CHANGE)) == ["Run 20", "Run 3", "Run 0"]
    assert titles(order(runs, "gone")) == titles(order(runs, "")) == titles(runs)


def test_a_value_that_holds_the_signs_of_the_language_is_written_and_read_back(runs):
    one = Condition("note", "=", "α;β=1%")
    assert str(one) == "note=α%3Bβ%3D1%25" and chosen(runs, str(one)) == ["Run 3"]


@given(st.lists(st.tuples(st.text(min_size=1), st.text())))
def test_any_names_and_values_read_back(pairs):
    given = [Condition(name.strip(), "=", text.strip()) for name, text in pairs if name.strip()]
    assert read_conditions(write_conditions(given)) == given


@pytest.mark.parametrize("text", ["seed", "=1", "seed>=x", "seed<=nan", "seed>=inf", "seed<1"])
def test_what_is_no_condition_is_refused_in_words(text):
    with pytest.raises(UsageError, match="expected"):
        read_conditions(text)


def test_it_is_known_which_settings_differ_and_how_many_runs_have_each_value(runs):
    names = names_in(runs)
    assert names["seed"] and names["stage1.tokens"], "what only some recorded differs too"
    assert not names_in(runs[1:])["learning_rate"]
    assert [(value.text, number) for value, number in counts_of(runs, "learning_rate")] == [("0.0003", 2), ("0.001", 1)]


def test_a_damaged_run_has_no_values_and_a_changed_file_is_read_again(tmp_path):
    run = make(tmp_path, 1, seed=1)
    assert values_of(run)["seed"].text == "1"
    (run.path / "config.yaml").write_text("seed: 22\n", encoding="utf-8")
    assert values_of(Run(run.path))["seed"].number == 22
    (run.path / "config.yaml").write_text("seed: [", encoding="utf-8")
    assert "seed" not in values_of(Run(run.path))
