"""Ticked runs over one another and alerts, seen by a browser: by mouse and by keyboard, in any script, at 360 px."""

import pytest
from playwright.sync_api import expect

from lpr_lab.dashboard import serve
from lpr_lab.runs.run import Run, short_id
from lpr_lab.runs.watch import alerts
from lpr_lab.runs.watch.alerts import Alert

pytestmark = pytest.mark.e2e

TITLES = ("Μαθαίνει ελληνικά", "يتعلم العربية", "เรียนภาษาไทย")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared") / "runs"
    config = {"base": "b", "original": ["en"], "expanded": ["el"]}
    made = [Run.create(folder, kind="expansion", slug="x", title=title, config=config) for title in TITLES]
    for place, run in enumerate(made, 1):
        for stage in ("expand", "review")[: 1 + (place > 1)]:
            for step in range(1, 6):
                numbers = {"loss": 4 / step, "lm_loss": 3 / step, "least_load": 1 / step}
                run.metrics.log({"step": step, "tokens": 1000 * place * step, "t": step, **numbers}, stage=stage)
        run.finish({"schema_version": 1, **config})
    alerts.add(made[0], Alert(rule="collapse", stage="expand", step=5, text="An expert collapsed <i>here</i>."))
    return made


@pytest.fixture(scope="module")
def at(runs):
    return serve(runs[0].path.parent, port=None, open_browser=False, block=False)


def box(page, title):
    return page.get_by_role("checkbox", name=f"Compare {title}")


def drawn(page):
    """Return the points that plotly drew, by legend name and panel."""
    return page.evaluate(
        """() => Object.fromEntries(document.querySelector(".js-plotly-plot").calcdata.map(
        one => [one[0].trace.name + " " + one[0].trace.xaxis, one.map(point => [point.x, point.y])]))"""
    )


def test_ticked_runs_are_drawn_over_one_another_by_mouse_and_by_keyboard(open_page, axe, runs, at):
    page = open_page("/", at=at)
    box(page, TITLES[0]).click()
    expect(box(page, TITLES[0])).to_be_checked()
    box(page, TITLES[1]).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="lm_loss of 2 runs")).to_be_visible()
    one, other = (short_id(run.id) for run in runs[:2])
    page.wait_for_function("() => document.querySelector('.js-plotly-plot')?.data?.length === 3")
    short, long = ([[1000 * place * step, 3 / step] for step in range(1, 6)] for place in (1, 2))
    assert drawn(page) == {f"{one} x": short, f"{other} x": long, f"{other} x2": long}
    rows = page.locator(".lpr-curve-table tbody tr")
    expect(rows).to_have_count(3)
    # 3/5 at the end; after the 5,000 tokens of the shorter run the other had made two steps.
    expect(rows.nth(0)).to_contain_text("0.6")
    expect(rows.nth(1)).to_contain_text("1.5")
    assert not axe(page)
    again = open_page("/" + page.evaluate("location.search"), at=at)
    again.wait_for_function("() => document.querySelector('.js-plotly-plot')?.data?.length === 3")
    assert drawn(again) == drawn(page)


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_narrow_page_and_the_alert_is_said(open_page, axe, runs, at, width):
    names = ",".join(run.id for run in runs)
    page = open_page(f"/?run={runs[0].id}&runs={names}&view=least_load", at=at)
    page.set_viewport_size({"width": width, "height": 900})
    expect(page.get_by_role("heading", name="least_load of 3 runs")).to_be_visible()
    expect(page.get_by_role("note").filter(has_text="collapsed <i>here</i>")).to_be_visible()
    expect(page.locator(".lpr-runs .lpr-alert")).to_have_text("▲ 1 alert")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not axe(page)
