"""From a number to its cause: a language's change, its slices and documents, one document's tokens, its causal map."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from helpers.measured_run import make_measured
from lpr_lab.dashboard import serve
from lpr_lab.runs.compare.paired_scores import compare
from lpr_lab.runs.compare.paired_slices import compare_slices
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.views.numbers import change, points

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model, tiny_tokenizer):
    """Return (address, run, model) of a dashboard with one run that has weights, scores and its corpus."""
    folder = tmp_path_factory.mktemp("causes")
    run, model, _ = make_measured(folder, tiny_model("llama", num_layers=3), tiny_tokenizer)
    return serve(folder / "runs", port=None, open_browser=False, block=False), run, model


def opened(open_page, served, language: str, more: str = "", **options) -> Page:
    page = open_page(f"/retention?run={served[1].id}&lang={language}{more}", at=served[0], **options)
    expect(page.get_by_role("heading", name="Where does the change come from?")).to_be_visible()
    return page


def cells(page: Page, table: str) -> list[list[str]]:
    rows = page.locator(f"{table} tbody tr")
    return [rows.nth(place).locator("th, td").all_inner_texts() for place in range(rows.count())]


def documents_of(run, language: str) -> pd.DataFrame:
    found = compare(ModelRef(run, "base"), ModelRef(run, "")).documents
    found = found[found["language"] == language].reset_index(drop=True)
    found["number"] = range(len(found))
    return found.sort_values("points", ascending=found["points"].sum() < 0, kind="stable")


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def read(page: Page) -> None:
    page.get_by_role("button", name="Colour its tokens by change").click()
    expect(page.get_by_role("status").filter(has_text="Done; nothing is saved.")).to_be_visible()
    expect(page.locator("#lpr-document .lpr-strip")).to_be_visible()


@pytest.mark.parametrize("language", ["en", "el", "ar", "th"])
def test_tables_of_slices_and_documents_are_those_of_the_library(open_page, served, language):
    page, run = opened(open_page, served, language), served[1]
    expected = compare_slices(ModelRef(run, "base"), ModelRef(run, ""), "heldout", language)
    shown = cells(page, ".lpr-slices")
    assert [row[5] for row in shown] == [change(value) for value in expected["change_percent"]]
    assert [row[7] for row in shown] == [points(value) for value in expected["points"]]
    ranked = documents_of(run, language)
    documents = cells(page, ".lpr-causes")
    assert [row[0] for row in documents] == ranked["document"].tolist()[:20]
    assert [row[5] for row in documents] == [points(value) for value in ranked["points"]][:20]
    if language in ("ar", "th"):
        expect(page.get_by_text("has no capital letters")).to_be_visible()


def test_by_mouse_from_a_language_to_a_document_to_its_tokens_to_the_causal_map(open_page, served, tiny_tokenizer):
    from lpr_lab.measure.routing import trace

    page, (_, run, model) = opened(open_page, served, "en"), served
    page.locator("fieldset:visible label", has_text="Greek").first.click()
    expect(page).to_have_url(re.compile("lang=el"))
    expect(page.locator(".lpr-causes")).to_contain_text("el/")
    top = documents_of(run, "el").iloc[0]
    choose(page, "Document", f"{points(top['points'])} points · {top['document']}")
    expect(page).to_have_url(re.compile(rf"doc={top['number']}(&|$)"))
    read(page)
    text = page.locator("#lpr-document .lpr-text").inner_text()
    expected = trace(model, tiny_tokenizer, text, "el")
    bits = (expected.base_log_prob - expected.log_prob)[1:] / np.log(2)
    most = [row[3] for row in cells(page, ".lpr-tokens-most")]
    assert most == [points(value) for value in sorted(bits, key=abs, reverse=True)[:10]]
    page.get_by_role("link", name=re.compile("causal map")).click()
    expect(page).to_have_url(re.compile(r"/routing\?.*text=own-"))
    page.get_by_role("button", name="Work it out").click()
    expect(page.get_by_role("grid")).to_be_visible()


def test_by_keyboard_a_document_is_chosen_and_read_and_cannot_be_told_from_the_mouse(open_page, served):
    page, run = opened(open_page, served, "th"), served[1]
    box = page.get_by_label("Document", exact=True)
    box.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("ul[role=listbox]")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"doc=\d+"))
    number = int(re.search(r"doc=(\d+)", page.url)[1])
    assert number in documents_of(run, "th")["number"].tolist()
    button = page.get_by_role("button", name="Colour its tokens by change")
    expect(button).to_be_enabled()
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#lpr-document .lpr-strip")).to_be_visible()
    page.reload()
    expect(page.locator("#lpr-document .lpr-strip")).to_be_visible()  # held, so the address shows it again


def test_tokens_are_coloured_between_any_two_stages(open_page, served, tiny_tokenizer):
    from lpr_lab.measure.routing import trace

    page, (_, _, model) = opened(open_page, served, "ar", "&stage2=G1+expand&doc=0"), served
    read(page)
    text = page.locator("#lpr-document .lpr-text").inner_text()
    stages = trace(model, tiny_tokenizer, text, "ar", stages=["G1 expand", "G1 review"])
    bits = (stages.at("G1 expand").log_prob - stages.log_prob)[1:] / np.log(2)
    most = [row[3] for row in cells(page, ".lpr-tokens-most")]
    assert most == [points(value) for value in sorted(bits, key=abs, reverse=True)[:10]]
    expect(page.locator(".lpr-tokens-most")).to_contain_text("G1 expand")
    taken = page.request.get(f"{served[0]}/data/retention/tokens.csv?{page.url.partition('?')[2]}")
    assert pd.read_csv(io.StringIO(taken.text()))["change"].to_numpy() == pytest.approx(bits)


def test_a_link_to_a_document_shows_it_and_one_that_is_not_there_chooses_none(open_page, served):
    page = opened(open_page, served, "en", "&doc=2")
    expect(page.locator(".lpr-causes tr[aria-current=true]")).to_have_count(1)
    expect(page.get_by_role("button", name="Colour its tokens by change")).to_be_enabled()
    page = opened(open_page, served, "en", "&doc=4000")
    expect(page.get_by_role("button", name="Colour its tokens by change")).to_be_disabled()
    expect(page.locator(".lpr-causes tr[aria-current=true]")).to_have_count(0)


@pytest.mark.parametrize(("language", "scheme"), [("el", "light"), ("ar", "dark"), ("th", "light")])
def test_it_is_accessible_and_fits_a_phone(open_page, axe, served, language, scheme):
    size = {"width": 360, "height": 780}
    page = opened(open_page, served, language, "&doc=1", viewport=size, color_scheme=scheme)
    read(page)
    expect(page.get_by_label("Empty value")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page)
