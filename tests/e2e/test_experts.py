"""The page /experts in a browser: chosen by mouse and keyboard, kept in the address, counted on demand, cancelled."""

import re
import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from helpers.sample_experts import write_expert_tables
from helpers.sample_runs import make_run
from lpr_lab.dashboard import serve
from lpr_lab.runs.find import list_runs, record_config
from lpr_lab.runs.run import Run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory, runs_dir, tiny) -> Path:
    """Three runs: one with all tables, one with its load only, one with weights and no table at all."""
    folder = tmp_path_factory.mktemp("experts") / "runs"
    shutil.copytree(runs_dir / tiny, folder / tiny)
    make_run(folder, title="Load only")
    write_expert_tables(make_run(folder, title="Everything counted"))
    return folder


@pytest.fixture(scope="module")
def at(folder) -> str:
    return serve(folder, port=None, open_browser=False, block=False)


def named(folder: Path, title: str) -> str:
    return next(run.id for run in list_runs(folder) if run.title == title)


@pytest.fixture(scope="module")
def counted(folder) -> str:
    return named(folder, "Everything counted")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("title", ["Everything counted", "Load only"])
def test_the_page_is_accessible_by_day_and_night(open_page, axe, at, folder, scheme, title):
    page = open_page(f"/experts?run={named(folder, title)}&layer=0", at=at, color_scheme=scheme)
    expect(page).to_have_title("Experts · lpr_lab")
    expect(page.locator("h1")).to_have_count(1)
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.get_by_label("Empty value")).to_have_count(0)
    assert not axe(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(open_page, at, counted, scheme):
    page = open_page(
        f"/experts?run={counted}&layer=2", at=at, viewport={"width": 360, "height": 780}, color_scheme=scheme
    )
    expect(page.locator(".lpr-ex-panel")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_panel_chooses_its_layer_by_mouse_and_by_keyboard(open_page, at, counted):
    page = open_page(f"/experts?run={counted}", at=at)
    page.locator(".lpr-ex-panel", has_text="2").click()
    expect(page).to_have_url(re.compile("layer=2"))
    expect(page.get_by_role("heading", name=re.compile("^Layer 2: "))).to_be_visible()
    expect(page.get_by_label("Layer", exact=True)).to_have_value("2 (4 experts)")
    page.get_by_role("link", name=re.compile("^Layer 1: ")).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("^Layer 1: "))).to_be_visible()
    expect(page).to_have_url(re.compile("layer=1"))


def test_choosing_an_expert_shows_what_it_speaks_for(open_page, at, counted):
    page = open_page(f"/experts?run={counted}&layer=2", at=at)
    page.get_by_role("link", name="Expert 3", exact=True).click()
    expect(page.get_by_role("heading", name="What expert 3 speaks for")).to_be_visible()
    expect(page.get_by_text("No token went here first three times in English")).to_be_visible()
    expect(page).to_have_url(re.compile("expert=3"))
    page.get_by_role("link", name="Expert 0", exact=True).click()
    expect(page.get_by_role("heading", name="What expert 0, the original speaks for")).to_be_visible()


def test_controls_write_the_address_and_the_address_restores_them(open_page, at, counted):
    page = open_page(f"/experts?run={counted}", at=at)
    page.get_by_role("radio", name="First choices").check(force=True)
    expect(page).to_have_url(re.compile("view=first"))
    page.get_by_role("checkbox", name="English").uncheck(force=True)
    expect(page).to_have_url(re.compile("langs=es,el,hu,tr"))
    page.get_by_label("Stage", exact=True).click()
    page.get_by_role("option", name="G1 expand").click()
    expect(page).to_have_url(re.compile(r"stage=G1(\+|%20)expand"))
    page.locator(".lpr-ex-panel", has_text="3").click()
    expect(page).to_have_url(re.compile("layer=3"))
    again = open_page(page.url.removeprefix(at), at=at)
    expect(again.get_by_role("radio", name="First choices")).to_be_checked()
    expect(again.get_by_role("checkbox", name="English")).not_to_be_checked()
    expect(again.get_by_label("Stage", exact=True)).to_have_value("G1 expand")
    expect(again.get_by_role("heading", name=re.compile("^Layer 3: "))).to_be_visible()
    expect(again.locator(".lpr-ex-languages").get_by_text("English")).to_have_count(0)


