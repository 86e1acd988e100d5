"""The report as its reader meets it: a file on disk, no network, a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from helpers.sample_runs import HOSTILE, MIXED, SENTENCES, make_run, make_trace, results
from lpr_lab.runs.environment import describe
from lpr_lab.runs.run import Run
from lpr_lab.views.report.page import write_report

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A report of two runs: every script, hostile texts, several numbers of experts."""
    folder = tmp_path_factory.mktemp("report")
    first = make_run(folder / "runs", title="First")
    first.documents.write("env", describe() | {"git": {"commit": "a" * 40, "dirty": True, "diff_sha256": "b" * 64}})
    first.traces.write("hostile", make_trace(HOSTILE))
    first.traces.write("many", make_trace(SENTENCES["el"], "el", num_experts=9))
    second = Run.create(folder / "runs", kind="expansion", slug="x", title="Second <script>boom()</script>")
    found = results()
    found["change"] = [{**row, "test_set": "other"} for row in found["change"]]
    second.finish(found)
    write_report([first, second], folder / "report.html", title="تقرير", language="ar")
    return folder / "report.html"


@pytest.fixture
def open_report(browser, path) -> Iterator:
    """Open the file with the network off; any request, error or dialog fails the test."""
    contexts, complaints = [], []

    def open_(**options) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "offline": True, **options})
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda m: complaints.append(f"console: {m.text}") if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append("a dialog opened"), dialog.dismiss()))
        page.on("request", lambda r: None if r.url.startswith((path.as_uri(), "data:")) else complaints.append(r.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-lpr-ready]")
        return page

    yield open_
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.boom") is None
        context.close()
    assert complaints == []


def test_every_chart_is_drawn_and_the_file_is_small(open_report, path):
    assert path.stat().st_size < 8_000_000
    page = open_report()
    places = page.locator("[data-figure]")
    assert places.count() >= 5
    assert page.locator("[data-figure]:has(.main-svg)").count() == places.count()
    assert page.get_by_text("did not draw").count() == 0
    title = page.get_by_role("heading", level=1)
    expect(title).to_have_text("تقرير")
    assert title.evaluate("element => getComputedStyle(element).direction") == "rtl"
    expect(page.get_by_role("note").filter(has_text="different documents").first).to_be_visible()


def test_tokens_are_looked_into_by_pointer_and_by_keyboard(open_report):
    page = open_report()
    run = page.locator("article.lpr-run").first
    strip = (
        run.get_by_role("tabpanel").filter(has=page.locator(".lpr-strip")).locator("visible=true").locator(".lpr-strip")
    )
    strip.locator(".lpr-t[data-t='4']").first.hover()
    expect(strip.locator(".lpr-token")).to_contain_text("Token5 of")
    before = strip.locator(".lpr-token").inner_text()
    strip.locator("[role=option][tabindex='0'], [role=option]").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(strip.locator(".lpr-token")).not_to_have_text(before)
    page.keyboard.press("ArrowDown")
    expect(strip.locator(".lpr-reading")).to_contain_text("Layer 0")
    tabs = run.get_by_role("tab")
    tabs.first.focus()
    page.keyboard.press("End")
    expect(tabs.last).to_have_attribute("aria-selected", "true")
    expect(run.get_by_role("tabpanel").locator("visible=true")).to_have_count(1)


def test_every_text_is_what_it_was_and_fits_a_phone(open_report):
    page = open_report(viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    texts = (
        page.locator("article.lpr-run").first.locator(".lpr-text").evaluate_all("all => all.map(e => e.textContent)")
    )
    assert {*SENTENCES.values(), MIXED} <= set(texts)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_accessibility_problem_is_found(open_report, axe, scheme):
    assert not axe(open_report(color_scheme=scheme), within="html")


def test_brightness_follows_the_system_until_it_is_switched(open_report):
    page = open_report(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Switch to light").click()
    assert page.evaluate(ground) != dark
    page.get_by_role("button", name="Switch to dark").click()
    assert page.evaluate(ground) == dark


def test_on_paper_every_chart_and_text_is_there_on_white(open_report, tmp_path):
    page = open_report(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--lpr-ink')") == "#12151c"
    fits = """() => [...document.querySelectorAll('.lpr-chart')].every((chart) => {
        const svg = chart.querySelector('.main-svg').getBoundingClientRect(), box = chart.getBoundingClientRect();
        return svg.height > 100 && svg.width <= box.width + 1 && svg.height <= box.height + 1;
    })"""
    assert page.evaluate(fits)
    for strip in page.locator("article.lpr-run").first.locator(".lpr-text").all():
        expect(strip).to_be_visible()
    written = page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert len(written) > 50_000


def test_without_scripts_texts_and_numbers_are_still_there(browser, path):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    expect(page.locator(".lpr-text").first).to_be_visible()
    expect(page.get_by_role("table").first).to_be_visible()
    context.close()
