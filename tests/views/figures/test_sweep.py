import re

import numpy as np
import pandas as pd
import pytest

from lpr_lab.experiments.sweep.tables import differences
from lpr_lab.views.figures.sweep import finding, metrics_by_setting


@pytest.fixture
def summary():
    """Two settings and two seeds; one metric differs clearly, one does not."""
    return pd.DataFrame(
        {
            "recipe": ["a", "a", "b", "b"],
            "seed": [0, 1, 0, 1],
            "run_id": ["1", "2", "3", "4"],
            "run_state": ["finished"] * 4,
            "run_error": [""] * 4,
            "weight": [0.9, 0.91, 0.5, 0.51],
            "gain": [5.0, 7.0, 6.5, 5.5],
        }
    )


def differing(summary):
    return differences(summary, ["recipe", "seed"], ["weight", "gain"])


def test_the_title_says_what_differs_what_does_not_and_from_how_many_seeds(summary):
    said = finding(differing(summary))
    assert re.search(r"recipe moves weight \(over 2 seeds\).* 1 of 2 .*unclear", said)
    assert re.search(r"One seed.* noise", finding(differing(summary[summary["seed"] == 0])))
    assert "One setting only" in finding(differing(summary[summary["recipe"] == "a"]))


def test_every_seed_is_a_point_and_the_mean_stands_beside_them(summary):
    figure = metrics_by_setting(summary, ["weight", "gain"], differing(summary))
    assert figure.layout.title.text == finding(differing(summary))
    points = [trace for trace in figure.data if trace.name == "one seed"]
    means = [trace for trace in figure.data if trace.name == "mean over seeds"]
    assert [list(trace.x) for trace in points] == [summary["weight"].tolist(), summary["gain"].tolist()]
    assert np.allclose(means[0].x, [0.905, 0.505]) and list(means[0].y) == ["a", "b"]
    assert [note.text for note in figure.layout.annotations] == ["weight", "gain, %"]


def test_failed_points_and_missing_numbers_are_left_out(summary):
    summary.loc[3, ["run_state", "weight"]] = ["failed", np.nan]
    figure = metrics_by_setting(summary, ["weight"], differing(summary), template="lpr_dark")
    (points,) = (trace for trace in figure.data if trace.name == "one seed")
    assert list(points.x) == [0.9, 0.91, 0.5]


def test_a_sweep_of_seeds_alone_has_one_row(summary):
    table = summary.drop(columns="recipe")
    figure = metrics_by_setting(table, ["weight"], differences(table, ["seed"], ["weight"]))
    (mean,) = (trace for trace in figure.data if trace.name == "mean over seeds")
    assert list(mean.y) == ["all"]
