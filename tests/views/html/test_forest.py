"""A forest plot: every number where it belongs on the axis, with its interval, and what is given stays text."""

import re
import xml.etree.ElementTree as ET

import pytest

from lpr_lab.views.html.forest import ForestRow, claims_forest, forest

ROWS = [
    ForestRow(label="a gain", value=-3.0, low=-4.0, high=-2.0, role="expanded"),
    ForestRow(label="<b>no & interval</b>", value=1.0, role="original", sign="✓"),
    ForestRow(label="nothing", value=None),
]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def picture():
    return ET.fromstring(forest("A <title>", ROWS, "points"))


def scale(picture):
    """Return a function from a place on the picture to the number of the axis there, from two ticks."""
    ticks = {
        node.text.replace("−", "-"): float(node.get("x"))
        for node in picture.iter(f"{SVG}text")
        if re.fullmatch(r"[-−+]?\d+", node.text or "")
    }
    (one, at_one), (other, at_other) = list(ticks.items())[:2]
    unit = (at_other - at_one) / (float(other) - float(one))
    return lambda place: float(one) + (place - at_one) / unit


def test_marks_and_ends_stand_at_their_numbers(picture):
    number = scale(picture)
    square = next(node for node in picture.iter(f"{SVG}rect") if node.get("class") == "expanded")
    assert number(float(square.get("x")) + 4) == pytest.approx(-3, abs=0.05)
    bar = next(node for node in picture.iter(f"{SVG}line") if node.get("class") == "expanded")
    assert [number(float(bar.get(end))) for end in ("x1", "x2")] == pytest.approx([-4, -2], abs=0.05)
    circles = list(picture.iter(f"{SVG}circle"))
    assert len(circles) == 1 and number(float(circles[0].get("cx"))) == pytest.approx(1, abs=0.05)
    zero = next(node for node in picture.iter(f"{SVG}line") if node.get("class") == "zero")
    assert number(float(zero.get("x1"))) == pytest.approx(0, abs=0.05)


def test_numbers_stand_beside_and_what_was_given_stays_text(picture):
    texts = [node.text for node in picture.iter(f"{SVG}text")]
    assert "−3.00 (−4.00 to −2.00)" in texts and "+1.00 ✓" in texts and "–" in texts
    assert "<b>no & interval</b>" in texts and picture.get("aria-label") == "A <title>"


def test_a_long_label_has_several_lines_and_no_row_at_all_is_still_a_picture():
    long = ET.fromstring(forest("x", [ForestRow(label="word " * 30, value=0.0)], "points"))
    assert sum("word" in (node.text or "") for node in long.iter(f"{SVG}text")) > 1
    assert ET.fromstring(forest("x", [], "points")).tag == f"{SVG}svg"


def test_parts_of_claims_have_the_sign_of_their_verdict_and_of_one_claim_no_number():
    part = {"text": "It is less.", "value": -1.0, "low": -2.0, "high": -0.5, "verdict": "holds"}
    unknown = {**part, "text": "Nobody ran it.", "value": None, "low": None, "high": None}
    claims = [{"number": 9, "parts": [part]}, {"number": 10, "parts": [{**unknown, "verdict": "not decidable here"}]}]
    texts = [node.text for node in ET.fromstring(claims_forest(claims)).iter(f"{SVG}text")]
    assert "9. It is less." in texts and "−1.00 (−2.00 to −0.50) ✓" in texts and "– ?" in texts
    alone = [node.text for node in ET.fromstring(claims_forest(claims[:1])).iter(f"{SVG}text")]
    assert "It is less." in alone


def test_its_colours_stay_within_it(picture):
    rules = next(node.text for node in picture.iter(f"{SVG}style"))
    selectors = [one.strip() for rule in re.findall(r"([^{}]+)\{[^{}]*\}", rules) for one in rule.split(",")]
    assert selectors and all(one.startswith(".lpr-forest ") for one in selectors)
