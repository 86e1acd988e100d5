"""The app as people meet it: in a browser, by mouse, by keyboard, by address, in any script and width."""

import re
import time

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.e2e

PAGES = {"/": "Runs", "/routing": "Routing", "/retention": "Retention", "/compare": "Compare"}


def option(page: Page, token: int):
    return page.locator(f".lpr-text [role=option][data-i='{token}']")


def chosen(page: Page) -> int:
    return int(page.locator("[role=option][aria-selected=true]:visible").get_attribute("data-i") or -1)


# ------------------------------------------------------------------------------------------------- every page


@pytest.mark.parametrize(("path", "name"), PAGES.items(), ids=PAGES.values())
def test_every_page_answers_its_question_and_is_accessible(open_page, stored, path, name):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(f"{path}?run={stored}")
    expect(page).to_have_title(f"{name} · lpr_lab")
    expect(page.locator("h1")).to_have_count(1)
    expect(page.locator(".lpr-finding").first).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name=name)).to_have_attribute(
        "aria-current", "page"
    )
    expect(page.get_by_label("Empty value")).to_have_count(0)  # gradio's placeholder until a chart is there
    found = Axe().run(page, context=".gradio-container").response["violations"]
    ours = {
        violation["id"]: [node["html"][:160] for node in violation["nodes"]]
        for violation in found
        if violation["impact"] in ("serious", "critical")
    }
    assert not ours


