"""The tour, walked by keyboard: every step opens what it says."""

import shutil

import pytest
from playwright.sync_api import expect

from lpr_lab.dashboard import serve, tour
from lpr_lab.runs import environment
from lpr_lab.runs.find import list_runs

pytestmark = pytest.mark.e2e


def test_six_steps_from_what_this_is_to_what_happened_to_a_word(open_page, axe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tour") / "runs"
    shutil.copytree(environment.CHECKOUT / "runs" / "examples", folder / "examples")
    run = next(run for run in list_runs(folder) if run.is_example)
    at = serve(folder, port=None, open_browser=False, block=False)
    page = open_page("/", at=at)
    page.get_by_role("link", name="Two-minute tour").click()
    expect(page.locator(".lpr-tour li")).to_have_count(6)
    assert not axe(page, "main", strict=True)
    for step in tour.steps(run):
        link = page.get_by_role("link", name=step.question)
        link.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("[data-lpr-page=ready]:not(:has-text('Two minutes'))")
        expect(page.locator(".lpr-finding")).not_to_be_empty()
        page.goto(f"{at}/tour")
    place, gain = tour.clearest_gain(run.traces.read("el"))
    page.get_by_role("link", name=tour.steps(run)[-1].question).click()
    token = page.locator(f".lpr-strip [data-i='{place}']").first
    expect(token).to_be_visible()
    expect(page.get_by_text(f"{gain:.1f}").first).to_be_visible()
    assert not page.locator("[role=alert]").count()
