"""Pages are changed in place for as long as people stay: what they show is always what the address asks for.

`LPR_LAB_WALK_STEPS` and `LPR_LAB_WALK_SEED` make the walk longer or another one.
"""

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from helpers.page_walk import WATCH, Walk, check_controls, check_routing, check_strip, query_of, settle, state_of
from helpers.sample_contexts import sample_contexts
from helpers.sample_experts import write_expert_tables
from helpers.sample_runs import HOSTILE, MIXED, SENTENCES, make_plan_run, make_run, make_trace
from helpers.sample_scores import write_lifelong, write_scores, write_slices
from lpr_lab.dashboard import serve
from lpr_lab.runs.expert_contexts import write_contexts
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.people.own_texts import keep_text
from lpr_lab.runs.run import Run

pytestmark = pytest.mark.e2e

STEPS = int(os.environ.get("LPR_LAB_WALK_STEPS", "200"))
SEED = int(os.environ.get("LPR_LAB_WALK_SEED", "23"))
FRESH_EVERY = 20
"""How often the page is compared with the same address opened anew."""


def staged(text: str, language: str | None, seed: int, num_experts: int, num_layers: int = 5):
    """A trace of a reviewed model: before the review every second token went elsewhere."""
    options = {"seed": seed, "num_layers": num_layers, "num_experts": num_experts}
    trace, early = make_trace(text, language, **options), make_trace(text, language, **options)
    early.token_ids = trace.token_ids
    swap = np.arange(trace.num_tokens) % 2 == 1
    early.expert_ids[:, swap] = early.expert_ids[:, swap][..., ::-1]
    early.original_weight = np.where(early.expert_ids[..., 0] == 0, 0.9, 0.1).astype(np.float32)
    early.expert_weights = np.broadcast_to(np.float32([0.9, 0.1]), early.expert_weights.shape).copy()
    trace.model["stage"], early.model["stage"] = "G1 review", "G1 expand"
    trace.stages = {"G1 expand": early}
    return trace


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs that differ in texts, layers, experts and stages, and those that lack this or that."""
    folder = tmp_path_factory.mktemp("walked") / "runs"
    make_plan_run(folder, num_layers=8, tokens=5000)
    write_lifelong(folder)
    broken = make_run(folder, title="Broken")
    (broken.path / "run.json").write_text("{", encoding="utf-8")
    Run.create(folder, kind="expansion", slug="bare", title="Bare", config={"base": "b", "expanded": ["el"]})
    for seed, (title, num_experts, num_layers) in enumerate((("Four experts", 4, 5), ("Two experts", 2, 7))):
        run = make_run(folder, title=title)
        for name in run.traces.names():
            for file in (run.path / "traces").glob(f"{name}.*"):
                file.unlink()
        texts = dict(SENTENCES) if not seed else {code: SENTENCES[code] for code in ("en", "el", "ar")}
        for code, text in texts.items():
            run.traces.write(code, staged(text, code, seed, num_experts, num_layers))
        run.traces.write("mixed", make_trace(MIXED, num_layers=num_layers))
        run.traces.write("hostile", make_trace(HOSTILE.replace("\x07", ""), num_layers=num_layers))
        write_expert_tables(run)
        write_contexts(run, sample_contexts(left_out=seed == 0))
        write_scores(run, seed=seed)
        write_slices(run, seed=seed)
        keep_text(run, f"own-{seed:032x}", "Kept", staged("A text that somebody kept.", "en", seed, 2))
    return folder


@pytest.fixture(scope="module")
def at(folder) -> str:
    return serve(folder, port=None, open_browser=False, block=False)


def named(folder: Path, title: str) -> str:
    return next(run.id for run in list_runs(folder) if not run.problem and run.title == title)


@pytest.fixture
def walked(open_page, at):
    """Open a page that knows when it is at rest."""

    def open_(path: str) -> Page:
        page = open_page(path, at=at, script=WATCH)
        settle(page)
        return page

    return open_


WHOLE_MS = 500
"""So long nothing is asked for once a page is whole: some halves are asked for when the other is drawn."""


def exactly(name: str) -> re.Pattern[str]:
    return re.compile(rf"^\s*{name}\s*$")


def unlike(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return what differs between two states of a page, line by line."""
    texts = [json.dumps(state, indent=1, ensure_ascii=False).splitlines() for state in (one, other)]
    return "\n".join(difflib.unified_diff(*texts, "walked to", "opened", n=1, lineterm=""))


def pick(page: Page, name: str) -> None:
    page.locator("fieldset:visible label", has_text=exactly(name)).click()
    settle(page)


# ------------------------------------------------------------------------------------------------ without a reload


def test_another_text_brings_its_own_chips_panel_and_table(walked, folder):
    page = walked(f"/routing?run={named(folder, 'Four experts')}&text=en&tok=4&layer=2")
    pick(page, "Greek")
    assert check_strip(page, folder) == SENTENCES["el"]
    page.get_by_text("Tokens", exact=True).click()
    check_strip(page, folder)
    for name in ("Arabic", "English", "Mixed", "Greek"):
        pick(page, name)
        check_strip(page, folder)
        check_controls(page, folder)


