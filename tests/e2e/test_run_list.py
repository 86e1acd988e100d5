"""The list of runs in a browser: ticked at any pace, narrowed and ordered by settings, noted and tagged."""

import re
import time

import pytest
from playwright.sync_api import Page, expect

from helpers.page_walk import WATCH, query_of, settle
from lpr_lab.dashboard import serve
from lpr_lab.dashboard.pages.runs import page as runs_page
from lpr_lab.runs.housekeeping import read_tags
from lpr_lab.runs.people.notes import read_notes
from lpr_lab.runs.run import Run

pytestmark = pytest.mark.e2e

TITLES = ("Μαθαίνει ελληνικά", "يتعلم العربية", "เรียนภาษาไทย", "Fourth")
CHANGES = (-3.0, -20.0, -10.0, None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listed") / "runs"
    made = []
    for place, (title, change) in enumerate(zip(TITLES, CHANGES, strict=True)):
        config = {
            "base": "b",
            "original": ["en"],
            "expanded": ["el"],
            "seed": place % 2,
            "learning_rate": 0.001 * place,
        }
        run = Run.create(folder, kind="expansion", slug="x", title=title, config=config)
        summary = {"heldout": {"expanded": {"mean_change_percent": change}}} if change else {}
        run.finish({"schema_version": 1, **config, "summary": summary})
        made.append(run)
    return made


@pytest.fixture(scope="module")
def at(runs):
    return serve(runs[0].path.parent, port=None, open_browser=False, block=False)


def box(page: Page, title: str):
    return page.get_by_role("checkbox", name=f"Compare {title}")


def listed(page: Page) -> list[str]:
    return page.locator(".lpr-runs .lpr-named a[data-pick]").all_inner_texts()


def ticked(page: Page) -> list[str]:
    # Asked of the page itself: Playwright's own address follows it by an event, a moment later.
    return page.evaluate("new URLSearchParams(location.search).get('runs') ?? ''").split(",")


@pytest.fixture
def slow(monkeypatch):
    """Let every answer of the page take a while, so that a second choice comes before the first answer."""
    real = runs_page.draw

    def draw(*given):
        time.sleep(0.8)
        return real(*given)

    monkeypatch.setattr(runs_page, "draw", draw)


# ------------------------------------------------------------------------------------------------ one at a time


def test_a_second_run_ticked_before_the_first_tick_is_answered_is_ticked_too(open_page, runs, at, slow):
    page = open_page(f"/?run={runs[0].id}", at=at, script=WATCH)
    settle(page)
    for title in TITLES[:3]:
        box(page, title).click(no_wait_after=True)
    ids = [run.id for run in runs[:3]]
    assert ticked(page) == ids, "the address holds all three at once"
    for _ in range(25):  # also while the answers come in, each drawn for fewer
        assert ticked(page) == ids
        assert [box(page, title).get_attribute("aria-checked") for title in TITLES[:3]] == ["true"] * 3
        page.wait_for_timeout(100)
    settle(page, 500)
    expect(page.get_by_role("heading", name=re.compile("^3 runs: "))).to_be_visible()
    box(page, TITLES[0]).click(no_wait_after=True)
    box(page, TITLES[0]).click(no_wait_after=True)
    box(page, TITLES[1]).click(no_wait_after=True)
    settle(page, 500)
    assert ticked(page) == [ids[2], ids[0]]
    expect(page.get_by_role("heading", name=re.compile("^2 runs: "))).to_be_visible()


def test_a_run_chosen_before_a_tick_is_answered_does_not_lose_the_tick(open_page, runs, at, slow):
    page = open_page(f"/?run={runs[0].id}", at=at, script=WATCH)
    settle(page)
    box(page, TITLES[1]).focus()
    page.keyboard.press("Space")
    page.get_by_role("link", name=TITLES[2], exact=True).click(no_wait_after=True)
    settle(page, 500)
    assert query_of(page) == {"run": runs[2].id, "runs": runs[1].id}
    expect(page.get_by_role("heading", name=TITLES[2])).to_be_visible()
    expect(box(page, TITLES[1])).to_be_checked()


# -------------------------------------------------------------------------------------------- narrowed and ordered


def test_the_list_is_narrowed_by_values_of_a_setting_and_the_address_restores_it(open_page, axe, runs, at):
    page = open_page("/", at=at, script=WATCH)
    settle(page)
    chooser = page.get_by_label("Filter by")
    chooser.select_option("seed")
    values = page.get_by_role("group", name="Values of seed")
    expect(values.get_by_role("link")).to_have_text(["0 2", "1 2"])
    expect(chooser).to_have_value("seed")
    values.get_by_role("link", name="1 2").click()
    expect(page.locator(".lpr-runs .lpr-named")).to_have_count(2)
    assert set(listed(page)) == {TITLES[1], TITLES[3]}
    expect(page.locator(".lpr-asked").first).to_have_text("seed 1")
    chooser.select_option("learning_rate")
    page.get_by_role("group", name="Values of learning_rate").get_by_role("link", name="0.003 1").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".lpr-runs .lpr-named")).to_have_count(1)
    assert query_of(page)["where"] == "seed=1;learning_rate=0.003"
    assert not axe(page)
    again = open_page("/" + page.evaluate("location.search"), at=at)
    assert listed(again) == [TITLES[3]]
    page.get_by_role("link", name="Remove the filter seed = 1").click()
    expect(page.get_by_role("link", name="Remove the filter seed = 1")).to_have_count(0)
    page.get_by_role("link", name="Show all").click()
    expect(page.locator(".lpr-runs .lpr-named")).to_have_count(4)
    expect(chooser).to_have_value("")
    page.go_back()
    page.wait_for_selector("[data-lpr-page=ready]")
    expect(page.locator(".lpr-runs .lpr-named")).to_have_count(1)


