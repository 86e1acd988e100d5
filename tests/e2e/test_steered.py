"""Steered generation on page `/compare`: a side whose experts are forced, and where the tokens of both went."""

import re

import pytest
from playwright.sync_api import expect

from helpers.small_expansion import make_expansion
from lpr_lab.dashboard import serve

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("steered")
    run, _ = make_expansion(folder, tiny_model("llama", num_layers=3), tiny_tokenizer, new_experts=(1, 0, 2))
    return serve(folder / "runs", port=None, open_browser=False, block=False), run.id


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_a_side_forced_to_the_original_expert_writes_as_the_base_and_its_tokens_say_so(
    open_page, axe, served, width, scheme
):
    at, run = served
    page = open_page(
        f"/compare?run={run}&lang=el", at=at, viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page.get_by_role("button", name="Steer the experts of a side").click()
    page.locator("label", has_text="Force").nth(1).click()
    page.get_by_label("Prompt, continued by both").fill("Το πρωί")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("status").filter(has_text="Done in")).to_be_visible()
    left, right = page.locator("#lpr-pair .lpr-said").all_inner_texts()
    assert left == right and left.startswith("Το πρωί")
    expect(page.locator("#lpr-pair")).to_contain_text("expert 0 forced in all layers")
    page.get_by_role("button", name="Show where the tokens went").click()
    strips = page.locator(".lpr-written .lpr-strip")
    expect(strips).to_have_count(2)
    expect(strips.nth(1).locator(".lpr-grid [data-row='0'] button").first).to_have_text("100%")
    strips.nth(1).locator(".lpr-text [role=option]:not(:empty)").nth(1).click()
    expect(strips.nth(1).locator(".lpr-token")).to_contain_text(re.compile("base"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not axe(page)


def test_a_switch_in_the_middle_of_a_sentence_is_seen_in_the_strip(open_page, served):
    at, run = served
    page = open_page(f"/compare?run={run}&lang=el", at=at)
    page.get_by_label("Left").first.click()
    page.get_by_role("option", name="expanded model").first.click()
    page.get_by_role("button", name="Steer the experts of a side").press("Enter")
    page.get_by_role("radio", name="As it is").nth(1).focus()
    page.keyboard.press("ArrowRight")
    after = page.get_by_label("Right: begins after so many written tokens")
    after.fill("3")
    after.press("Tab")
    page.get_by_label("Prompt, continued by both").fill("Το πρωί")
    page.get_by_role("button", name="Continue").press("Enter")
    expect(page.get_by_role("status").filter(has_text="Done in")).to_be_visible()
    expect(page.locator("#lpr-pair")).to_contain_text("expert 0 forced in all layers after 3 tokens")
    page.get_by_role("button", name="Show where the tokens went").press("Enter")
    strips = page.locator(".lpr-written .lpr-strip")
    expect(strips).to_have_count(2)
    tokens = strips.nth(1).locator(".lpr-text [role=option]:not(:empty)")
    tokens.first.click()
    expect(strips.nth(1)).to_contain_text(re.compile(r"All layers: original expert \d{1,2}(\.\d+)?%"))
    # The pass over a token chooses the next one: from that which chose the fourth on, all goes to the original expert.
    tokens.last.press("End")
    expect(strips.nth(1)).to_contain_text("All layers: original expert 100%")
