"""Take a view along, in a browser: its cell, its tables, its figures."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from helpers.cells import last_value

pytestmark = pytest.mark.e2e


def taken(page: Page) -> str:
    """Open the part by keyboard; returns its cell."""
    page.get_by_text("Take this view with you").focus()
    page.keyboard.press("Enter")
    code = page.locator(".lpr-take code")
    expect(code).to_contain_text("import")
    return code.inner_text()


def first_table(page: Page) -> pd.DataFrame:
    link = page.locator(".lpr-files a", has_text=".csv").first
    with page.expect_download() as download:
        link.click()
    return pd.read_csv(download.value.path())


@pytest.mark.parametrize("path", ["/", "/retention", "/plan"])
def test_the_cell_gives_the_table_that_is_downloaded(path, open_page, stored):
    page = open_page(f"{path}?run={stored}")
    found = last_value(taken(page))
    expected = first_table(page)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(found.to_csv(index=False))), expected)
    assert len(expected)


def test_the_cell_follows_what_is_chosen(open_page, stored):
    page = open_page(f"/retention?run={stored}")
    assert "'heldout'" in taken(page)
    page.get_by_text("Dev text, same genre as training").click()
    expect(page.locator(".lpr-take code")).to_contain_text("'dev'")
    assert set(first_table(page)["dataset"]) == {"dev"}


def test_a_typed_text_is_traced_anew_by_its_cell_with_the_same_numbers(open_page, tiny):
    page = open_page(f"/routing?run={tiny}&text=own")
    page.get_by_label("Your text, in any language").fill("नमस्ते, καλημέρα و مرحبا")
    page.get_by_role("button", name="Trace this text").click()
    expect(page).to_have_url(re.compile("text=own-"))
    found = last_value(taken(page))
    expected = first_table(page)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(found.to_csv(index=False))), expected, rtol=1e-4, atol=1e-5)
    assert len(expected) > 30


def test_a_figure_becomes_a_drawing_with_its_words(open_page, stored):
    page = open_page(f"/retention?run={stored}")
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    taken(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="figure 1.svg").click()
    drawing = ElementTree.fromstring(Path(download.value.path()).read_text(encoding="utf-8"))
    words = " ".join(drawing.itertext())
    assert drawing.tag.endswith("svg") and float(drawing.get("width", 0)) > 300
    assert "Greek" in words and "English" in words and drawing.find(".//{*}path") is not None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(open_page, axe, stored, scheme):
    size = {"width": 360, "height": 780}
    page = open_page(f"/retention?run={stored}", viewport=size, color_scheme=scheme)
    taken(page)
    expect(page.locator(".lpr-files a").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page, ".lpr-take", strict=True)
