"""The causal map on page `/routing`: worked out, walked by mouse and keys, stopped, and found again by its address."""

import base64
import re

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from helpers.served_expansion import SCRIPTS, halt_after_steps, serve_expansion

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model, tiny_tokenizer):
    return serve_expansion(
        tmp_path_factory.mktemp("causal"), tiny_model("llama", num_layers=3), tiny_tokenizer, SCRIPTS
    )


@pytest.fixture(scope="module")
def known(served, tiny_tokenizer):
    from lpr_lab.measure.causal.compute import causal_map

    return causal_map(served[2], tiny_tokenizer, SCRIPTS["el"], "el")


def worked_out(open_page, served, text: str, **options) -> Page:
    at, run, _ = served
    page = open_page(f"/routing?run={run.id}&text={text}", at=at, **options)
    page.get_by_role("button", name="Work it out").click()
    expect(page.get_by_role("status").filter(has_text="Done in")).to_be_visible()
    expect(page.get_by_role("grid")).to_be_visible()
    return page


def cell(page: Page, place: int, token: int):
    """The cell of the layer in this place and of a token, both counted from 0; -1 is the whole text."""
    return page.locator(f"#lpr-causal td[data-p='{place}'][data-t='{token - 1 if token >= 0 else -1}']")


def bits(label: str | None) -> float:
    found = re.search(r"([+−])(\d+\.\d+) bits", label or "")
    assert found, label
    return float(found[2]) * (1 if found[1] == "+" else -1)


def test_every_cell_says_what_the_library_says_and_a_chosen_one_shows_both_distributions(
    open_page, served, known, tiny_tokenizer, tmp_path
):
    from lpr_lab.measure.causal.causal_map import Cell
    from lpr_lab.measure.causal.compute import next_tokens

    page = worked_out(open_page, served, "el")
    labels = page.locator("#lpr-causal td[data-p]").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    shown = np.array([bits(label) for label in labels]).reshape(known.num_tokens, 2)
    np.testing.assert_allclose(shown[0], known.of_layers(0), atol=0.006)
    np.testing.assert_allclose(shown[1:], known.switched_to(0)[:, 1:].T, atol=0.006)
    expect(page.locator(".lpr-causal-said")).to_contain_text("matters most")
    page.locator("#lpr-causal").get_by_role("radio", name="expert 2").check()
    expect(page).to_have_url(re.compile("cause=2"))
    expect(cell(page, 0, 3)).to_have_attribute("aria-label", re.compile("does not have this expert"))
    cell(page, 1, 3).click()
    expect(page).to_have_url(re.compile(r"cause=2\.2\.3"))
    found = next_tokens(served[2], tiny_tokenizer, known, Cell(2, 2, 3))
    panel = page.get_by_role("region", name="What the model expects there")
    expect(panel).to_contain_text(f"{found.bits[0]:.2f} bits as it is, {found.bits[1]:.2f} with expert 2 in layer 2")
    assert panel.locator("tbody tr").count() == len(found.token_ids)
    again = open_page(page.url.removeprefix(served[0]), at=served[0])
    expect(cell(again, 1, 3)).to_have_attribute("aria-selected", "true")
    expect(again.locator("#lpr-causal").get_by_role("radio", name="expert 2")).to_be_checked()
    expect(again.get_by_role("region", name="What the model expects there")).to_be_visible()
    link = page.get_by_role("link", name="Save as CSV").get_attribute("href") or ""
    (tmp_path / "map.csv").write_bytes(base64.b64decode(link.partition("base64,")[2]))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "map.csv"), known.to_frame(), atol=1e-4, rtol=1e-4)


def test_the_map_is_one_tab_stop_walked_by_arrows_and_enter_asks(open_page, served, known):
    page = worked_out(open_page, served, "el")
    page.locator("#lpr-causal").get_by_role("radio", name="expert 0").focus()
    page.keyboard.press("Tab")
    expect(cell(page, 0, -1)).to_be_focused()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    expect(cell(page, 1, 2)).to_be_focused()
    assert bits(cell(page, 1, 2).get_attribute("aria-label")) == pytest.approx(known.change[1, 0, 2], abs=0.006)
    expect(page.locator(".lpr-causal-here")).to_contain_text("Layer 2, token 3")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="What the model expects there")).to_be_visible()
    expect(cell(page, 1, 2)).to_be_focused()
    page.keyboard.press("Home")
    expect(cell(page, 0, 2)).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('[role=grid]')")


def test_a_map_can_be_stopped_and_leaves_the_model_to_the_next(open_page, served, monkeypatch):
    from lpr_lab.measure.causal import compute

    go_on, taken = halt_after_steps(monkeypatch, compute, "causal_steps", batch_tokens=1)
    at, run, _ = served
    page = open_page(f"/routing?run={run.id}&text=th", at=at)
    page.get_by_role("button", name="Work it out").click()
    expect(page.get_by_text(re.compile(r"of 6 switches"))).to_be_visible()
    page.locator("button", has_text="Stop").click()
    expect(page.get_by_text("Stopped; nothing was kept.")).to_be_visible()
    assert len(taken) < 6
    go_on.set()
    monkeypatch.undo()
    page.get_by_role("button", name="Work it out").click()
    expect(page.get_by_role("grid")).to_be_visible()


@pytest.mark.parametrize(("text", "scheme"), [("ar", "light"), ("th", "dark")])
def test_it_is_accessible_fits_a_phone_and_every_script_is_whole(open_page, axe, served, text, scheme):
    page = worked_out(open_page, served, text, viewport={"width": 360, "height": 780}, color_scheme=scheme)
    cell(page, 0, 1).click()
    expect(page.get_by_role("region", name="What the model expects there")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page)
