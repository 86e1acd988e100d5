"""The picture of what was kept, stage by stage."""

import pandas as pd
import pytest

from lpr_lab.errors import UsageError
from lpr_lab.views.figures import stages


def table(after_second=2.8):
    bits = {
        ("en", "G0"): (1.0, 1.0, 1.01),
        ("hu", "G1"): (4.0, 3.0, after_second),
        ("el", "G2"): (2.0, 2.0, 1.5),
    }
    rows = [
        {
            "language": code, "group": group, "dataset": "heldout", "stage": stage, "bits_per_byte": value,
            "change_percent": 100 * (value / values[0] - 1), "change_low": 100 * (value / values[0] - 1) - 1,
            "change_high": 100 * (value / values[0] - 1) + 2,
        }
        for (code, group), values in bits.items()
        for stage, value in zip(("base", "G1 expand", "G2 expand"), values, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_every_language_is_a_line_over_the_stages_in_order():
    figure = stages.retention_by_stage(table())
    assert [trace.name for trace in figure.data] == ["English (G0)", "Hungarian (G1)", "Greek (G2)"]
    assert list(figure.data[1].x) == ["base", "G1 expand", "G2 expand"]
    assert list(figure.data[1].y) == pytest.approx([0, -25, -30])
    assert figure.data[1].error_y.array[1] == pytest.approx(2)
    assert len({trace.line.color for trace in figure.data}) == 3


def test_the_title_names_the_language_that_lost_most_since_its_own_stage():
    assert "1.0%" in stages.retention_finding(table()) and "English" in stages.retention_finding(table())
    assert "20.0%" in stages.retention_finding(table(3.6)) and "Hungarian" in stages.retention_finding(table(3.6))


def test_one_group_alone_has_nothing_to_lose():
    rows = table()
    assert "nothing could be lost" in stages.retention_finding(rows[rows["group"] == "G2"])


def test_two_data_sets_do_not_share_an_axis():
    both = pd.concat([table(), table().assign(dataset="dev")])
    with pytest.raises(UsageError, match="one data set"):
        stages.retention_by_stage(both)
