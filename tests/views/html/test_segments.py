"""A segment in many languages as HTML: numbers, strips in their own direction, links, and every layer as a table."""

import re

from helpers.sample_segments import make_comparison
from helpers.words import words
from lpr_lab.views.html.segments import render_layers, render_segment

LINKS = {"el": "/routing?text=own-1"}


def test_every_language_has_its_numbers_and_its_strip_the_reference_first():
    found = make_comparison()
    text = render_segment(found, {"en": "original", "el": "expanded"}, LINKS)
    assert re.findall(r'<section class="lpr-segment-text" aria-label="(\w+)"', text) == ["English", "Greek", "Arabic"]
    greek = found.summary("el")
    row = f"Greek {greek.num_tokens} {greek.divergence:.3f} {greek.chance:.3f} {greek.halves:.3f}"
    assert f"{row} {greek.above_chance} of 3 {greek.similarity:.2f} open" in words(text)
    assert re.search(r"English the reference \d+ – – \S+ – ", words(text))
    assert text.count('href="/routing?text=own-1"') == 2


def test_a_text_from_right_to_left_stands_so_and_no_strip_sets_the_address():
    text = render_segment(make_comparison(), {}, {})
    assert re.findall(r'class="lpr-text"[^>]* dir="(\w+)"\s+lang="(\w+)"', text) == [
        ("ltr", "en"),
        ("ltr", "el"),
        ("rtl", "ar"),
    ]
    assert text.count('data-linked="no"') == 3 and "lpr-grid" not in text


def test_the_table_by_layer_says_what_is_drawn_and_where_there_is_no_router():
    found = make_comparison()
    said = words(render_layers(found))
    first = f"0 {found.divergence[1, 0]:.3f} ({found.chance_high[1, 0]:.3f}) {found.similarity[1, 0]:.3f}"
    assert first in said
    assert f"3 – {found.similarity[1, 3]:.3f} –" in said
