"""Guesses of every layer on page `/routing`: read, walked by mouse and keys, stopped, found again by the address."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from helpers.cells import last_value
from helpers.served_expansion import SCRIPTS, halt_after_steps, serve_expansion

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def served(tmp_path_factory, tiny_model, tiny_tokenizer, sentences):
    folder = tmp_path_factory.mktemp("guesses")
    texts = folder / "texts.jsonl"
    rows = [
        {"text": text, "lang": code, "split": "dev" if text == sentences[code][-1] else "train"}
        for code in ("en", "el", "hu")
        for text in sentences[code]
    ]
    texts.write_text("\n".join(json.dumps(row) for row in rows))
    base = tiny_model("llama", num_layers=3)
    return serve_expansion(folder, base, tiny_tokenizer, SCRIPTS, corpus=str(texts))


@pytest.fixture(scope="module")
def known(served, tiny_tokenizer):
    import lpr_lab as lab

    _, run, model = served
    corpus = lab.load_corpus(run.config["corpus"], languages=["en", "el", "hu"])
    return lab.logit_lens(model, tiny_tokenizer, SCRIPTS["el"], "el", languages=["en", "el", "hu"], corpus=corpus)


def read_layers(open_page, served, text: str, **options) -> Page:
    at, run, _ = served
    page = open_page(f"/routing?run={run.id}&text={text}", at=at, **options)
    page.get_by_role("button", name="Read every layer").click()
    expect(page.get_by_role("status").filter(has_text="Done in")).to_be_visible()
    expect(page.locator("#lpr-guesses").get_by_role("grid")).to_be_visible()
    return page


def cell(page: Page, layer: int, token: int):
    return page.locator(f"#lpr-guesses td[data-p='{layer}'][data-t='{token}']")


def shares(page: Page, what: str) -> np.ndarray:
    """The percentages that the cells' labels say of something, [tokens, layers]; NaN where nothing is said."""
    labels = page.locator("#lpr-guesses td[data-p]").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    found = [re.search(rf"{what} ?[<>]?(\d+\.\d)%", label) for label in labels]
    return np.array([float(one[1]) / 100 if one else np.nan for one in found]).reshape(-1, 3)


def test_every_cell_says_what_the_library_says_and_a_chosen_one_shows_five_of_both_models(open_page, served, known):
    page = read_layers(open_page, served, "el")
    grid = page.locator("#lpr-guesses")
    for name, title in (("expanded", "Expanded model"), ("base", "Base")):
        grid.get_by_role("radio", name=title).check()
        expect(page).to_have_url(re.compile(f"guess={name}"))
        found = known.guesses[name]
        np.testing.assert_allclose(
            shares(page, "(?:space|character|token|scripts?|Greek|English|Hungarian),"),
            found.probs[:, :, 0].T,
            atol=6e-4,
        )
        np.testing.assert_allclose(shares(page, "new experts"), known.new_weight.T, atol=1.1e-3)
        right = [
            known.token_ids[t + 1 : t + 2] == [found.best[p, t]] for t in range(known.num_tokens) for p in range(3)
        ]
        labels = grid.locator("td[data-p]").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
        assert ["really follows" in label for label in labels] == right
    expect(grid.locator(".lpr-guesses-said")).to_contain_text("The base model settles")
    cell(page, 2, 4).click()
    expect(page).to_have_url(re.compile(r"guess=base\.2\.4"))
    panel = page.get_by_role("region", name="The likeliest next tokens, layer by layer")
    rows = panel.locator("tbody tr")
    assert rows.count() == 7
    for column, name in ((0, "expanded"), (1, "base")):
        found = known.guesses[name]
        said = [rows.nth(i).locator("td").nth(column).inner_text() for i in range(7)]
        numbers = [float(re.search(r"(\d+\.\d)%", text)[1]) / 100 for text in said]
        expected = [*found.probs[2, 4], found.next_prob[2, 4], found.final_prob[2, 4]]
        assert numbers == pytest.approx(expected, abs=1.1e-3)
        assert f"rank {found.next_rank[2, 4]}" in said[5] and f"rank {found.final_rank[2, 4]}" in said[6]
    again = open_page(page.url.removeprefix(served[0]), at=served[0])
    expect(cell(again, 2, 4)).to_have_attribute("aria-selected", "true")
    expect(again.locator("#lpr-guesses").get_by_role("radio", name="Base")).to_be_checked()
    expect(again.get_by_role("region", name="The likeliest next tokens, layer by layer")).to_be_visible()