def test_a_cell_leads_to_the_text_of_its_language_at_that_layer(open_page, at, counted):
    page = open_page(f"/experts?run={counted}&layer=2", at=at)
    page.get_by_role("link", name=re.compile("^Greek, expert 1: ")).click()
    expect(page).to_have_title("Routing · lpr_lab")
    expect(page).to_have_url(re.compile(rf"/routing\?run={counted}.*lang=el.*layer=2"))
    expect(page.locator(".lpr-text[lang=el]")).to_be_visible()


def test_hostile_tokens_stay_text(open_page, at, counted):
    page = open_page(f"/experts?run={counted}&layer=0&expert=1", at=at)
    expect(page.get_by_text("<img·src=x·onerror=boom()>").first).to_be_visible()


def test_figures_have_a_table_that_says_the_same(open_page, at, counted):
    page = open_page(f"/experts?run={counted}", at=at)
    folds = page.get_by_text("Show as a table")
    expect(folds).to_have_count(4)
    for fold in folds.all():
        fold.click()
    expect(page.get_by_role("columnheader", name="Shuffled, mean")).to_be_visible()
    expect(page.get_by_role("columnheader", name="original languages", exact=True)).to_be_visible()


def test_a_run_with_its_load_only_says_what_was_not_measured_and_how_to_get_it(open_page, at, folder):
    page = open_page(f"/experts?run={named(folder, 'Load only')}", at=at)
    expect(page.get_by_text("None of the 60 experts is idle")).to_be_visible()
    expect(page.locator(".lpr-ex-panel")).to_have_count(30)
    expect(page.get_by_role("heading", name="Not measured", exact=True)).to_be_visible()
    expect(page.locator("section", has_text="Not measured").get_by_text("lpr-lab demo").last).to_be_visible()
    expect(page.get_by_role("button", name="Count now")).to_have_count(0)


@pytest.fixture
def with_text(folder, tiny, tiny_corpus, monkeypatch) -> Run:
    """The run with weights, with a text to count on."""
    from lpr_lab.experiments import expert_tables

    run = Run(folder / tiny)
    settings = {**run.config, "corpus": "demo", "expanded": ["el"], "original": ["en"], "eval_tokens_per_language": 200}
    (run.path / "config.yaml").unlink(missing_ok=True)
    record_config(run, settings)
    monkeypatch.setattr(expert_tables, "corpus_of", lambda *_, **__: tiny_corpus)
    return Run(run.path)


def test_counting_can_be_cancelled_leaving_nothing_and_then_done(open_page, at, with_text, monkeypatch):
    from lpr_lab.experiments import expert_tables

    real = expert_tables.read_stage

    def slowly(*arguments, **options):
        time.sleep(1)
        real(*arguments, **options)

    monkeypatch.setattr(expert_tables, "read_stage", slowly)
    page = open_page(f"/experts?run={with_text.id}", at=at)
    expect(page.get_by_role("heading", name="Not counted yet")).to_be_visible()
    page.get_by_role("button", name="Count now").click()
    expect(page.get_by_role("status").filter(has_text=re.compile("Counting [1-9]"))).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status").filter(has_text="Cancelled; nothing was written.")).to_be_visible()
    assert not with_text.tables.names()

    monkeypatch.setattr(expert_tables, "read_stage", real)
    page.get_by_role("button", name="Count now").click()
    expect(page.get_by_role("status").filter(has_text="Counted in")).to_be_visible()
    expect(page.locator(".lpr-ex-panel")).to_have_count(3)
    expect(page.get_by_role("heading", name=re.compile("What expert 1 speaks for"))).to_be_visible()
    assert "expert_tokens" in with_text.tables.names()
