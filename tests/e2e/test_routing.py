"""Page `/routing` as people meet it: any script, by mouse and keyboard, stages and runs side by side, and what-ifs."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from helpers.sample_runs import make_trace
from lpr_lab.dashboard import serve
from lpr_lab.runs.run import Run

pytestmark = pytest.mark.e2e

EMOJI = "👩🏽‍🚀 👨‍👩‍👧‍👦 🇬🇷🇧🇩 e\u0301 ｱ 🏳️‍🌈"
SENTENCE = "A letter came this morning, but nobody has read it yet."


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model, tiny_tokenizer, sentences) -> Path:
    """Two runs from one base, each with two stages, weights and traces; the first also holds texts in many scripts."""
    from lpr_lab.model.bases.load import load_base

    base_folder = tmp_path_factory.mktemp("routing-base")
    tiny_model("llama", num_layers=4).save_pretrained(base_folder)
    tiny_tokenizer.save_pretrained(base_folder)
    folder = tmp_path_factory.mktemp("routing") / "runs"
    for title, seed in (("Second seed", 2), ("First seed", 1)):
        base, tokenizer = load_base(str(base_folder))
        run = _reviewed(folder, title, seed, base, tokenizer, str(base_folder))
    extra = {code: sentences[code][2] for code in ("ar", "hi", "bn", "th", "zh")}
    extra |= {"he": "הדייג יצא לים עם שחר.", "emoji": EMOJI, "long": "Ψ" * 10_000}
    for name, text in extra.items():
        run.traces.write(name, make_trace(text, name if len(name) == 2 else None, num_layers=4, num_experts=4))
    return folder


def _reviewed(folder: Path, title: str, seed: int, base, tokenizer, base_name: str) -> Run:
    import torch

    from lpr_lab.measure.routing import trace
    from lpr_lab.method.upcycle import upcycle
    from lpr_lab.model.adapter import moe_layers
    from lpr_lab.model.formats.save_load import save_expansion
    from lpr_lab.model.stages import enter_stage, stage_names

    model = upcycle(base, (1, 3, 0, 2), router_bias=True)
    generator = torch.Generator().manual_seed(seed)
    for step in ("expand", "review"):
        if step == "review":
            enter_stage(model, step)
        with torch.no_grad():
            for layer in moe_layers(model):
                for parameter in [*layer.router.parameters(), *layer.stacks[0].parameters()]:
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    config = {"recipe": "moe_lpr", "base": base_name, "original": ["en"], "expanded": ["el"]}
    run = Run.create(folder, kind="expansion", slug=f"seed{seed}", title=title, config=config)
    save_expansion(model, run.paths.checkpoint)
    for code, text in (("en", SENTENCE), ("el", "Το πρωί άνοιξα το παράθυρο και είδα τη θάλασσα.")):
        run.traces.write(code, trace(model, tokenizer, text, code, stages=stage_names(model)))
    run.finish({"schema_version": 1, **config})
    return run


@pytest.fixture(scope="module")
def at(folder) -> str:
    return serve(folder, port=None, open_browser=False, block=False)


@pytest.fixture(scope="module")
def first(folder) -> str:
    return next(path.name for path in folder.iterdir() if "seed1" in path.name)


@pytest.fixture(scope="module")
def second(folder) -> str:
    return next(path.name for path in folder.iterdir() if "seed2" in path.name)


def option(page: Page, token: int):
    return page.locator(f"#lpr-text .lpr-text [role=option][data-i='{token}']")


def cell(page: Page, layer: int, expert: int):
    return page.locator(f"#lpr-text .lpr-grid button[data-l='{layer}'][data-e='{expert}']")


def dimmed(page: Page) -> list[int]:
    """The tokens that step back, in tokens mode, where each is one chip."""
    chips = page.locator("#lpr-text .lpr-chip.lpr-dim")
    return [int(i) for i in chips.evaluate_all("all => all.map(e => e.dataset.i)")]


def went_to(folder: Path, run: str, text: str, layer: int, expert: int) -> set[int]:
    trace = Run(folder / run).traces.read(text)
    row = trace.layers.tolist().index(layer)
    return {i for i in range(trace.num_tokens) if trace.is_text[i] and trace.first_choice[row, i] == expert}


# ----------------------------------------------------------------------------------------------- any script


WIDTHS = """async paragraph => {
    await document.fonts.ready;
    const plain = paragraph.cloneNode(false);
    plain.textContent = paragraph.textContent;
    paragraph.after(plain);
    const width = (element) => {
        const range = document.createRange();
        range.selectNodeContents(element);
        return range.getBoundingClientRect().width;
    };
    const mark = paragraph.querySelector(".lpr-special").getBoundingClientRect().width;
    const both = [width(paragraph) - mark, width(plain)];
    plain.remove();
    return both;
}"""
"""How wide a text is in tokens, and without."""


@pytest.mark.parametrize("name", ["ar", "he", "hi", "bn", "th", "zh", "emoji"])
def test_every_script_is_whole_and_joined_in_reading_mode_and_every_byte_is_there_in_tokens_mode(
    open_page, at, first, folder, name
):
    trace = Run(folder / first).traces.read(name)
    page = open_page(f"/routing?run={first}&text={name}", at=at)
    shown = page.locator("#lpr-text .lpr-text")
    assert shown.evaluate("e => e.textContent") == trace.text
    if name in ("ar", "hi", "bn", "he"):  # tokens do not change how letters join
        in_tokens, plain = shown.evaluate(WIDTHS)
        assert abs(in_tokens - plain) / plain < 0.01
    page.get_by_text("Tokens", exact=True).click()
    expect(page.locator("#lpr-text .lpr-chip")).to_have_count(trace.num_tokens)
    page.locator("#lpr-text .lpr-chip").nth(1).click()
    shown = page.locator("#lpr-text .lpr-token dd").nth(1).inner_text()
    assert trace.token_bytes[1] is not None and shown.startswith(trace.token_bytes[1].hex(" ").upper())


def test_ten_thousand_characters_are_cut_with_a_notice_and_stay_quick(open_page, at, first):
    page = open_page(f"/routing?run={first}&text=long", at=at)
    expect(page.get_by_text(re.compile(r"Showing the first 2,048 of [\d,]+ tokens"))).to_be_visible()
    took = page.evaluate(
        "() => { const t = performance.now(); document.querySelector('.lpr-grid button[data-e=\\'0\\']').click();"
        " return performance.now() - t; }"
    )
    assert took < 1500


# -------------------------------------------------------------------------------------- layers and experts


def test_a_cell_picks_out_its_tokens_the_address_says_so_and_back_undoes_it(open_page, at, first, folder):
    page = open_page(f"/routing?run={first}&text=en&mode=tokens", at=at)
    cell(page, 1, 2).click()
    expect(page).to_have_url(re.compile("layer=1&expert=2"))
    wanted = went_to(folder, first, "en", 1, 2)
    everyone = set(range(Run(folder / first).traces.read("en").num_tokens))
    assert set(dimmed(page)) == everyone - wanted
    expect(page.locator("#lpr-text .lpr-picked")).to_contain_text(f"Layer 1, expert 2: {len(wanted)} of")
    cell(page, 3, 0).click()
    expect(page).to_have_url(re.compile("layer=3&expert=0"))
    page.go_back()
    expect(page).to_have_url(re.compile("layer=1&expert=2"))
    assert set(dimmed(page)) == everyone - wanted
    expect(cell(page, 1, 2)).to_have_attribute("aria-pressed", "true")
    page.go_back()
    expect(page.locator("#lpr-text .lpr-picked")).to_be_hidden()
    assert dimmed(page) == []
    page.go_forward()
    expect(cell(page, 1, 2)).to_have_attribute("aria-pressed", "true")


def test_a_copied_address_shows_the_same_cell_layer_and_token(open_page, at, first):
    page = open_page(f"/routing?run={first}&text=en&layer=1&expert=1&tok=4", at=at)
    expect(cell(page, 1, 1)).to_have_attribute("aria-pressed", "true")
    expect(option(page, 4)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("slider", name="Layer")).to_have_attribute("aria-valuetext", re.compile("^Layer 1:"))
    expect(page.locator("#lpr-text .lpr-whose")).to_contain_text("Token 5")


def test_the_table_is_one_tab_stop_walked_by_arrows_and_never_a_trap(open_page, at, first):
    page = open_page(f"/routing?run={first}&text=en", at=at)
    page.get_by_role("slider", name="Layer").focus()
    page.keyboard.press("Tab")
    expect(cell(page, 0, 0)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(cell(page, 1, 2)).to_be_focused()
    page.keyboard.press("ArrowDown")  # layer 2 is dense, layer 3 has experts 0 to 2
    expect(cell(page, 3, 2)).to_be_focused()
    page.keyboard.press("Enter")
    expect(cell(page, 3, 2)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#lpr-text .lpr-live")).to_contain_text("Layer 3, expert 2")
    expect(cell(page, 3, 2)).to_be_focused()
    page.keyboard.press("Escape")
    expect(cell(page, 3, 2)).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("Tab")
    assert page.evaluate("!document.activeElement.closest('.lpr-grid')")


def test_one_token_has_its_way_beside_the_table_and_a_line_over_the_layers(open_page, at, first, folder):
    trace = Run(folder / first).traces.read("en")
    page = open_page(f"/routing?run={first}&text=en&tok=3&layer=1", at=at)
    row = page.locator("#lpr-text .lpr-grid tr[data-row='1'] > td")
    texts = row.all_inner_texts()[-5:]
    assert trace.router_probs is not None
    order = trace.router_probs[1, 3].argsort()[::-1]
    assert texts[0] == str(order[0]) == str(trace.first_choice[1, 3]) and texts[2] == str(order[1])
    assert float(texts[1].strip("<>%")) == pytest.approx(100 * trace.router_probs[1, 3].max(), abs=0.6)
    expect(
        page.get_by_role("img", name=re.compile("Probability of the original expert over the layers"))
    ).to_be_visible()
    expect(page.locator("#lpr-text .lpr-token")).to_contain_text("Router")
    assert page.locator("#lpr-text .lpr-went").count() == len(trace.layers)


# ------------------------------------------------------------------------------------ stages and second runs


def test_before_and_after_review_are_two_choices_and_back_returns(open_page, at, first):
    page = open_page(f"/routing?run={first}&text=en", at=at)
    after = page.locator(".lpr-finding").inner_text()
    page.locator("label", has_text="G1 expand").click()
    expect(page).to_have_url(re.compile(r"stage=G1\+expand"))
    expect(page.locator(".lpr-finding")).not_to_have_text(after)
    page.go_back()
    expect(page.get_by_role("radio", name="G1 review")).to_be_checked()
    assert page.locator(".lpr-finding").inner_text() == after


def test_what_moved_between_stages_and_between_runs_is_said_counted_and_coloured(open_page, at, first, second, folder):
    page = open_page(f"/routing?run={first}&text=en", at=at)
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="G1 expand").click()
    expect(page.locator(".lpr-since")).to_contain_text("choices moved")
    expect(page.get_by_role("radio", name="What moved")).to_be_checked()
    expect(page).to_have_url(re.compile(r"stage2=G1\+expand.*view=change"))
    trace = Run(folder / first).traces.read("en")
    moved = (trace.first_choice != trace.at("G1 expand").first_choice) & trace.is_text
    shown = page.locator("#lpr-text .lpr-grid tbody tr:not([data-row=all]) .lpr-moved").all_inner_texts()
    assert [int(text) for text in shown] == moved.sum(axis=1).tolist()
    other = open_page(f"/routing?run={first}&text=en&run2={second}&view=change", at=at)
    expect(other.locator(".lpr-since")).to_contain_text("In Second seed")
    expect(other.locator("#lpr-text")).to_contain_text("moved towards new experts")


def test_a_text_of_ones_own_is_traced_by_the_second_run_on_demand(open_page, at, first, second):
    page = open_page(f"/routing?run={first}&text=own", at=at)
    page.get_by_label("Your text, in any language").fill("Ταξίδι με πλοίο.")
    page.get_by_role("button", name="Trace this text").click()
    expect(page.get_by_role("status").filter(has_text="in all)")).to_be_visible()
    expect(page.get_by_role("radio", name="G1 expand")).to_be_visible()
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name=re.compile("Second seed")).click()
    expect(page.get_by_text("has not traced this text yet")).to_be_visible()
    page.get_by_role("button", name="Trace it with that run").click()
    expect(page.locator(".lpr-since")).to_contain_text("In Second seed")


# -------------------------------------------------------------------------------------------------- what if


def test_forcing_the_original_expert_gives_the_base_back_and_is_marked_as_not_saved(open_page, at, first, folder):
    before = sorted(path.name for path in (folder / first / "traces").iterdir())
    page = open_page(f"/routing?run={first}&text=en", at=at)
    page.get_by_role("button", name="Run it").click()
    card = page.locator(".lpr-changed-run")
    expect(card).to_contain_text("Expert 0 forced in all 3 layers")
    expect(card).to_contain_text("changed run, not saved")
    expect(card).to_contain_text("the base is still in there")
    expect(card.locator(".lpr-text")).to_have_text(SENTENCE)
    url = page.url
    card.locator(".lpr-text [role=option]").nth(2).click()
    assert page.url == url
    expect(card.locator(".lpr-token")).to_contain_text("bits as it is")
    assert sorted(path.name for path in (folder / first / "traces").iterdir()) == before


def test_banning_an_expert_in_one_layer_and_a_layer_that_is_not_there(open_page, at, first):
    page = open_page(f"/routing?run={first}&text=en", at=at)
    page.locator("label", has_text="Ban").click()
    page.get_by_label("Expert", exact=True).click()
    page.get_by_role("option", name="Expert 2, new").click()
    page.get_by_label("Layers, such as").fill("2")
    page.get_by_role("button", name="Run it").click()
    expect(page.get_by_text("Layer 2 has no router; those that have one are 0-1, 3.")).to_be_visible()
    page.get_by_label("Layers, such as").fill("1")
    page.get_by_role("button", name="Run it").click()
    card = page.locator(".lpr-changed-run")
    expect(card).to_contain_text("Expert 2 banned in layer 1")
    expect(card.locator(".lpr-grid button[data-l='1'][data-e='2']")).to_have_text("0%")


# ------------------------------------------------------------------------------------- readers, looks, access


def test_two_readers_keep_their_own_text_selection_and_change(open_page, at, first):
    one, two = (open_page(f"/routing?run={first}&text={code}", at=at) for code in ("en", "el"))
    cell(one, 1, 1).click()
    cell(two, 3, 2).click()
    for page in (one, two):
        page.get_by_role("button", name="Run it").click()
    for page, start in ((one, "A letter"), (two, "Το πρωί")):
        expect(page.locator(".lpr-changed-run .lpr-text")).to_contain_text(start)
    expect(one).to_have_url(re.compile("text=en.*layer=1&expert=1"))
    expect(two).to_have_url(re.compile("text=el.*layer=3&expert=2"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_whole_page_is_accessible_and_fits_a_phone(open_page, axe, at, first, second, scheme):
    query = f"/routing?run={first}&text=en&run2={second}&view=change&layer=1&expert=2&tok=4"
    page = open_page(query, at=at, viewport={"width": 360, "height": 780}, color_scheme=scheme)
    page.get_by_role("button", name="Run it").click()
    expect(page.locator(".lpr-changed-run")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page)


def test_with_forced_colours_lines_still_say_what_colour_said(open_page, at, first):
    page = open_page(f"/routing?run={first}&text=en", at=at, forced_colors="active")
    styles = page.locator("#lpr-text .lpr-text .lpr-t:not(.lpr-shared)").evaluate_all(
        "all => all.map(e => [e.classList.contains('lpr-n'), getComputedStyle(e).textDecorationStyle])"
    )
    assert {tuple(style) for style in styles} <= {(True, "dashed"), (False, "solid")}
    assert len(styles) > 5


def test_walking_and_picking_never_asks_python(open_page, at, first):
    page = open_page(f"/routing?run={first}&text=en", at=at)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    option(page, 2).hover()
    option(page, 2).click()
    cell(page, 1, 1).click()
    page.locator("label", has_text="Surprise").click()
    page.get_by_text("Tokens", exact=True).click()
    page.keyboard.press("ArrowRight")
    assert asked == []
