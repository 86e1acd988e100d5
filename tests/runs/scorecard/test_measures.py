"""What a scorecard reads of a run beside bits per byte."""

import math

import pandas as pd
import pytest

from helpers.sample_scorecard import MOE, arm_run
from lpr_lab.runs.scorecard.effects import NotMeasuredError, decided_on, sample_of
from lpr_lab.runs.scorecard.parts import Term


@pytest.fixture
def run(tmp_path):
    run = arm_run(tmp_path, 0, MOE)
    rows = [
        [model, language, 0.5 * k, k]
        for k, model in ((4.0, "G1 expand"), (1.0, "G1 review"))
        for language in ("en", "all")
    ]
    columns = ["model", "language", "kl_bits_per_byte", "kl_percent"]
    run.tables.write("self_divergence", pd.DataFrame(rows, columns=columns))
    rows = [
        ["choice", code, stage, change]
        for stage, by in (("G1 expand", 4), ("G1 review", 2))
        for code, change in (("hu", by), ("en", -by), ("es", -3 * by))
    ]
    run.tables.write("task_changes", pd.DataFrame(rows, columns=["task", "language", "stage", "change_points"]))
    return run


def test_the_distance_from_the_base_is_that_of_the_last_stage_over_all_samples(run):
    assert sample_of(Term("", "original", measure="kl"), run).value == 1.0
    assert sample_of(Term("", "original", measure="kl", stage="G1 expand"), run).value == 4.0


def test_right_continuations_are_the_mean_over_a_roles_languages(run):
    assert sample_of(Term("", "expanded", measure="choice"), run).value == 2
    assert sample_of(Term("", "original", measure="choice"), run).value == -4
    assert sample_of(Term("", "original", measure="choice", stage="G1 expand"), run).value == -8


@pytest.mark.parametrize("measure", ["kl", "choice"])
def test_a_run_that_was_not_asked_says_so(measure, tmp_path):
    with pytest.raises(NotMeasuredError, match=r"drew no samples|was asked no"):
        sample_of(Term("", "original", measure=measure), arm_run(tmp_path, 0, MOE))


def test_where_there_is_no_held_out_text_dev_text_is_what_counts(tmp_path):
    run = arm_run(tmp_path, 0, MOE, datasets=("dev",))
    run.tables.write("classifiers", pd.DataFrame([[0, "en", "original", "dev", 0.7, 9]], columns=CLASSIFIERS))
    on_both = arm_run(tmp_path, 0, MOE, datasets=("dev", "heldout"))
    gain = sample_of(Term("", "expanded"), run)
    assert gain.value == pytest.approx(-4.5, abs=1) and gain.documents == 30
    assert sample_of(Term("", "", measure="classifier"), run).value == 0.7
    assert sample_of(Term("", "expanded"), on_both).value != gain.value
    assert (decided_on([run]), decided_on([on_both]), decided_on([])) == ("dev", "heldout", "")


CLASSIFIERS = ["layer", "language", "role", "dataset", "accuracy", "n_tokens"]


def test_routing_classifiers_are_judged_on_the_test_set_of_the_scorecard(run):
    rows = [[0, "en", "original", "dev", 0.1, 9], [0, "en", "original", "heldout", 0.9, 9]]
    run.tables.write(
        "classifiers", pd.DataFrame([*rows, [1, "hu", "expanded", "heldout", 0.7, 9]], columns=CLASSIFIERS)
    )
    assert sample_of(Term("", "", measure="classifier"), run).value == pytest.approx(0.8)


@pytest.mark.parametrize(
    "rows", [[], [[0, "en", "original", "dev", 0.9, 9]], [[0, "en", "original", "heldout", math.nan, 0]]]
)
def test_a_table_without_a_number_for_it_is_no_measurement(run, rows):
    run.tables.write("classifiers", pd.DataFrame(rows, columns=CLASSIFIERS))
    with pytest.raises(NotMeasuredError, match="classifier"):
        sample_of(Term("", "", measure="classifier"), run)
