"""Figures over the layers have layer 0 where it belongs, and tell their lines apart by more than colour."""

import re

import pandas as pd
import pytest

from helpers.sample_runs import load_table
from lpr_lab.views.figures.layers import layer_profile, load_heatmap, planned_experts


def test_the_load_heatmap_has_layer_0_on_top_and_original_languages_first():
    figure = load_heatmap(load_table())
    heat = figure.data[0]
    assert list(heat.x) == ["English", "Spanish", "Greek", "Hungarian", "Turkish"]
    assert heat.y[0] == "0" and figure.layout.yaxis.autorange == "reversed"
    assert heat.zmin == 0 and heat.zmax == 100
    assert "Original languages: 97% on the original expert" in figure.layout.title.text


def test_lines_of_the_layer_profile_differ_in_more_than_colour():
    lines = layer_profile(load_table()).data
    assert len({(line.line.dash, line.marker.symbol) for line in lines}) == len(lines)


@pytest.fixture
def planned() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "layer": [0, 1, 2],
            "similarity": [0.2, 0.1, 0.4],
            "expanded_to_original": [0.1, 0.1, 0.5],
            "between_expanded": [0.3, 0.1, 0.3],
            "new_experts": [2, 4, 1],
            "classifier": [False, False, True],
        }
    )


def test_the_plan_has_experts_beneath_the_curve_they_follow_from(planned):
    figure = planned_experts(planned)
    least, most = figure.layout.title.text.split("; ")
    assert re.search(r"Least .*layer 1 \(0\.10\).* 4 new experts", least)
    assert re.search(r"most .*layer 2 \(0\.40\).* 1$", most)
    traces = {trace.name: trace for trace in figure.data}
    bars, curve = traces["new experts"], traces["mean of both: what the rule reads"]
    assert list(bars.y) == [2, 4, 1] and list(curve.y) == [0.2, 0.1, 0.4]
    assert figure.layout[f"yaxis{bars.yaxis[1:]}"].domain[1] < figure.layout.yaxis.domain[0]
    assert list(traces["routing classifier"].x) == [2]
    lines = [trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines+markers"]
    assert len({(line.line.dash, line.marker.symbol) for line in lines}) == 3


def test_with_one_expanded_language_the_plan_has_no_curve_between_expanded_ones(planned):
    figure = planned_experts(planned.assign(between_expanded=float("nan")))
    assert "between expanded" not in [trace.name for trace in figure.data]