def test_the_list_is_ordered_by_results_both_ways_and_bounded_by_keyboard(open_page, runs, at):
    page = open_page("/", at=at, script=WATCH)
    settle(page)
    change = "results.summary.heldout.expanded.mean_change_percent"
    page.get_by_label("Sort by").select_option(change)
    expect(page.locator(".lpr-named a[data-pick]")).to_have_text([TITLES[1], TITLES[2], TITLES[0], TITLES[3]])
    page.get_by_role("link", name="Smallest first").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".lpr-named a[data-pick]")).to_have_text([TITLES[0], TITLES[2], TITLES[1], TITLES[3]])
    assert query_of(page)["sort"] == f"-{change}"
    page.get_by_label("Filter by").select_option(change)
    bounds = page.get_by_role("form", name=re.compile("^Bounds of"))
    bounds.get_by_label("to", exact=True).fill("-9.5")
    page.keyboard.press("Enter")
    expect(page.locator(".lpr-named a[data-pick]")).to_have_text([TITLES[2], TITLES[1]])
    assert query_of(page)["where"] == f"{change}<=-9.5"
    again = open_page("/" + page.evaluate("location.search"), at=at)
    assert listed(again) == [TITLES[2], TITLES[1]]
    expect(again.get_by_label("to", exact=True)).to_have_value("-9.5")


# ------------------------------------------------------------------------------------------------ notes and tags


def test_notes_and_tags_are_written_in_the_page_and_stay_while_runs_are_ticked(open_page, axe, runs, at):
    page = open_page(f"/?run={runs[3].id}", at=at, script=WATCH)
    settle(page)
    page.get_by_role("button", name="Write notes and tags").click()
    settle(page, 300)  # the boxes are made when the section opens, and filled with what was saved
    notes, tags = page.get_by_label("Notes on this run, plain text"), page.get_by_label("Tags, with blanks")
    notes.fill("<b>Best</b> so far\nשורה שנייה")
    box(page, TITLES[0]).click()
    settle(page, 300)
    expect(notes).to_have_value("<b>Best</b> so far\nשורה שנייה")
    tags.fill("best άριστο")
    tags.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Saved with the run")).to_be_visible()
    assert read_notes(runs[3]) == "<b>Best</b> so far\nשורה שנייה" and read_tags(runs[3]) == ("best", "άριστο")
    expect(page.locator(".lpr-notes")).to_have_text("<b>Best</b> so far\nשורה שנייה")
    expect(page.locator(".lpr-first-note")).to_have_text("<b>Best</b> so far …")
    page.get_by_role("group", name="Only tag").get_by_role("link", name="best 1").click()
    expect(page.locator(".lpr-runs .lpr-named")).to_have_count(1)
    tags.fill("two words,")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").filter(has_text="is no tag")).to_be_visible()
    assert read_tags(runs[3]) == ("best", "άριστο")
    assert not axe(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(open_page, axe, runs, at, scheme):
    where = "/?where=seed%3D1;learning_rate%3E%3D0.001&by=learning_rate&sort=-learning_rate"
    page = open_page(where, at=at, color_scheme=scheme, viewport={"width": 360, "height": 780})
    expect(page.get_by_role("form", name="Bounds of learning_rate")).to_be_visible()
    page.get_by_role("button", name="Write notes and tags").click()
    expect(page.get_by_label("Notes on this run, plain text")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page, "html", strict=True)
