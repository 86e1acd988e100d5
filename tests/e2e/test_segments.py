"""One segment in many languages on page `/routing`: by mouse and by keyboard, its numbers, its links, on a phone."""

import re

import pytest
from playwright.sync_api import Page, expect

from helpers.served_expansion import halt_after_steps, serve_expansion
from lpr_lab.text.sample_texts import TEXTS

pytestmark = pytest.mark.e2e

CODES = ("en", "el", "ar", "hi")


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model, tiny_tokenizer):
    """Return (address, run, model) of a dashboard with one run, in four scripts and both directions."""
    settings = {"corpus": "nowhere", "expanded": list(CODES[1:])}
    base, folder = tiny_model("llama", num_layers=3), tmp_path_factory.mktemp("segments")
    return serve_expansion(folder, base, tiny_tokenizer, {"el": TEXTS["el"]}, **settings)


@pytest.fixture(scope="module")
def known(served, tiny_tokenizer):
    from lpr_lab.measure.segments.compute import compare_languages

    return compare_languages(served[2], tiny_tokenizer, {code: TEXTS[code] for code in CODES})


def view(page: Page):
    return page.get_by_role("region", name="One segment in many languages", exact=True)


def compared(open_page, served, **options) -> Page:
    at, run, _ = served
    page = open_page(f"/routing?run={run.id}&text=el", at=at, **options)
    page.get_by_label("Segment", exact=True).click()
    page.get_by_role("option", name="Our own sample text").click()
    page.get_by_role("button", name="Compare its languages").click()
    expect(view(page)).to_be_visible()
    return page


def numbers(page: Page, code: str) -> list[str]:
    return page.locator(f"tr[data-language={code}] td").all_inner_texts()


def check(page: Page, known) -> None:
    for code in CODES[1:]:
        one = known.summary(code)
        shown = numbers(page, code)
        assert shown[0] == str(one.num_tokens)
        for text, number in zip(shown[1:4], (one.divergence, one.chance, one.halves), strict=True):
            assert float(text) == pytest.approx(number, abs=0.0006)
        assert float(shown[5].replace("−", "-")) == pytest.approx(one.similarity, abs=0.006)


def test_the_sample_text_is_compared_at_its_address_with_the_numbers_of_the_library(open_page, served, known):
    page = compared(open_page, served)
    check(page, known)
    expect(page).to_have_url(re.compile("segment=sample"))
    chosen = page.get_by_label("Segment", exact=True)
    expect(chosen).to_have_value("Our own sample text")
    assert chosen.evaluate("e => [getComputedStyle(e).opacity, e.offsetHeight > 14]") == ["1", True]
    expect(view(page).locator(".lpr-strip")).to_have_count(4)
    expect(view(page).locator("[lang=ar]")).to_have_attribute("dir", "rtl")
    expect(page.locator(".lpr-many-languages .js-plotly-plot")).to_have_count(2)
    again = open_page(page.url.removeprefix(served[0]), at=served[0])
    check(again, known)
    link = view(again).get_by_role("link", name="Full trace of the text in Arabic").first
    link.click()
    expect(again).to_have_url(re.compile("text=own-"))
    expect(again.locator("#lpr-text [lang=ar]")).to_have_attribute("dir", "rtl")


def test_texts_of_one_s_own_are_compared_by_keyboard_alone(open_page, served, tiny_tokenizer):
    import lpr_lab as lab

    at, run, model = served
    page = open_page(f"/routing?run={run.id}&text=el", at=at)
    box = page.get_by_label(re.compile("Or your own"))
    expect(box).to_have_value("en: \nel: \nar: \nhi: ")
    box.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("en: I heard the sea.")
    page.keyboard.press("Enter")
    page.keyboard.type("ar: سمعت البحر.")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Compare these texts")).to_be_focused()
    page.keyboard.press("Enter")
    expect(view(page)).to_be_visible()
    found = lab.compare_languages(model, tiny_tokenizer, {"en": "I heard the sea.", "ar": "سمعت البحر."})
    assert float(numbers(page, "ar")[1]) == pytest.approx(found.summary("ar").divergence, abs=0.0006)
    expect(page).to_have_url(re.compile("segment=own-"))
    token = view(page).get_by_role("option").first
    token.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "option"


def test_lines_that_cannot_be_read_and_a_corpus_that_is_not_there_are_said(open_page, served):
    at, run, _ = served
    page = open_page(f"/routing?run={run.id}&text=el", at=at)
    page.get_by_label(re.compile("Or your own")).fill("en: One.\nno code here")
    page.get_by_role("button", name="Compare these texts").click()
    expect(page.get_by_text("Line 2, “no code here”")).to_be_visible()
    page.get_by_role("button", name="Find segments").click()
    expect(page.locator(".lpr-many-languages .lpr-bad-line")).to_contain_text("nowhere")


def test_a_comparison_can_be_stopped_and_leaves_the_model_to_the_next(open_page, served, monkeypatch):
    from lpr_lab.measure.segments import compute

    go_on, _ = halt_after_steps(monkeypatch, compute, "compare_steps")
    at, run, _ = served
    page = open_page(f"/routing?run={run.id}&text=el", at=at)
    page.get_by_label(re.compile("Or your own")).fill("en: One.\nel: Ένα.\nhi: एक।")
    page.get_by_role("button", name="Compare these texts").click()
    expect(page.get_by_text("1 of 3 languages…")).to_be_visible()
    page.locator(".lpr-many-languages button", has_text="Stop").click()
    expect(page.get_by_text("Stopped; nothing was kept.")).to_be_visible()
    go_on.set()
    monkeypatch.undo()
    page.get_by_role("button", name="Compare these texts").click()
    expect(view(page)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_fits_a_phone_and_every_script_is_whole(open_page, axe, served, scheme):
    page = compared(open_page, served, viewport={"width": 360, "height": 780}, color_scheme=scheme)
    expect(page.locator(".lpr-many-languages .js-plotly-plot")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page)
