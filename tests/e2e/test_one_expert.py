"""One expert at its own address on `/experts`: found by mouse and keyboard, stopped, and reached from any token."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from helpers.served_expansion import halt_after_steps
from helpers.small_expansion import make_expansion
from helpers.tiny_corpus import TinyCorpus
from lpr_lab.dashboard import serve
from lpr_lab.experiments import expert_contexts as finding
from lpr_lab.measure.contexts.expert_contexts import BITS, WEIGHT
from lpr_lab.runs.run import Run
from lpr_lab.views.numbers import percent, signed

pytestmark = pytest.mark.e2e

LANGUAGES = ["en", "el", "ar", "th"]
SENTENCES = {
    "en": ["The sea was calm.", "We sailed at dawn.", "A letter came."],
    "el": ["Η θάλασσα ήταν ήσυχη.", "Φύγαμε την αυγή.", "Ήρθε ένα γράμμα."],
    "ar": ["صباح الخير يا عالم.", "كان البحر هادئا.", "وصلت رسالة اليوم."],
    "th": ["สวัสดีชาวโลก", "ทะเลสงบมาก", "มีจดหมายมาถึง"],
}
TOKENS = 160


@pytest.fixture(scope="module")
def corpus() -> TinyCorpus:
    return TinyCorpus({code: lines * 2 for code, lines in SENTENCES.items()}, tuple(LANGUAGES))


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model, tiny_tokenizer, corpus):
    """Return the folder of a run with three layers, its model, and what the library finds in its text."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    from lpr_lab.experiments.expert_tables import count_experts, write_expert_tables
    from lpr_lab.measure.contexts.compute import expert_contexts
    from lpr_lab.measure.expert_counts import ExpertCounter
    from lpr_lab.measure.routing import trace
    from lpr_lab.model.stages import stage_names

    root = tmp_path_factory.mktemp("one")
    options = {"expanded": LANGUAGES[1:], "eval_tokens_per_language": TOKENS}
    run, model = make_expansion(
        root, tiny_model("llama", num_layers=3), tiny_tokenizer, new_experts=(1, 0, 3), **options
    )
    held = SimpleNamespace(model=model, tokenizer=tiny_tokenizer)
    counter, roles = ExpertCounter(stage_names(model)), {"en": "original"} | dict.fromkeys(LANGUAGES[1:], "expanded")
    list(count_experts(counter, corpus, roles, lambda: nullcontext(held), tokens_per_language=TOKENS))
    write_expert_tables(run, counter, tiny_tokenizer)
    for code, lines in SENTENCES.items():
        run.traces.write(code, trace(model, tiny_tokenizer, lines[0], code, stages=stage_names(model)))
    found = expert_contexts(
        model, tiny_tokenizer, corpus, languages=LANGUAGES, tokens_per_language=TOKENS, effects_of=[(2, 1)]
    )
    return root / "runs", run, found


@pytest.fixture(scope="module")
def at(made) -> str:
    return serve(made[0], port=None, open_browser=False, block=False)


@pytest.fixture
def fresh(made, corpus, monkeypatch) -> Run:
    """The run, of which no contexts are known; its text is a small corpus."""
    _, run, _ = made
    monkeypatch.setattr(finding, "corpus_of", lambda *_, **__: corpus)
    for path in Path(run.path / "tables").glob("expert_[cne]*.csv"):
        if path.stem in ("expert_contexts", "expert_neighbours", "expert_effects"):
            path.unlink()
    return run


def shown_texts(page: Page, title: str) -> list[list[str]]:
    """Return by context of a list: its sentence, the marked token, and its facts."""
    lists = page.get_by_role("list", name=re.compile(f"^{title}, "))
    return lists.locator("li").evaluate_all(
        "all => all.map(li => [...['.lpr-ctx', 'mark'].map(s => li.querySelector(s).textContent),"
        " [...li.querySelectorAll('.lpr-ctx-facts span')].map(e => e.textContent).join(' | ')])"
    )


