"""A causal map as HTML: all numbers are in it, what is long is announced, and no text becomes markup."""

import base64
import html
import json
import re

import numpy as np

from helpers.sample_causal import make_causal, make_next
from helpers.words import words
from lpr_lab.measure.causal.causal_map import Cell
from lpr_lab.views.html import causal as view
from lpr_lab.views.html.causal import render_causal, render_next_tokens


def data_of(text: str) -> dict:
    (found,) = re.findall(r'data-map="([^"]*)"', text)
    return json.loads(html.unescape(found))


def test_the_numbers_of_every_expert_are_in_it_by_token_and_layer():
    causal = make_causal()
    data = data_of(render_causal(causal, 1))
    assert (data["layers"], data["tokens"]) == ([0, 3], ["<b>x"] * 3)
    for expert in (0, 1, 2):
        packed = base64.b64decode(data["experts"][str(expert)]["change"])
        numbers = np.frombuffer(packed, "<f4").reshape(3, 2)
        np.testing.assert_allclose(numbers, causal.change[:, expert, 1:].T, rtol=1e-6)


def test_no_text_becomes_markup_and_an_expert_that_is_not_there_gives_way_to_the_first():
    text = render_causal(make_causal(), 7)
    assert "<b>" not in text and 'data-expert="0"' in text
    assert render_causal(make_causal(), 0, Cell(3, 0, 2)).count('data-cell="3.2"') == 1


def test_what_is_too_long_is_said(monkeypatch):
    monkeypatch.setattr(view, "MAX_TOKENS", 5)
    monkeypatch.setattr(view, "MAX_ROWS", 10)
    text = render_causal(make_causal(12))
    assert len(data_of(text)["tokens"]) == 4
    assert "Drawn are the first 4 tokens; 7 more" in words(text) and "to_frame" in text and "Save as CSV" not in text
    monkeypatch.setattr(view, "MAX_ROWS", 1000)
    assert "Save as CSV" in render_causal(make_causal(12))


def test_both_distributions_stand_beside_one_another_and_the_text_s_own_token_is_marked():
    text = words(render_next_tokens(make_causal(), make_next()))
    assert "0.50 bits as it is, 2.00 with expert 1 in layer 3: 1.50 more" in text
    assert "a ← the text 75% 25%" in text and "◆ 10% 50%" in text
    assert "Sent to expert 1 in one layer alone, “<b>x” changes most by layer" in text
