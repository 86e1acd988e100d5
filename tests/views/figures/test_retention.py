"""Figures of retention say what the tables say, in words as well as in marks."""

import json
import re

import pandas as pd
import pytest

from helpers.sample_runs import change_table
from lpr_lab.errors import UsageError
from lpr_lab.measure.significance import UNCLEAR
from lpr_lab.views.figures.retention import before_and_after, gain_against_forgetting
from lpr_lab.views.figures.titles import take_title


@pytest.fixture
def heldout() -> pd.DataFrame:
    return change_table().query("dataset == 'heldout'")


def all_text(figure) -> str:
    return json.dumps(json.loads(figure.to_json()), ensure_ascii=False)


def test_the_title_of_retention_is_its_finding(heldout):
    title = before_and_after(heldout).layout.title.text
    expanded, original = title.split("; ")
    assert re.search(r"Expanded .*14\.9% fewer .*\(−21\.8% to −10\.2%\)", expanded)
    assert re.search(r"original .*0\.4% fewer .*\(−1\.2% to \+0\.3%\)", original)


def test_retention_draws_original_languages_above_expanded_ones(heldout):
    figure = before_and_after(heldout)
    names = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert list(names.values()) == ["English", "Spanish", "Greek", "Hungarian", "Turkish"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # downwards
    assert list(names) == sorted(names)


def test_retention_tells_base_and_expanded_apart_by_shape(heldout):
    traces = {trace.name: trace for trace in before_and_after(heldout).data if trace.mode == "markers"}
    assert traces["base model"].marker.symbol == "circle"
    after = traces["expanded model on original languages"].marker.symbol
    assert after == ("triangle-right", "triangle-left")


def test_retention_refuses_two_data_sets_on_one_axis():
    with pytest.raises(UsageError, match="one data set"):
        before_and_after(change_table())


def test_both_templates_are_registered_and_name_no_remote_font(heldout):
    for template in ("lpr", "lpr_dark"):
        text = all_text(before_and_after(heldout, template=template))
        assert "http" not in text and "Noto Sans Bengali" in text


def test_a_page_can_take_the_title_out(heldout):
    figure = before_and_after(heldout)
    assert take_title(figure).startswith("Expanded languages")
    assert figure.layout.title.text is None


@pytest.mark.parametrize("gains", [(11.84, 11.93), (8.0, 15.0), (11.9,)])
def test_gain_against_forgetting_shows_every_run_and_no_tenth_of_a_point_as_a_distance(gains):
    rows = [
        {"number": n, "title": f"run {n}", "gain": gain, "forgetting": -0.8 - n / 100, "worst": 0.1, "chosen": not n}
        | {"gain_verdict": UNCLEAR, "forgetting_verdict": UNCLEAR}
        for n, gain in enumerate(gains)
    ]
    layout = gain_against_forgetting(pd.DataFrame(rows)).layout
    for axis, values in ((layout.xaxis, gains), (layout.yaxis, [0, *(row["forgetting"] for row in rows)])):
        low, high = axis.range
        assert low < min(values) <= max(values) < high and high - low >= 2