def test_one_act_is_announced_once_however_often_the_page_was_drawn(walked, folder):
    page = walked(f"/routing?run={named(folder, 'Four experts')}&text=en")
    for name in ("Greek", "English", "Arabic", "Greek"):
        pick(page, name)

    def announced(act) -> int:
        page.evaluate("window.changes.length = 0")
        act()
        return page.evaluate("window.changes.length")

    token = page.locator("#lpr-text .lpr-text [role=option][data-i='3']")
    assert announced(token.click) == 1
    assert announced(lambda: page.keyboard.press("ArrowRight")) == 1
    assert announced(lambda: page.keyboard.press("ArrowDown")) == 1
    assert announced(page.locator("#lpr-text .lpr-grid button[data-l='3'][data-e='1']").click) == 1
    assert announced(lambda: page.locator("#lpr-text label", has_text="Surprise").click()) == 1
    assert announced(lambda: page.get_by_text("Tokens", exact=True).click()) == 1
    check_strip(page, folder)


def test_the_last_of_several_quick_choices_is_the_one_that_is_shown(walked, folder):
    page = walked(f"/routing?run={named(folder, 'Four experts')}&text=en")
    page.evaluate("window.lprDelay = 300")
    for name in ("Greek", "Arabic", "English", "Turkish"):
        page.locator("fieldset:visible label", has_text=exactly(name)).click()
        page.wait_for_timeout(120)
    settle(page, 900)
    assert check_strip(page, folder) == SENTENCES["tr"]
    check_controls(page, folder)


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.locator("ul[role=listbox] [role=option]", has_text=option).dispatch_event("mousedown")
    page.get_by_label(label, exact=True).blur()


@pytest.mark.parametrize("path", ["/plan", "/routing", "/retention", "/experts", "/compare"])
def test_of_two_quick_choices_of_a_run_the_last_is_shown_and_named(walked, folder, path):
    page = walked(f"{path}?run={named(folder, 'smollm2-135m: a plan')}")
    page.evaluate("window.lprDelay = 300")
    choose(page, "Run", "Four experts")
    page.wait_for_timeout(150)
    choose(page, "Run", "Two experts")
    settle(page, 900)
    assert query_of(page)["run"] == named(folder, "Two experts")
    assert page.get_by_label("Run", exact=True).input_value().startswith("Two experts")


def test_a_step_of_the_plan_is_one_however_often_it_was_drawn(walked, folder):
    page = walked(f"/plan?run={named(folder, 'smollm2-135m: a plan')}")
    for rule in ("Where they are alike", "Evenly", "Where languages differ"):
        page.locator("fieldset:visible label", has_text=rule).first.click()
        settle(page)

    def counts() -> list[int]:
        return [int(text) for text in page.locator(".lpr-plan-count b").all_inner_texts()]

    before = counts()
    layer = page.get_by_role("spinbutton", name="Layer 2", exact=True)
    layer.focus()
    page.keyboard.press("ArrowUp")
    expect(page).to_have_url(re.compile("rule=own"))
    settle(page)
    after = [*before[:2], before[2] + 1, *before[3:]]
    assert counts() == after and query_of(page)["experts"] == ",".join(map(str, after))
    expect(layer).to_be_focused()
    page.keyboard.press("ArrowUp")
    settle(page, 600)
    assert counts()[2] == before[2] + 2


def test_a_random_walk_over_all_pages_always_shows_what_the_address_asks_for(walked, folder, at, request):
    print(f"seed {SEED}, {STEPS} steps")
    page = walked(f"/routing?run={named(folder, 'Four experts')}&text=en")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(f"page error: {error}"))
    page.on("console", lambda m: errors.append(f"console: {m.text}") if m.type == "error" else None)
    walk = Walk(page, folder, SEED)
    # In a window of its own: a page behind another one of its window is drawn once a second, and clicks wait for that.
    fresh = walked("/")
    shown = set()
    while len(walk.trail) < STEPS:
        walk.step()
        if walk.random.random() < 0.15:  # before the page has answered
            continue
        try:
            settle(page, 350 if walk.path == "/plan" else 80)
            assert not errors, errors
            if walk.path == "/routing":
                shown |= check_routing(page, folder)
            if len(walk.trail) % FRESH_EVERY == 0:
                settle(page, WHOLE_MS)
                fresh.goto(page.url)
                settle(fresh, WHOLE_MS)
                walked_to, opened = state_of(page), state_of(fresh)
                assert walked_to == opened, unlike(walked_to, opened)
        except AssertionError as error:
            last = "\n".join(walk.trail[-12:])
            raise AssertionError(f"seed {SEED}, step {len(walk.trail)}, {page.url}\n{last}\n{error}") from error
    print(f"seconds by kind of step: { {kind: round(spent, 1) for kind, spent in walk.seconds.items()} }")
    assert len(shown) > 1
    assert len({done.split(" ")[0] for done in walk.trail}) == 6, "not every page was walked on"
