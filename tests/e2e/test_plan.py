"""A plan is made by mouse or keyboard, kept in the address, and taken along."""

import re

import pytest
from playwright.sync_api import Page, expect

from helpers.sample_runs import make_plan_run
from lpr_lab.dashboard import serve
from lpr_lab.experiments.notebooks.parameters import read_notebook, resolve
from lpr_lab.experiments.notebooks.run import notebooks_dir

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> tuple[str, str]:
    """The address of an app on a planning run, and the run's id."""
    folder = tmp_path_factory.mktemp("planned") / "runs"
    run = make_plan_run(folder, num_layers=12, tokens=5000)
    return serve(folder, port=None, open_browser=False, block=False), run.id


def layer(page: Page, number: int):
    return page.get_by_role("spinbutton", name=f"Layer {number}", exact=True)


def counts(page: Page) -> list[int]:
    return [int(text) for text in page.locator(".lpr-plan-count b").all_inner_texts()]


def finding(page: Page):
    return page.locator(".lpr-finding")


def test_keys_change_a_layer_the_costs_follow_and_the_focus_stays(open_page, planned):
    address, _ = planned
    page = open_page("/plan?budget=24", at=address)
    expect(finding(page)).to_contain_text("24 new experts")
    before = counts(page)
    layer(page, 0).focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    after = [before[0] - 1, before[1] + 2, *before[2:]]
    expect(finding(page)).to_contain_text("25 new experts")
    assert counts(page) == after
    expect(layer(page, 0)).to_be_focused()
    expect(layer(page, 1)).to_have_attribute(
        "aria-valuetext", re.compile(rf"^{after[1]} new experts, similarity 0\.\d\d")
    )
    expect(page.get_by_role("radio", name="By hand")).to_be_checked()
    expect(page).to_have_url(re.compile(f"experts={','.join(map(str, after))}"))
    page.keyboard.press("Home")
    expect(page.get_by_text("1 of 12 layer gets no new expert")).to_be_visible()


def test_what_is_said_of_a_refused_value_goes_when_the_control_shows_another(open_page, planned):
    page = open_page("/plan?budget=24&topk=2", at=planned[0])
    box = page.get_by_label("At work on a token (top-k)")
    box.fill("1")
    box.press("Enter")
    refused = page.get_by_text("Top-k is 1; expected")
    expect(refused).to_be_visible()
    layer(page, 0).focus()
    page.keyboard.press("ArrowUp")
    expect(box).to_have_value("2")
    expect(refused).to_have_count(0)


def test_a_copied_address_and_the_back_button_restore_the_plan(open_page, planned):
    address, run = planned
    numbers = "3,0,0,1,0,0,0,0,0,0,0,2"
    page = open_page(f"/plan?run={run}&rule=own&experts={numbers}&topk=3", at=address)
    expect(page.locator(".lpr-plan-count b")).to_have_text(numbers.split(","))
    expect(page.get_by_label("At work on a token (top-k)")).to_have_value("3")
    expect(page.get_by_text("smaller than the number of layers: 9 of 12")).to_be_visible()
    page.get_by_text("Evenly", exact=True).click()
    expect(page).to_have_url(re.compile("rule=uniform"))
    expect(page.get_by_role("radio", name="Evenly")).to_be_checked()
    page.go_back()
    expect(page.locator(".lpr-plan-count b")).to_have_text(numbers.split(","))


def test_rules_and_budget_divide_anew(open_page, planned):
    address, _ = planned
    page = open_page("/plan?budget=24", at=address)
    expect(page.get_by_text("Similarity was measured on 5")).to_be_visible()
    similar = counts(page)
    page.get_by_text("Where they are alike", exact=True).click()
    expect(page).to_have_url(re.compile("rule=inverse"))
    expect(page.locator(".lpr-plan-count b").first).to_have_text("1")
    assert sorted(counts(page)) == sorted(similar) and counts(page) != similar
    page.get_by_label("New experts in all").fill("36")
    page.keyboard.press("Enter")
    expect(finding(page)).to_contain_text("36 new experts")
    assert sum(counts(page)) == 36


def test_a_similarity_of_ones_own_is_divided_by_and_nonsense_is_refused(open_page, planned):
    address, _ = planned
    page = open_page("/plan?budget=12", at=address)
    page.get_by_text("A similarity of your own").click()
    box = page.get_by_label("One number above 0 per layer")
    box.fill("0.2 0.4")
    page.get_by_role("button", name="Divide by this").click()
    expect(page.get_by_text("That is 2 numbers, and the base has 12 layers.")).to_be_visible()
    box.fill("0.1" + " 1" * 11)
    page.get_by_role("button", name="Divide by this").click()
    expect(page.get_by_text("Similarity is the list that was typed below.")).to_be_visible()
    assert counts(page)[0] > 4
    other = open_page(page.url.removeprefix(address), at=address)
    assert counts(other) == counts(page)


def test_the_saved_plan_is_what_the_notebook_takes(open_page, planned, tmp_path):
    address, _ = planned
    page = open_page("/plan?budget=30", at=address)
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Save plan.yaml").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    assert file.name == "plan.yaml"
    taken = resolve(read_notebook(notebooks_dir() / "00_quickstart.ipynb").parameters, (), file)
    assert taken["allocation"] == counts(page) and sum(taken["allocation"]) == 30


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_editor_is_accessible_and_fits_a_phone(open_page, axe, planned, scheme):
    address, _ = planned
    page = open_page("/plan", at=address, color_scheme=scheme)
    expect(layer(page, 0)).to_be_visible()
    assert not axe(page)
    page.set_viewport_size({"width": 360, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box = page.locator(".lpr-plan-layer button").first.bounding_box()
    assert box["width"] >= 24 and box["height"] >= 24
