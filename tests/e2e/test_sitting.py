"""A set of prompts judged blind in one sitting, by mouse and by keyboard, broken off, taken up again, counted."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from lpr_lab.dashboard.server.sittings import SITTINGS
from lpr_lab.measure.preference import sign_test
from lpr_lab.runs.people.own_texts import add_texts, delete_text, own_texts
from lpr_lab.runs.people.sittings import kept_sittings
from lpr_lab.runs.run import Run

pytestmark = pytest.mark.e2e

TEXTS = ("Μια μέρα", "في يوم", "One day", "Un día <b>")


@pytest.fixture
def run(runs_dir, tiny):
    run = Run(Path(runs_dir) / tiny)
    add_texts(run, TEXTS, "Days")
    yield run
    for text in own_texts(run):
        delete_text(run, text.id)


def begin(page: Page) -> None:
    page.get_by_role("button", name="Judge a set of prompts blind, in one sitting").click()
    expect(page.get_by_label("Set of prompts")).to_have_value("Days (4)")
    expect(page.get_by_role("checkbox", name="One day")).to_be_checked()
    page.get_by_role("button", name="Begin the sitting").click()
    expect(page).to_have_url(re.compile("sitting=[0-9a-f]{32}"))


def sitting_of(page: Page, run: Run):
    return SITTINGS.get(run, re.search("sitting=([0-9a-f]{32})", page.url)[1])


def written(page: Page, place: int) -> None:
    """Wait until both have written to a prompt."""
    frame = page.get_by_role("region", name=f"Prompt {place + 1} of 4", exact=True)
    expect(frame.locator(".lpr-pane")).to_have_count(2, timeout=120_000)


@pytest.fixture
def differing(monkeypatch):
    """Let the two never write the same, so that every prompt is judged: random weights may agree."""
    from lpr_lab.runs.people.sittings import Sitting

    real = Sitting.with_written
    monkeypatch.setattr(Sitting, "with_written", lambda self, place, one, other: real(self, place, one, f"{other}·"))


def test_a_sitting_is_judged_by_mouse_and_keys_taken_up_again_counted_and_kept(open_page, axe, run, differing):
    page = open_page(f"/compare?run={run.id}&lang=en")
    begin(page)
    written(page, 0)
    expect(page.locator(".lpr-sitting .lpr-pane h2")).to_have_text(["A", "B"])
    shown = page.locator(".lpr-sitting").inner_html()
    assert not re.search("ase model|xpanded|tokens/s|swapped", shown)
    assert not axe(page)
    page.get_by_role("button", name="A is better").click()
    written(page, 1)
    frame = page.locator(".lpr-sitting")
    frame.focus()
    page.keyboard.press("ArrowRight")
    written(page, 2)
    expect(frame).to_be_focused()
    first = sitting_of(page, run)
    assert [one.choice for one in first.prompts] == ["left", "right", "", ""] and not kept_sittings(run)
    answer = page.request.get(page.url.replace("/compare?", "/data/compare/sitting.csv?"))
    assert answer.status == 404 and "goes on" in answer.text()
    # Broken off: the address takes it up again in another window.
    other = open_page(page.url.partition("/compare")[1] + page.url.partition("/compare")[2])
    expect(other.get_by_role("region", name="Prompt 3 of 4", exact=True)).to_be_visible()
    if other.get_by_role("button", name="Go on").is_visible():
        other.get_by_role("button", name="Go on").click()
    written(other, 2)
    other.locator(".lpr-sitting").focus()
    other.keyboard.press("ArrowDown")
    written(other, 3)
    other.get_by_role("button", name="B is better").click()
    result = other.get_by_role("region", name="Result of the sitting")
    expect(result).to_be_visible()
    now = sitting_of(other, run)
    assert [one.choice for one in now.prompts] == ["left", "right", "same", "right"]
    base, expanded = now.tally.wins
    assert base + expanded == 3
    expect(result).to_contain_text(
        f"Base model {base}, Expanded model {expanded} (n = 3, p = {sign_test(base, expanded):.2f})"
    )
    expect(result).to_contain_text(f"seed {now.seed}; not kept")
    result.get_by_text("Every prompt, with who wrote what").click()
    expect(result.locator(".lpr-judged > li")).to_have_count(4)
    assert other.locator(".lpr-judged b", has_text="<b>").count() == 1
    at = other.url.partition("/compare")[0]
    rows = list(
        csv.DictReader(
            io.StringIO(other.request.get(at + result.get_by_text("sitting.csv").get_attribute("href")).text())
        )
    )
    assert [row["preferred"] for row in rows].count("expanded") == expanded and {row["prompt"] for row in rows} == set(
        TEXTS
    )
    told = json.loads(other.request.get(at + result.get_by_text("sitting.json").get_attribute("href")).text())
    assert told["seed"] == now.seed and not kept_sittings(run)
    other.get_by_role("button", name="Keep this sitting").click()
    expect(other.get_by_role("status").filter(has_text="Kept with this run")).to_be_visible()
    assert kept_sittings(run) == [now]
    assert not axe(other)
    SITTINGS.drop(run, now.id)  # as after a restart
    other.reload()
    expect(other.get_by_role("region", name="Result of the sitting")).to_contain_text("kept with this run")
    other.get_by_role("button", name="Delete it for everybody").click()
    expect(other.get_by_role("region", name="Result of the sitting")).to_have_count(0)
    assert not kept_sittings(run)


def test_it_is_ended_early_and_broken_off_while_it_writes(open_page, run, slowly, differing):
    page = open_page(f"/compare?run={run.id}&lang=en")
    begin(page)
    expect(page.get_by_role("status").filter(has_text="Writing prompt 1 of 4")).to_be_visible()
    page.get_by_role("button", name="Break off").click()
    expect(page.get_by_role("status").filter(has_text="Broken off.")).to_be_visible()
    slowly["seconds"] = 0
    page.get_by_role("button", name="Go on").click()
    written(page, 0)
    page.get_by_role("button", name="No difference").click()
    written(page, 1)
    page.get_by_role("button", name="End here and tell").click()
    result = page.get_by_role("region", name="Result of the sitting")
    expect(result).to_contain_text("1 of 4 prompts judged blind, then ended")
    expect(page.get_by_role("button", name="A is better")).to_have_count(0)


def test_the_next_prompt_is_written_while_one_reads(open_page, run, differing):
    page = open_page(f"/compare?run={run.id}&lang=en")
    begin(page)
    written(page, 0)
    for _ in range(100):
        if sitting_of(page, run).prompts[1].is_written:
            break
        page.wait_for_timeout(200)
    now = sitting_of(page, run)
    assert [one.is_written for one in now.prompts] == [True, True, False, False] and now.current == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(open_page, axe, run, differing, scheme):
    size = {"width": 360, "height": 780}
    page = open_page(f"/compare?run={run.id}&lang=en", viewport=size, color_scheme=scheme)
    begin(page)
    written(page, 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page)


def test_nothing_chosen_and_a_sitting_that_is_gone_are_said(open_page, run):
    page = open_page(f"/compare?run={run.id}&lang=en&sitting={'0' * 32}")
    expect(page.get_by_text("This sitting is no longer held")).to_be_visible()
    page.get_by_role("button", name="Judge a set of prompts blind, in one sitting").click()
    for name in ("Μια μέρα", "في يوم", "One day", "Un día <b>"):
        page.locator("label", has=page.get_by_role("checkbox", name=name)).click()
        expect(page.get_by_role("checkbox", name=name)).not_to_be_checked()
    page.get_by_role("button", name="Begin the sitting").click()
    expect(page.get_by_role("alert").filter(has_text="No prompt was chosen")).to_be_visible()
