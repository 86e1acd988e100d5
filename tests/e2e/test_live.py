"""A run at work, seen by a browser: its page follows it, leaves alone what a reader opened, and stops when it ends."""

import time

import pytest
from playwright.sync_api import expect

from lpr_lab.dashboard import serve
from lpr_lab.dashboard.pages.runs import page as runs
from lpr_lab.runs.run import Run

pytestmark = pytest.mark.e2e


@pytest.fixture
def run(tmp_path):
    run = Run.create(
        tmp_path / "runs",
        kind="expansion",
        slug="el",
        title="Learning Greek",
        config={"base": "b", "original": ["en"], "expanded": ["el"]},
    )
    run.start("expand")
    run.phases.expect(num_steps=10)
    yield run
    if run.status.recorded_state == "running":
        run.stop("interrupted")


def log(run, *steps):
    for step in steps:
        numbers = {"loss": 3 / step, "lm_loss": 2 / step, "grad_norm": 1.0, "lr": 3e-4}
        run.metrics.log({"step": step, "tokens": 100 * step, "t": 2.0 * step, **numbers}, stage="expand")


def test_the_page_follows_a_run_for_every_visitor_and_stops_when_it_is_finished(open_page, axe, run, monkeypatch):
    monkeypatch.setattr(runs, "EVERY_SECONDS", 0.5)
    address = serve(run.path.parent, port=None, open_browser=False, block=False)
    log(run, 1, 2)
    one, other = open_page("/", at=address), open_page("/", at=address)
    card = one.get_by_role("region", name="At work")
    expect(card).to_contain_text("2 of 10")
    assert not axe(one)
    one.get_by_text("Settings", exact=True).click()
    one.get_by_label("Training, number by number").click()
    one.get_by_role("option", name="grad_norm").click()
    expect(one.get_by_text("grad_norm: expand")).to_be_visible()

    log(run, 3, 4)
    for page in (one, other):
        card = page.get_by_role("region", name="At work")
        expect(card).to_contain_text("4 of 10")
        expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "4")
        expect(card.locator("polyline")).to_have_count(2)
    # What the reader opened and chose is still so.
    expect(one.locator("details[open]")).to_have_count(1)
    expect(one.get_by_label("Training, number by number")).to_have_value("grad_norm")

    run.finish({"schema_version": 1, "base": "b", "original": ["en"], "expanded": ["el"]})
    for page in (one, other):
        expect(page.get_by_role("region", name="At work")).to_have_count(0)
        expect(page.locator(".lpr-runs .lpr-state")).to_contain_text("finished")
    asked = []
    one.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    time.sleep(3 * runs.EVERY_SECONDS)
    one.locator("h1").text_content()  # lets playwright hand over what was asked for meanwhile
    assert asked == []
