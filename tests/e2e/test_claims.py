"""The page "Do the claims hold?" in a browser: read by day and night, on a phone, and followed to a run."""

import re

import pytest
from playwright.sync_api import expect

from helpers.sample_scorecard import scorecard_runs
from lpr_lab.dashboard import serve
from lpr_lab.experiments.scorecard import plan

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """The address of an app on the runs of a scorecard."""
    folder = tmp_path_factory.mktemp("decided") / "runs"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plan.CARDS, "small-world", scorecard_runs(folder))
        yield serve(folder, port=None, open_browser=False, block=False)


@pytest.mark.parametrize(
    ("address", "scheme", "articles"),
    [("/claims", "light", 22), ("/claims", "dark", 22), ("/claims/bases", "light", 15), ("/claims/bases", "dark", 15)],
)
def test_it_is_accessible_and_fits_a_phone(open_page, axe, decided, address, scheme, articles):
    page = open_page(address, at=decided, color_scheme=scheme)
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    expect(page.get_by_role("article")).to_have_count(articles)
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    assert not axe(page, "html", strict=True)
    page.set_viewport_size({"width": 360, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_verdict_leads_to_its_claim_on_that_base_and_back_to_all_of_them(open_page, decided):
    page = open_page("/claims/bases", at=decided)
    page.get_by_role("row", name="10. The LPR loss").get_by_role("cell").first.get_by_role("link").click()
    expect(page).to_have_title("Do the claims hold? · lpr_lab")
    expect(page).to_have_url(re.compile(r"base=small-world#claim-10$"))
    page.get_by_role("link", name="side by side").click()
    expect(page).to_have_title("Do the claims hold on every base? · lpr_lab")


def test_a_row_leads_to_its_runs_and_every_page_leads_here(open_page, decided):
    page = open_page("/", at=decided)
    page.get_by_role("link", name="Do the claims hold?").first.click()
    expect(page).to_have_title("Do the claims hold? · lpr_lab")
    page.locator("#claim-10").get_by_role("link").first.click()
    expect(page).to_have_title("Runs · lpr_lab")
