"""Guesses as HTML: all numbers of both models are in it, what is long is announced, and no text becomes markup."""

import base64
import html
import json
import re

import numpy as np
import pytest

from helpers.sample_lens import make_lens
from helpers.words import words
from lpr_lab.views.html import guesses as view
from lpr_lab.views.html.guesses import GuessChoice, render_guesses

ROLES = {"en": "original", "el": "expanded"}


def data_of(text: str) -> dict:
    (found,) = re.findall(r'data-guesses="([^"]*)"', text)
    return json.loads(html.unescape(found))


def unpacked(text: str, kind: str, *shape: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind).reshape(shape)


@pytest.mark.parametrize("name", ["base", "expanded"])
def test_the_numbers_of_both_models_are_in_it_by_token_and_layer(name):
    lens = make_lens()
    data, found = data_of(render_guesses(lens, ROLES)), lens.guesses[name]
    packed = data["models"][name]
    np.testing.assert_allclose(unpacked(packed["probs"], "<f4", 4, 3, 2), found.probs.transpose(1, 0, 2), rtol=1e-6)
    places = unpacked(packed["words"], "<i4", 4, 3, 2)
    np.testing.assert_array_equal(np.array(data["ids"])[places], found.token_ids.transpose(1, 0, 2))
    for key, kind in (("next_prob", "<f4"), ("next_rank", "<i4"), ("final_prob", "<f4"), ("final_rank", "<i4")):
        np.testing.assert_allclose(unpacked(packed[key], kind, 4, 3), getattr(found, key).T, rtol=1e-6)
    np.testing.assert_allclose(unpacked(data["new"], "<f4", 4, 3), lens.new_weight.T, rtol=1e-6)
    assert data["follows"] == [4, 4, 4] and data["layers"] == [0, 1, 2]


def test_a_guess_is_marked_by_its_language_where_that_is_known_and_else_by_its_script():
    said = data_of(render_guesses(make_lens(), ROLES))["words"]
    assert said[1] == ["·the", "en", "English", "original"] and said[2] == ["και", "el", "Greek", "expanded"]
    assert said[3][1:] == ["", "part of a character", ""] and said[4][1:] == ["Latn", "Latin script", ""]
    assert said[5][1:] == ["Hani", "Han script", ""]


def test_no_text_becomes_markup_and_what_is_chosen_stands_in_it():
    text = render_guesses(make_lens(), ROLES, GuessChoice("base", 2, 1), note="<i>said</i>")
    assert "<b>x" not in text and "<i>said" not in text
    assert 'data-model="base" data-cell="2.1"' in text and "The base model settles" in words(text)


def test_what_is_too_long_is_said(monkeypatch):
    monkeypatch.setattr(view, "MAX_TOKENS", 5)
    text = render_guesses(make_lens(12), {})
    data = data_of(text)
    assert data["shown"] == 5 and len(data["tokens"]) == 6 and len(data["follows"]) == 5
    assert "Drawn are the first 5 tokens; 7 more" in words(text) and "an expanded language" not in words(text)
    assert "en an original language el an expanded language" in words(render_guesses(make_lens(), ROLES))
