"""What was gained and forgotten, in a browser: any two sides on the same documents, and refusals without a number."""

import re

import pytest
from playwright.sync_api import Page, expect

from helpers.sample_runs import make_run
from helpers.sample_scores import scored, write_lifelong, write_scores
from lpr_lab.dashboard import serve

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, str]:
    """Serve runs with scores by stage and document; returns the address, and ids by what is special about a run."""
    folder = tmp_path_factory.mktemp("measured") / "runs"
    runs = {
        "run": make_run(folder, title="Two stages"),
        "same": make_run(folder, title="Same texts"),
        "apart": make_run(folder, title="Other texts"),
    }
    write_scores(runs["run"])
    write_scores(runs["same"], seed=1)
    write_scores(runs["apart"], texts="other")
    runs["lifelong"] = write_lifelong(folder)
    return {"at": serve(folder, port=None, open_browser=False, block=False)} | {k: run.id for k, run in runs.items()}


def choose(page: Page, label: str, option: str | re.Pattern[str]) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).click()


def test_chart_and_table_show_one_data_set_at_a_time(open_page, stored):
    page = open_page(f"/retention?run={stored}")
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("Greek"))).to_contain_text("−21.8%")
    page.get_by_text("Dev text, same genre as training").click()
    expect(page.get_by_role("row", name=re.compile("Greek"))).to_contain_text("−25.3%")
    expect(page).to_have_url(re.compile("data=dev"))


def test_a_stage_chosen_as_before_is_in_table_and_address_and_comes_back(open_page, measured):
    page = open_page(f"/retention?run={measured['run']}", at=measured["at"])
    expect(page.get_by_text("Before: base. After: expanded.")).to_be_visible()
    choose(page, "Before", "G1 expand")
    expect(page.get_by_text("Before: G1 expand. After: expanded.")).to_be_visible()
    expect(page.get_by_role("columnheader", name="G1 expand")).to_be_visible()
    expect(page.locator(".lpr-changes tr", has_text="English")).to_contain_text("▼ better")  # the review repairs it
    expect(page).to_have_url(re.compile(r"stage2=G1(\+|%20)expand"))
    page.reload()
    expect(page.get_by_text("Before: G1 expand. After: expanded.")).to_be_visible()


def test_different_test_sets_are_refused_and_no_number_is_shown(open_page, measured):
    page = open_page(f"/retention?run={measured['run']}&run2={measured['same']}", at=measured["at"])
    expect(page.locator(".lpr-changes")).to_be_visible()
    choose(page, "Before", re.compile("Other texts"))
    alert = page.get_by_role("alert").filter(has_text="Not compared")
    expect(alert).to_contain_text("measured on different documents")
    for texts in ("", "other"):
        expect(alert).to_contain_text(scored(texts=texts)[0].fingerprint[:16])
    expect(page.locator(".lpr-changes")).to_have_count(0)
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(0)
    assert "%" not in page.locator(".lpr-finding").inner_text().split("Before")[0]


def test_a_run_that_was_not_measured_says_what_is_missing(open_page, tiny):
    page = open_page(f"/retention?run={tiny}")
    expect(page.get_by_role("heading", name="Not measured")).to_be_visible()
    expect(page.locator(".lpr-changes")).to_have_count(0)


def test_documents_that_moved_lead_to_our_own_prompt(open_page, measured):
    page = open_page(f"/retention?run={measured['run']}", at=measured["at"])
    expect(page.get_by_text(re.compile("of 120 documents need more bits than before"))).to_be_visible()
    expect(page.locator(".lpr-document")).to_have_count(20)
    page.locator(".lpr-halves a", has_text="Greek").first.click()
    expect(page).to_have_url(re.compile(rf"/compare\?run={measured['run']}&lang=el"))


def test_runs_on_other_texts_are_named_and_not_drawn(open_page, measured):
    page = open_page(f"/retention?run={measured['run']}", at=measured["at"])
    expect(page.get_by_text("on the same test sets", exact=False).first).to_be_visible()
    expect(page.get_by_role("link", name="Same texts")).to_be_visible()
    page.get_by_text("Runs that are not drawn, and why").click()
    expect(page.get_by_text(re.compile("Other texts.*its English test set is"))).to_be_visible()


def test_a_lifelong_run_is_shown_stage_after_stage(open_page, measured):
    page = open_page(f"/retention?run={measured['lifelong']}", at=measured["at"])
    expect(page.locator(".lpr-finding").first).to_contain_text(
        "What was known before changed by +3.3% at most (English)"
    )
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("Hungarian"))).to_contain_text("−16.1%")
    expect(page.get_by_label("Before", exact=True)).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "lifelong"])
def test_it_is_accessible_and_fits_a_phone(open_page, axe, measured, scheme, name):
    size = {"width": 360, "height": 780}
    page = open_page(f"/retention?run={measured[name]}", at=measured["at"], viewport=size, color_scheme=scheme)
    expect(page.locator(".lpr-document").first if name == "run" else page.locator(".lpr-table").first).to_be_visible()
    expect(page.get_by_label("Empty value")).to_have_count(0)  # gradio's placeholder until a chart is there
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page)
