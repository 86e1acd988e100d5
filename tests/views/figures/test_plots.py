"""Figures say what the tables say, in words as well as in marks."""

import json

import pandas as pd
import pytest

from helpers.sample_runs import change_table, load_table
from lpr_lab.errors import UsageError
from lpr_lab.views.figures import plots


@pytest.fixture
def heldout() -> pd.DataFrame:
    return change_table().query("dataset == 'heldout'")


def all_text(figure) -> str:
    return json.dumps(json.loads(figure.to_json()), ensure_ascii=False)


def test_the_title_of_retention_is_its_finding(heldout):
    title = plots.retention(heldout).layout.title.text
    assert title == (
        "Expanded languages need 14.9% fewer bits (−21.8% to −10.2%); "
        "original languages need 0.4% fewer bits (−1.2% to +0.3%)"
    )


def test_retention_draws_original_languages_above_expanded_ones(heldout):
    figure = plots.retention(heldout)
    names = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert list(names.values()) == ["English", "Spanish", "Greek", "Hungarian", "Turkish"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # downwards
    assert list(names) == sorted(names)


def test_retention_tells_base_and_expanded_apart_by_shape(heldout):
    traces = {trace.name: trace for trace in plots.retention(heldout).data if trace.mode == "markers"}
    assert traces["base model"].marker.symbol == "circle"
    after = traces["expanded model on original languages"].marker.symbol
    assert after == ("triangle-right", "triangle-left")


def test_retention_refuses_two_data_sets_on_one_axis():
    with pytest.raises(UsageError, match="one data set at a time"):
        plots.retention(change_table())


def test_the_load_heatmap_has_layer_0_on_top_and_original_languages_first():
    figure = plots.load_heatmap(load_table())
    heat = figure.data[0]
    assert list(heat.x) == ["English", "Spanish", "Greek", "Hungarian", "Turkish"]
    assert heat.y[0] == "0" and figure.layout.yaxis.autorange == "reversed"
    assert heat.zmin == 0 and heat.zmax == 100
    assert "Original languages: 97% on the original expert" in figure.layout.title.text


def test_lines_of_the_layer_profile_differ_in_more_than_colour():
    lines = plots.layer_profile(load_table()).data
    assert len({(line.line.dash, line.marker.symbol) for line in lines}) == len(lines)


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
    points, line, *_ = plots.training_curves(metrics).data
    assert list(points.x) == list(line.x) == [1024, 2048, 4096, 5120]
    assert plots.training_curves(metrics).layout.title.text == "lm_loss: expand 3 → 2.1, review 2.2 → 2"
    with pytest.raises(UsageError, match="there are lm_loss"):
        plots.training_curves(metrics, "accuracy")


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
    figure = plots.plan(planned)
    assert figure.layout.title.text == (
        "Least alike in layer 1 (0.10), which gets 4 new experts; most alike in layer 2 (0.40), which gets 1"
    )
    traces = {trace.name: trace for trace in figure.data}
    bars, curve = traces["new experts"], traces["mean of both: what the rule reads"]
    assert list(bars.y) == [2, 4, 1] and list(curve.y) == [0.2, 0.1, 0.4]
    assert figure.layout[f"yaxis{bars.yaxis[1:]}"].domain[1] < figure.layout.yaxis.domain[0]
    assert list(traces["routing classifier"].x) == [2]
    lines = [trace for trace in figure.data if trace.type == "scatter" and trace.mode == "lines+markers"]
    assert len({(line.line.dash, line.marker.symbol) for line in lines}) == 3


def test_with_one_expanded_language_the_plan_has_no_curve_between_expanded_ones(planned):
    figure = plots.plan(planned.assign(between_expanded=float("nan")))
    assert "between expanded" not in [trace.name for trace in figure.data]


def test_both_templates_are_registered_and_name_no_remote_font(heldout):
    for template in ("lpr", "lpr_dark"):
        text = all_text(plots.retention(heldout, template=template))
        assert "http" not in text and "Noto Sans Bengali" in text


def test_a_page_can_take_the_title_out(heldout):
    figure = plots.retention(heldout)
    assert plots.take_title(figure).startswith("Expanded languages")
    assert figure.layout.title.text is None