def check_list(page: Page, title: str, found, by: str) -> None:
    """Compare a list with what the library found, to the last digit shown."""
    table = found.of(2, 1, by)
    rows = [row for code in LANGUAGES for row in table[table["language"] == code].to_dict("records")]
    seen = shown_texts(page, title)
    assert len(seen) == len(rows) > 4
    for (sentence, token, facts), row in zip(seen, rows, strict=True):
        around = found.in_sentence(row["language"], row["document"], row["position"], 16)
        assert token == around.token or not around.token.strip()
        assert sentence.startswith(around.before) and sentence.endswith(around.after)
        first = (
            f"weight {percent(row['weight'])}" if by == WEIGHT else f"{signed(row['change_bits'], 2)} bits without it"
        )
        where = f"token {row['position'] + 1} of document {row['document']}"
        assert facts == f"{first} | costs {row['bits']:.2f} bits | {where}"


def test_contexts_are_found_by_mouse_and_say_what_the_library_says(open_page, at, fresh, made):
    found = made[2]
    page = open_page(f"/experts?run={fresh.id}&layer=2&expert=1", at=at)
    expect(page.get_by_role("heading", name="Layer 2, expert 1")).to_be_visible()
    page.get_by_role("button", name="Leave it out and score again").click()
    expect(page.get_by_role("status").filter(has_text="Layer 2, expert 1: done in")).to_be_visible()
    expect(page.get_by_role("heading", name="Where leaving it out changes most")).to_be_visible()
    check_list(page, "Where it has the most weight", found, WEIGHT)
    check_list(page, "Where leaving it out changes most", found, BITS)
    table = page.get_by_role("table", name="Change in bits per token without this expert")
    for row, effect in zip(table.locator("tbody tr").all(), found.effects.to_dict("records"), strict=True):
        expect(row).to_contain_text(signed(effect["change_bits"], 3))
        low, high = effect["ci_low"], effect["ci_high"]
        said = "–" if effect["n_documents"] == 1 else f"{signed(low, 3)} to {signed(high, 3)}"
        expect(row.get_by_role("cell").nth(1)).to_have_text(said)
    near = found.neighbours[(found.neighbours["layer"] == 2) & (found.neighbours["expert"] == 1)].iloc[0]
    link = page.locator(".lpr-ctx-near a").first
    expect(link).to_have_text(re.compile(rf"Layer {near['other_layer']}, expert {near['other_expert']}"))
    link.click()
    expect(page).to_have_url(re.compile(rf"layer={near['other_layer']}&expert={near['other_expert']}"))
    expect(page.locator("#lpr-expert")).to_be_focused()
    expect(page.get_by_role("button", name="Leave it out and score again")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Where leaving it out changes most")).to_be_visible()


def test_contexts_are_found_by_keyboard(open_page, at, fresh):
    page = open_page(f"/experts?run={fresh.id}&layer=0&expert=1", at=at)
    page.get_by_role("button", name="Find its contexts").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="All experts: done in")).to_be_visible()
    expect(page.locator(".lpr-ctx mark").first).to_be_visible()
    page.locator(".lpr-ctx-near a").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#lpr-expert")).to_be_focused()
    expect(page.locator(".lpr-ctx mark").first).to_be_visible()


def test_it_can_be_stopped_and_leaves_nothing_behind(open_page, at, fresh, monkeypatch):
    go_on, _ = halt_after_steps(monkeypatch, finding, "context_steps")
    page = open_page(f"/experts?run={fresh.id}&layer=2&expert=1", at=at)
    page.get_by_role("button", name="Find its contexts").click()
    expect(page.get_by_role("status").filter(has_text=re.compile(r"1 of \d+ parts"))).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status").filter(has_text="Stopped; nothing was kept.")).to_be_visible()
    go_on.set()
    assert "expert_contexts" not in fresh.tables.names()
    expect(page.get_by_role("button", name="Find its contexts")).to_be_visible()


def test_a_token_leads_to_its_expert_and_the_expert_back_to_the_token_by_mouse(open_page, at, fresh):
    trace = fresh.traces.read("el")
    page = open_page(f"/routing?run={fresh.id}&text=el&layer=2&mode=tokens", at=at)
    page.locator("#lpr-text .lpr-chip[data-i='3']").click()
    expert = int(trace.first_choice[trace.layers.tolist().index(2), 3])
    way = page.locator("#lpr-text .lpr-token .lpr-way")
    expect(way).to_have_text(re.compile(rf"^expert {expert}, "))
    way.click()
    expect(page).to_have_title("Experts · lpr_lab")
    expect(page.locator("#lpr-expert")).to_be_focused()
    expect(page.locator("#lpr-expert")).to_be_in_viewport()
    expect(page.get_by_role("heading", name=re.compile(f"^Layer 2, expert {expert}"))).to_be_visible()
    page.get_by_role("link", name="Back to token 4").click()
    expect(page).to_have_title("Routing · lpr_lab")
    expect(page).to_have_url(re.compile(r"text=el.*layer=2.*tok=3.*mode=tokens"))
    expect(page.locator("#lpr-text .lpr-chip[data-i='3']")).to_have_attribute("aria-selected", "true")


