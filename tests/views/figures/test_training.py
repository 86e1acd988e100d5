"""Curves of training show the points that were recorded, and no others."""

import pandas as pd
import pytest

from lpr_lab.errors import UsageError
from lpr_lab.views.figures.training import range_test_curve, training_curves


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
