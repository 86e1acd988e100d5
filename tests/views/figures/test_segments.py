"""The figures of a segment in many languages: every number of the table, and what may be chance looks otherwise."""

import numpy as np

from helpers.sample_segments import make_comparison
from lpr_lab.views import theme
from lpr_lab.views.figures.segments import divergence_by_layer, divergence_finding, similarity_by_layer

ROLES = {"en": "original", "el": "expanded"}


def test_a_line_per_language_beside_what_chance_gives_and_open_marks_where_it_is_not_exceeded():
    found = make_comparison()
    found.divergence[2, 1] = found.chance_high[2, 1] / 2
    greek, arabic, *chance = divergence_by_layer(found.to_frame(), ROLES).data
    np.testing.assert_allclose(greek.y, found.divergence[1])
    assert (greek.name, greek.line.dash, greek.line.color) == ("Greek", "dash", theme.NEW)
    assert (arabic.name, arabic.line.color) == ("Arabic", theme.GREY)
    assert list(arabic.marker.symbol) == ["square", "square-open", "square"]
    assert [line.showlegend for line in chance] == [True, False]
    np.testing.assert_allclose(chance[1].y, found.chance_high[2])


def test_similarity_is_drawn_over_all_layers_beside_that_within_the_reference():
    found = make_comparison()
    figure = similarity_by_layer(found.to_frame(), ROLES)
    greek, _, within = figure.data
    assert list(greek.x) == [0, 1, 2, 3] and within.name == "within English"
    np.testing.assert_allclose(within.y, found.similarity[0])
    assert "Most like English: Greek" in figure.layout.title.text and "least: Arabic" in figure.layout.title.text


def test_the_finding_names_language_layer_and_bits_and_says_what_may_be_chance():
    found = make_comparison()
    found.divergence[1:] = 0.001
    found.divergence[2, 1] = 0.9
    assert divergence_finding(found.to_frame()) == "Routed least like English: Arabic in layer 1, 0.90 bits"
    found.chance_high[2, 1] = 0.95
    assert "may be chance" in divergence_finding(found.to_frame())


def test_a_model_without_routers_is_drawn_without_lines_of_divergence():
    table = make_comparison().to_frame().assign(divergence_bits=np.nan, chance_high_bits=np.nan)
    assert divergence_by_layer(table, ROLES).layout.title.text == "No layer has a router"