def test_a_token_leads_to_its_expert_and_back_by_keyboard_right_to_left(open_page, at, fresh):
    page = open_page(f"/routing?run={fresh.id}&text=ar&layer=0", at=at)
    page.locator("#lpr-text .lpr-text [role=option][tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page).to_have_url(re.compile("tok=2"))
    page.keyboard.press("Tab")
    expect(page.locator("#lpr-text .lpr-token .lpr-way")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#lpr-expert")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Back to token 3")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_title("Routing · lpr_lab")
    expect(page).to_have_url(re.compile(r"text=ar.*layer=0.*tok=2"))


def test_without_a_layer_there_is_no_one_expert_to_go_to_and_a_picked_one_says_where_it_is(open_page, at, fresh):
    page = open_page(f"/routing?run={fresh.id}&text=el&tok=3", at=at)
    expect(page.locator("#lpr-text .lpr-token dl")).to_be_visible()
    expect(page.locator("#lpr-text .lpr-way")).to_have_count(0)
    page.locator("#lpr-text .lpr-grid button[data-l='2'][data-e='2']").click()
    page.get_by_role("link", name="What this expert does").click()
    expect(page.get_by_role("heading", name="Layer 2, expert 2")).to_be_visible()


def test_own_text_is_traced_with_the_expert_picked_and_says_its_weight_token_by_token(open_page, at, fresh):
    page = open_page(f"/experts?run={fresh.id}&layer=2&expert=1", at=at)
    page.get_by_role("link", name="Try it on your own text").click()
    expect(page.get_by_label("Your text, in any language")).to_be_visible()
    page = open_page(f"{page.url.removeprefix(at)}&mode=tokens", at=at)
    page.get_by_label("Your text, in any language").fill("Γεια σου, κόσμε.")
    page.get_by_role("button", name="Trace this text").click()
    expect(page.get_by_text(re.compile(r"^Layer 2, expert 1: \d+ of \d+ tokens went there"))).to_be_visible()
    expect(page).to_have_url(re.compile(r"layer=2.*expert=1"))
    expect(page.get_by_role("radio", name="G1 expand")).to_be_visible()  # drawn again, with all stages
    page.locator("#lpr-text .lpr-chip[data-i='2']").click()
    expect(page.locator("#lpr-text .lpr-token dt", has_text=re.compile("^Expert 1$"))).to_be_visible()


def test_a_number_of_the_table_by_layer_leads_to_its_expert(open_page, at, fresh):
    page = open_page(f"/experts?run={fresh.id}&layer=0", at=at)
    page.get_by_text("Show as a table").first.click()
    page.get_by_role("row", name=re.compile("^2 ")).get_by_role("link").nth(3).click()
    expect(page.get_by_role("heading", name="Layer 2, expert 3")).to_be_visible()
    expect(page.locator("#lpr-expert")).to_be_focused()


@pytest.mark.parametrize(("code", "scheme"), [("ar", "dark"), ("el", "light"), ("th", "dark")])
def test_it_is_accessible_fits_a_phone_and_every_script_keeps_its_direction(open_page, axe, at, fresh, code, scheme):
    options = {"viewport": {"width": 360, "height": 780}, "color_scheme": scheme}
    page = open_page(f"/experts?run={fresh.id}&layer=2&expert=1&langs={code}", at=at, **options)
    page.get_by_role("button", name="Leave it out and score again").click()
    sentence = page.locator(f".lpr-ctx[lang={code}]").first
    expect(sentence).to_be_visible()
    assert sentence.evaluate("e => getComputedStyle(e).direction") == ("rtl" if code == "ar" else "ltr")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not axe(page)
