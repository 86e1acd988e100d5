"""Curves of training show the points that were recorded, and no others."""

import pandas as pd
import pytest

from lpr_lab.errors import UsageError
from lpr_lab.views.figures.training import compared_curves, range_test_curve, training_curves


def test_smoothing_adds_no_point():
    metrics = pd.DataFrame(
        {
            "step": range(1, 9),
            "tokens": [1024 * n for n in range(1, 9)],
            "stage": ["expand"] * 5 + ["review"] * 3,
            "name": "lm_loss",
            "value": [3.0, 2.5, None, 2.2, 2.1, 2.2, 2.1, 2.0],
        }
    )
    points, line, *_ = training_curves(metrics).data
    assert list(points.x) == list(line.x) == [1024, 2048, 4096, 5120]
    assert training_curves(metrics).layout.title.text == "lm_loss: expand 3 → 2.1, review 2.2 → 2"
    with pytest.raises(UsageError, match="there are lm_loss"):
        training_curves(metrics, "accuracy")


def test_a_range_test_shows_the_rate_that_is_taken_and_marks_what_diverged():
    rows = [(1e-4, 2.0, -5.0, False, True), (1e-3, 1.9, -5.2, False, False), (1e-2, 9.0, 350.0, True, False)]
    columns = ["learning_rate", "dev_bits_per_byte", "change_percent", "diverged", "chosen"]
    figure = range_test_curve(pd.DataFrame(rows, columns=columns))
    by_name = {trace.name: list(trace.x) for trace in figure.data}
    assert by_name == {"trained": [1e-4, 1e-3], "diverged": [1e-2], "taken": [1e-4]}
    assert "0.0001" in figure.layout.title.text


def test_runs_of_different_lengths_and_stages_stand_in_the_panel_of_their_stage_at_their_tokens():
    rows = [("a", "expand", n, 1000 * n, 3.0 / n) for n in range(1, 5)]
    rows += [("b", "expand", n, 2000 * n, 4.0 / n) for n in range(1, 3)] + [("b", "review", 1, 500, 1.5)]
    metrics = pd.DataFrame(rows, columns=["run", "stage", "step", "tokens", "value"]).assign(name="lm_loss")
    figure = compared_curves(metrics)
    drawn = {(trace.name, trace.xaxis): (list(trace.x), list(trace.y), trace.showlegend) for trace in figure.data}
    assert drawn == {
        ("a", "x"): ([1000, 2000, 3000, 4000], [3.0, 1.5, 1.0, 0.75], True),
        ("b", "x"): ([2000, 4000], [4.0, 2.0], True),
        ("b", "x2"): ([500], [1.5], False),
    }
    looks = {trace.name: (trace.line.color, trace.line.dash) for trace in figure.data}
    assert len({colour for colour, _ in looks.values()}) == len({dash for _, dash in looks.values()}) == 2
    with pytest.raises(UsageError, match="there are lm_loss"):
        compared_curves(metrics, "accuracy")
