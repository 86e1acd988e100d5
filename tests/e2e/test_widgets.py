"""What gradio's widgets lack: radio groups, searched boxes, counted texts, copied commands; and what is no page."""

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.e2e


def test_a_group_of_radios_is_one_tab_stop_and_arrows_move_in_it(open_page, stored):
    page = open_page(f"/experts?run={stored}")
    group = (
        page.get_by_role("radiogroup", name="Load counted as")
        .or_(page.locator("fieldset").filter(has_text="Load counted as"))
        .first
    )
    radios = group.get_by_role("radio")
    expect(radios.first).to_be_checked()
    assert len({radios.nth(place).get_attribute("name") for place in range(radios.count())}) == 1
    radios.first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") != "radio"
    page.keyboard.press("Shift+Tab")
    expect(radios.first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(radios.nth(1)).to_be_checked()
    expect(page).to_have_url(re.compile("view="))
    expect(radios.nth(1)).to_be_focused()


def test_the_language_box_is_searched_after_a_click(open_page, tiny):
    page = open_page(f"/routing?run={tiny}&text=own")
    box = page.get_by_label("Its language")
    if not box.count() or not box.first.is_visible():
        page.get_by_text("A text of your own").first.click()
    box = page.get_by_label("Its language").first
    box.click()
    page.keyboard.type("Swah")
    expect(page.get_by_role("option").first).to_contain_text("Swahili")
    page.keyboard.press("Enter")
    expect(box).to_have_value(re.compile("Swahili"))


def test_a_text_that_is_too_long_is_counted_and_not_cut(open_page, tiny):
    page = open_page(f"/compare?run={tiny}&lang=el")
    box = page.get_by_label("Prompt, continued by both")
    counter = page.locator(".lpr-counter").first
    expect(counter).to_have_text(f"{len(box.input_value())} of 2,000 characters")
    box.fill("ω" * 4380)
    expect(counter).to_have_text(re.compile(r"4,380 of 2,000 characters: 2,380 too many"))
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("status").filter(has_text="has 4,380 characters; at most 2,000")).to_be_visible()
    assert box.input_value() == "ω" * 4380
    box.fill("ω")
    expect(counter).to_have_text("1 of 2,000 characters")


def test_a_text_that_the_page_writes_itself_is_counted(open_page, tiny):
    page = open_page(f"/compare?run={tiny}")
    box = page.get_by_label("Prompt, continued by both")
    expect(page.locator(".lpr-counter:visible").first).to_be_visible()
    page.wait_for_timeout(300)  # nothing else on the page changes any more
    box.evaluate("box => (box.value = 'ένα, δύο')")
    expect(page.locator(".lpr-counter:visible").first).to_have_text("8 of 2,000 characters")


def test_changing_the_language_keeps_a_typed_prompt(open_page, tiny):
    page = open_page(f"/compare?run={tiny}&lang=el")
    box = page.get_by_label("Prompt, continued by both")
    ours = box.input_value()
    page.get_by_role("radio", name="English").check(force=True)
    expect(page).to_have_url(re.compile("lang=en"))
    expect(box).not_to_have_value(ours)
    box.fill("Words of my own")
    page.get_by_role("radio", name="Greek").check(force=True)
    expect(page).to_have_url(re.compile("lang=el"))
    expect(page.get_by_role("status").filter(has_text="Your prompt stays")).to_be_visible()
    expect(box).to_have_value("Words of my own")


def test_a_command_is_copied_by_keyboard_and_it_is_said(open_page, empty_address):
    page = open_page("/", at=empty_address, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy the command lpr-lab demo").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#lpr-said")).to_have_text("Copied: lpr-lab demo")
    assert page.evaluate("navigator.clipboard.readText()") == "lpr-lab demo"


@pytest.mark.parametrize("path", ["/nosuchpage", "/routing/deeper", "/<b>x"])
def test_an_address_that_is_no_page_is_answered_as_one(browser, address, path):
    context = browser.new_context()
    page = context.new_page()
    answer = page.goto(address + path)
    assert answer is not None and answer.status == 404
    expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")
    for name in ("Runs", "Routing", "Plan"):
        expect(page.get_by_role("navigation").get_by_role("link", name=name)).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="Retention").click()
    expect(page).to_have_url(re.compile("/retention"))
    context.close()


def test_the_panel_of_a_long_text_stays_in_view(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=long")
    panel = page.locator(".lpr-strip.lpr-long .lpr-foot")
    expect(panel).to_be_visible()
    bottom = panel.evaluate("element => element.getBoundingClientRect().bottom")
    assert bottom <= 901, bottom


def test_the_colour_bar_outlives_a_change_of_address_and_of_theme(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=el")
    bar = page.locator(".js-plotly-plot .cbfill").first
    bar.wait_for(state="attached")
    page.evaluate("window.lpr.setQuery(location.search.slice(1) + '&layer=2')")
    page.locator("[data-theme-toggle]").click()
    assert "http" not in (bar.get_attribute("style") or "")
    broken = page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot [clip-path], .js-plotly-plot [style*="url("]')].map(
          (part) => (part.getAttribute('clip-path') ?? '') + (part.getAttribute('style') ?? '')).filter((text) =>
          /url\\(/.test(text) && !document.getElementById(/#([^"')]+)/.exec(text)[1]))"""
    )
    assert not broken