def test_the_files_and_the_cell_of_the_view_give_the_same_numbers(open_page, served, known):
    page = read_layers(open_page, served, "el")
    at, query = served[0], page.url.partition("?")[2]
    index = page.request.get(f"{at}/data/routing/index.json?{query}").json()
    assert index["files"][:2] == ["guesses.csv", "guesses_by_layer.csv"] and "guesses.json" in index["files"]
    table = pd.read_csv(io.StringIO(page.request.get(f"{at}/data/routing/guesses.csv?{query}").text()))
    again = pd.read_csv(io.StringIO(last_value(index["cell"]).to_csv(index=False)))
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    pd.testing.assert_frame_equal(table, pd.read_csv(io.StringIO(known.to_frame().to_csv(index=False))), rtol=1e-4)
    record = page.request.get(f"{at}/data/routing/guesses.json?{query}").json()
    np.testing.assert_allclose(record["guesses"]["expanded"]["probs"], known.expanded.probs, atol=1e-5)


def test_a_text_of_one_s_own_is_read_too_and_another_text_hides_its_guesses(open_page, served):
    at, run, _ = served
    page = open_page(f"/routing?run={run.id}&text=own", at=at)
    page.get_by_label("Your text, in any language").fill("A letter came.")
    page.get_by_role("button", name="Trace this text").click()
    expect(page.get_by_text("not kept.")).to_be_visible()
    page.get_by_role("button", name="Read every layer").click()
    grid = page.locator("#lpr-guesses").get_by_role("grid")
    expect(grid).to_be_visible()
    expect(page).to_have_url(re.compile(r"text=own-\w+.*guess=expanded"))
    expect(grid.locator("tbody th").nth(2)).to_contain_text("A")
    read = grid.text_content()
    page.get_by_text("Greek", exact=True).first.click()
    # Guesses on the Greek text may be there, where another test had it read.
    page.wait_for_function("read => document.querySelector('#lpr-guesses [role=grid]')?.textContent !== read", arg=read)
    assert "guess" not in page.url


def test_the_grid_is_one_tab_stop_walked_by_arrows_and_enter_chooses(open_page, served, known):
    page = read_layers(open_page, served, "el")
    page.locator("#lpr-guesses").get_by_role("radio", name="Expanded model").focus()
    page.keyboard.press("Tab")
    expect(cell(page, 0, 0)).to_be_focused()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    expect(cell(page, 1, 2)).to_be_focused()
    expect(page.locator(".lpr-guesses-here")).to_contain_text("Layer 1, after token 3")
    expect(page.locator(".lpr-guesses-here")).to_contain_text(f"{100 * known.expanded.probs[1, 2, 0]:.1f}%")
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="The likeliest next tokens, layer by layer")).to_be_visible()
    expect(cell(page, 1, 2)).to_be_focused()
    expect(page).to_have_url(re.compile(r"guess=expanded\.1\.2"))
    page.keyboard.press("End")
    expect(cell(page, 2, 2)).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('[role=grid]')")


def test_the_causal_map_and_the_guesses_are_walked_each_by_itself(open_page, served):
    page = read_layers(open_page, served, "el")
    page.get_by_role("button", name="Work it out").click()
    expect(page.locator("#lpr-causal").get_by_role("grid")).to_be_visible()
    cell(page, 1, 2).click()
    page.locator("#lpr-causal td[data-p='1'][data-t='1']").click()
    expect(page).to_have_url(re.compile(r"cause=0\.2\.2"))
    expect(page).to_have_url(re.compile(r"guess=expanded\.1\.2"))
    expect(cell(page, 1, 2)).to_have_attribute("aria-selected", "true")


def test_reading_can_be_stopped_and_leaves_the_model_to_the_next(open_page, served, monkeypatch):
    from lpr_lab.measure.guesses import compute

    go_on, _ = halt_after_steps(monkeypatch, compute, "lens_steps")
    at, run, _ = served
    page = open_page(f"/routing?run={run.id}&text=th", at=at)
    page.get_by_role("button", name="Read every layer").click()
    expect(page.get_by_text(re.compile(r"of 6 layers"))).to_be_visible()
    page.locator("button", has_text="Stop").click()
    expect(page.get_by_text("Stopped; nothing was kept.")).to_be_visible()
    go_on.set()
    monkeypatch.undo()
    page.get_by_role("button", name="Read every layer").click()
    expect(page.locator("#lpr-guesses").get_by_role("grid")).to_be_visible()


@pytest.mark.parametrize(("text", "scheme"), [("ar", "light"), ("th", "dark")])
def test_it_is_accessible_fits_a_phone_and_every_script_is_whole(open_page, axe, served, text, scheme):
    page = read_layers(open_page, served, text, viewport={"width": 360, "height": 780}, color_scheme=scheme)
    cell(page, 0, 1).click()
    expect(page.get_by_role("region", name="The likeliest next tokens, layer by layer")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page)