@pytest.mark.parametrize("path", PAGES, ids=PAGES.values())
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_scrolls_sideways_on_a_phone(open_page, stored, path, scheme):
    page = open_page(f"{path}?run={stored}", viewport={"width": 360, "height": 780}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    is_dark = page.evaluate("document.body.classList.contains('dark')")
    assert is_dark == (scheme == "dark")


def test_links_between_pages_keep_run_and_language_and_nothing_else(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=el&tok=3")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Compare").click()
    expect(page).to_have_title("Compare · lpr_lab")
    expect(page).to_have_url(re.compile(rf"/compare\?run={stored}&lang=el"))
    expect(page.get_by_role("radio", name="Greek")).to_be_checked()


def test_brightness_is_remembered(open_page, stored):
    page = open_page("/", color_scheme="light")
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.reload()
    expect(page.locator("body")).to_have_class(re.compile("dark"))


@pytest.mark.parametrize("path", PAGES, ids=PAGES.values())
def test_an_empty_folder_teaches_how_to_make_a_run(open_page, empty_address, path):
    page = open_page(path, at=empty_address)
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    expect(page.get_by_text("lpr-lab demo").first).to_be_visible()


@pytest.mark.parametrize("run", ["gone-1234", "../../etc/passwd", "%3Cimg%20src%3Dx%20onerror%3Dboom()%3E"])
def test_an_unknown_run_is_a_notice_and_not_a_blank_page(open_page, run):
    page = open_page(f"/routing?run={run}")
    expect(page.get_by_text("isn't in this folder. Showing the newest one instead.")).to_be_visible()
    expect(page.locator(".lpr-strip")).to_be_visible()


# ------------------------------------------------------------------------------------------------------ runs


def test_choosing_a_run_shows_it_and_changes_the_address(open_page, stored, tiny):
    page = open_page(f"/?run={tiny}")
    expect(page.get_by_text("unreadable")).to_be_visible()
    page.get_by_role("link", name="Stored numbers").click()
    expect(page.get_by_role("heading", name="Stored numbers")).to_be_visible()
    expect(page).to_have_url(re.compile(f"run={stored}"))
    expect(page.get_by_text("6 of 6 promises of the method hold")).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()


# ------------------------------------------------------------------------------------------------- token strip


def test_any_script_is_shown_whole_and_nothing_of_it_is_run(open_page, stored, texts):
    page = open_page(f"/routing?run={stored}&text=en")
    for name, text in texts.items():
        page.goto(re.sub("text=[a-z]+", f"text={name}", page.url).split("&tok")[0])
        page.wait_for_selector(".lpr-strip[data-lpr-ready]")
        shown = page.locator(".lpr-text").evaluate("e => e.textContent")
        assert shown == text.replace("\x07", "␇"), name


def test_arabic_letters_join_across_tokens(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=ar")
    widths = page.locator(".lpr-text").evaluate(
        """async paragraph => {
            await document.fonts.ready;
            const plain = paragraph.cloneNode(false);
            plain.textContent = paragraph.textContent;
            paragraph.after(plain);
            const width = (element) => {
                const range = document.createRange();
                range.selectNodeContents(element);
                return range.getBoundingClientRect().width;
            };
            const mark = paragraph.querySelector(".lpr-special").getBoundingClientRect().width;
            const both = [width(paragraph) - mark, width(plain)];
            plain.remove();
            return both;
        }"""
    )
    assert abs(widths[0] - widths[1]) / widths[1] < 0.01


def test_the_address_is_the_state(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=el&layer=7&tok=3")
    expect(option(page, 3)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("slider", name="Layer")).to_have_attribute("aria-valuetext", re.compile("^Layer 7:"))
    option(page, 3).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.get_by_text("Tokens", exact=True).click()
    expect(page).to_have_url(re.compile("layer=8.*tok=4.*mode=tokens"))
    other = open_page(page.url.replace(page.url.split("/routing")[0], ""))
    assert chosen(other) == 4
    expect(other.get_by_role("slider", name="Layer")).to_have_attribute("aria-valuetext", re.compile("^Layer 8:"))
    expect(other.locator(".lpr-chips")).to_be_visible()


@pytest.mark.parametrize(("text", "forward"), [("el", "ArrowRight"), ("ar", "ArrowLeft")])
def test_one_tab_stop_and_arrow_keys_that_follow_the_text(open_page, stored, text, forward):
    page = open_page(f"/routing?run={stored}&text={text}")
    page.locator(".lpr-strip input[value=original]").focus()
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_attribute("data-i", "0")
    for _ in range(3):
        page.keyboard.press(forward)
    expect(page.locator(":focus")).to_have_attribute("data-i", "3")
    assert re.match(
        r"token 4 of \d+, .+, all layers: expert 0 original", page.locator(":focus").get_attribute("aria-label")
    )
    page.keyboard.press("ArrowDown")
    assert "layer 0: expert 0 original" in (page.locator(":focus").get_attribute("aria-label") or "")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator(".lpr-token")).to_contain_text("pinned")
    page.keyboard.press("Escape")
    expect(page.locator(".lpr-of")).to_have_text("whole text")
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider", name="Layer")).to_be_focused()


def test_dragging_over_the_layers_recolours_the_text_without_asking_python(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=el")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    before = option(page, 2).evaluate("e => e.closest('.lpr-t').style.cssText")
    profile = page.get_by_role("slider", name="Layer")
    box = profile.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20, steps=5)
    page.mouse.up()
    expect(profile).to_have_attribute("aria-valuetext", re.compile("^Layer 29:"))
    expect(page).to_have_url(re.compile("layer=29"))
    assert option(page, 2).evaluate("e => e.closest('.lpr-t').style.cssText") != before
    assert asked == []


def test_a_long_text_is_cut_and_said_to_be(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=long")
    expect(page.get_by_text(re.compile(r"Showing the first 2,048 of [\d,]+ tokens"))).to_be_visible()
    started = time.monotonic()
    option(page, 0).focus()
    page.keyboard.press("ArrowDown")
    expect(page).to_have_url(re.compile("layer=0"))
    assert time.monotonic() - started < 10


# ----------------------------------------------------------------------------------------------- with a model


def test_a_greek_sentence_is_traced_token_by_token_and_kept_under_its_address(open_page, tiny):
    page = open_page(f"/routing?run={tiny}")
    page.get_by_text("Your own text", exact=True).click()
    page.get_by_label("Your text, in any language").fill("Το πρωί άνοιξα το παράθυρο.")
    page.get_by_role("button", name="Trace this text").click()
    expect(page.get_by_role("status").filter(has_text="tokens in")).to_be_visible()
    expect(page.locator(".lpr-text")).to_have_text("Το πρωί άνοιξα το παράθυρο.")
    tones = page.locator(".lpr-text .lpr-t").evaluate_all("all => all.map(e => e.style.getPropertyValue('--tone'))")
    assert len(tones) > 5 and all(tone.startswith("var(--lpr-") for tone in tones)
    expect(page).to_have_url(re.compile("text=own-[0-9a-f]{8}"))
    page.reload()
    expect(page.locator(".lpr-text")).to_have_text("Το πρωί άνοιξα το παράθυρο.")


def test_two_readers_do_not_see_each_others_text(open_page, tiny):
    one, two = open_page(f"/routing?run={tiny}&text=own"), open_page(f"/routing?run={tiny}&text=own")
    for page, text in ((one, "First reader."), (two, "Second reader.")):
        page.get_by_label("Your text, in any language").fill(text)
    for page in (one, two):
        page.get_by_role("button", name="Trace this text").click()
    expect(one.locator(".lpr-text")).to_have_text("First reader.")
    expect(two.locator(".lpr-text")).to_have_text("Second reader.")
