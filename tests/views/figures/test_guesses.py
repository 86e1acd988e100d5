"""The figure of guesses by layer: every share of the table, both models, few enough kinds to be told apart."""

import pandas as pd
import pytest

from helpers.sample_lens import make_lens
from lpr_lab.views.figures.guesses import guesses_by_layer, guesses_finding

ROLES = {"en": "original", "el": "expanded"}


def test_the_shares_of_every_layer_and_model_are_drawn_and_add_up():
    table = make_lens(tokens=12).languages_by_layer()
    figure = guesses_by_layer(table, ROLES)
    for axis, model in (("y", "base"), ("y2", "expanded")):
        sums: dict[str, float] = {}
        for bar in (bar for bar in figure.data if (bar.yaxis or "y") == axis):
            for layer, share in zip(bar.y, bar.x, strict=True):
                sums[layer] = sums.get(layer, 0) + share
        assert sums == {layer: pytest.approx(100) for layer in "012"}, model
    colours = {bar.name: bar.marker.color for bar in figure.data}
    assert colours["English"] != colours["Greek"] != colours["no whole letter"]


def test_rare_kinds_are_put_together():
    rows = [("base", 0, code, "", 0.1) for code in "en es el hu tr zh ar hi bn ru".split()]
    rows += [("expanded", 0, "en", "", 1.0)]
    table = pd.DataFrame(rows, columns=["model", "layer", "language", "script", "share"])
    bars = guesses_by_layer(table, ROLES).data
    assert len({bar.legendgroup for bar in bars}) == 9 and len({bar.name for bar in bars}) == 18
    assert [bar.name for bar in bars if bar.showlegend] == [bar.legendgroup for bar in bars if bar.showlegend]
    assert guesses_finding(table) == "Best guesses halfway, in layer 0: base 10% English, expanded 100% English"
