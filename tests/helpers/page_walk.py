"""A seeded random walk over the controls of every page, and what a page must show after each step.

The address says what is asked for and the run's files what there is; strip, panel, table and controls must say the
same. Pages are changed in place, never loaded anew, except where a link of the app itself leads to another page.
"""

import random
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from lpr_lab.runs.people.own_texts import is_own
from lpr_lab.runs.run import Run
from lpr_lab.views.html.token_data import chip_label
from lpr_lab.views.numbers import percent

WATCH = """
(() => {
    let open = 0, since = performance.now();
    const real = window.fetch;
    const mark = (by) => { open += by; since = performance.now(); };
    window.fetch = async (...args) => {
        const url = String(args[0]?.url ?? args[0]);
        if (/heartbeat|queue\\/data/.test(url)) return real(...args);
        mark(1);
        try {
            if (window.lprDelay) await new Promise((done) => setTimeout(done, window.lprDelay));
            const answer = await real(...args);
            await answer.clone().arrayBuffer();
            return answer;
        } finally {
            mark(-1);
        }
    };
    new MutationObserver(() => mark(0)).observe(document, { subtree: true, childList: true, attributes: true });
    window.lprQuiet = (ms) => !open && performance.now() - since > ms;
    window.changes = [];
    document.addEventListener("lpr:change", (event) => window.changes.push(event.detail));
})();
"""
"""Run before a page's own scripts: knows when nothing is fetched or drawn, and notes what strips announce."""

STRIP = """
() => {
    const strip = document.querySelector("#lpr-text .lpr-strip");
    if (!strip) return null;
    const box = strip.querySelector(strip.dataset.mode === "tokens" ? ".lpr-chips" : ".lpr-text");
    const all = (selector, read, within = strip) => [...within.querySelectorAll(selector)].map(read);
    return {
        state: { ...strip.dataset, trace: "" },
        lang: strip.querySelector(".lpr-text").lang,
        text: strip.querySelector(".lpr-text").textContent,
        visible: box.checkVisibility(),
        chips: all(".lpr-chip bdi", (e) => e.textContent),
        options: all("[role=option]", (e) => Number(e.dataset.i), box),
        stops: all("[role=option][tabindex='0']", (e) => Number(e.dataset.i), box),
        selected: all("[role=option][aria-selected=true]", (e) => Number(e.dataset.i), box),
        labels: all("[role=option][aria-selected=true]", (e) => e.getAttribute("aria-label"), box),
        on: all(".lpr-on", (e) => e.dataset.t, box),
        dim: all(".lpr-chip.lpr-dim", (e) => Number(e.dataset.i)),
        checked: all("input[data-set]:checked", (e) => e.value),
        colourings: all("input[data-set=colour]", (e) => e.value),
        terms: Object.fromEntries(all(".lpr-token dt", (e) => [e.textContent, e.nextElementSibling.textContent])),
        hint: strip.querySelector(".lpr-hint") !== null,
        of: strip.querySelector(".lpr-of").textContent,
        reading: strip.querySelector(".lpr-reading").textContent,
        pressed: all(".lpr-grid button[aria-pressed=true]", (e) => [Number(e.dataset.l), Number(e.dataset.e)]),
        gridStops: all(".lpr-grid button[tabindex='0']", (e) => 1).length,
        cells: all(".lpr-grid tbody tr:not([data-row=all]) button", (e) => e.textContent),
        picked: strip.querySelector(".lpr-picked").hidden ? "" : strip.querySelector(".lpr-picked").textContent,
        legend: strip.querySelector(".lpr-legend").textContent,
    };
}
"""

PRESS = """
(found, chance) => {
    if (!found.length) return "";
    const e = found[Math.floor(chance * found.length)];
    const said = e.dataset.i ?? e.value ?? e.textContent.slice(0, 40);
    e.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, composed: true }));
    return said;
}
"""

CHOOSE = """
(found, [which, what]) => {
    const list = found[Math.floor(which * found.length)];
    if (!list) return "";
    list.selectedIndex = Math.floor(what * list.options.length);
    list.dispatchEvent(new Event("change", { bubbles: true }));
    return list.dataset.choose + " " + (list.value || "nothing");
}
"""

FOCUS = """
(found, chance) => {
    const e = found[Math.floor(chance * found.length)];
    if (!e) return "";
    e.focus();
    e.select?.();
    return e.getAttribute("aria-label") || e.textContent.slice(0, 40) || e.tagName;
}
"""

PAGE = """
() => {
    const shown = (e) => e.checkVisibility();
    const main = document.querySelector("main.fillable, .gradio-container main") ?? document.body;
    // How a generation is sampled stays as it was set, whichever pair and run are looked at; so does what is said of a
    // text that was not sent yet.
    const kept = /New tokens|Temperature|Seed|Its language/;
    const nameOf = (e) => e.getAttribute("aria-label") || e.closest("label")?.textContent.trim();
    const named = [...document.querySelectorAll("input, textarea")].filter((e) => shown(e) && !kept.test(nameOf(e)));
    const controls = named.map((e) =>
        [nameOf(e) || e.name.replace(/-.*/, ""),
         e.type === "radio" || e.type === "checkbox" ? e.checked : e.value]);
    const marked = [...document.querySelectorAll("[aria-checked], [aria-current], [aria-valuetext]")].filter(shown);
    const read = (e, ...names) => names.map((name) => e.getAttribute(name));
    const marks = marked.map((e) => [e.textContent, ...read(e, "aria-label", "aria-checked", "aria-valuetext")]);
    const off = [...document.querySelectorAll("button:disabled")].filter(shown).map((e) => e.textContent.trim());
    // Charts draw themselves when they come into view, a list that is open is nobody's choice yet, and what is read out
    // is about the last act.
    const plain = document.head.appendChild(document.createElement("style"));
    plain.textContent = ".js-plotly-plot, ul[role=listbox], .lpr-live { display: none !important; }";
    const text = main.innerText;
    plain.remove();
    return { text, controls, marks, off, title: document.title };
}
"""


def settle(page: Page, quiet_ms: int = 80) -> None:
    """Wait until nothing is being fetched or drawn and nothing was for a moment."""
    page.wait_for_function(f"window.lprQuiet && window.lprQuiet({quiet_ms})", polling=25)
    page.wait_for_selector("[data-lpr-page=ready]", state="attached")
    page.wait_for_selector("[data-lpr-waiting]", state="detached")


def query_of(page: Page) -> dict[str, str]:
    """Return the address's query."""
    return {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}


# --------------------------------------------------------------------------------------- what a page must show


def check_routing(page: Page, folder: Path) -> set[str]:
    """Compare `/routing` with its address; returns the text that is shown, if any."""
    asked = query_of(page)
    if asked.get("text", "own") == "own" or asked["text"] not in Run(folder / asked["run"]).traces.names():
        assert page.evaluate(STRIP) is None, "a strip of a text that there is not"
        return set()
    check_controls(page, folder)
    return {check_strip(page, folder)}


def check_strip(page: Page, folder: Path) -> str:
    """Compare strip, panel and table with the address and with the run's files; returns the text that is shown."""
    page.mouse.move(2, 2)  # left where it clicked it may lie on a token by now, which is shown then
    asked, seen = query_of(page), page.evaluate(STRIP)
    assert seen is not None, "no strip"
    stored = Run(folder / asked["run"]).traces.read(asked["text"])
    trace = stored.at(asked["stage"]) if asked.get("stage") in stored.stage_names else stored
    assert seen["text"] == trace.text and seen["visible"]
    assert seen["lang"] == (trace.language or "")
    layer = int(asked["layer"]) if "layer" in asked else None
    expert = int(asked["expert"]) if "expert" in asked else None
    token = int(asked["tok"]) if "tok" in asked else None
    row = None if layer is None else trace.layers.tolist().index(layer)
    _check_state(seen, asked, trace)
    weight = trace.original_weight if row is None else trace.original_weight[row : row + 1]
    where = "all layers" if layer is None else f"layer {layer}"
    if token is None:
        nothing = seen["hint"], seen["selected"], seen["of"]
        assert nothing == (True, [], "whole text"), f"a token without being asked for: {nothing}"
    else:
        _check_token(seen, trace, token, weight[:, token].mean(), where)
    mean = trace.mass()[:, 0].mean() if row is None else trace.mass()[row, 0]
    whole = float(weight[:, token].mean()) if token is not None else float(mean)
    assert _close(seen["reading"].partition("original expert ")[2], whole), "the layer's reading"
    assert seen["reading"].lower().startswith(where)
    assert seen["pressed"] == ([] if expert is None else [[layer, expert]]) and seen["gridStops"] == 1
    share = trace.first_share()
    cells = [percent(share[r, e]) for r in range(len(trace.layers)) for e in range(int(trace.num_experts[r]))]
    assert seen["cells"] == cells, "the table is of another trace"
    if expert is not None:
        went = [i for i in range(trace.num_tokens) if trace.is_text[i] and trace.first_choice[row, i] == expert]
        assert seen["picked"].startswith(f"Layer {layer}, expert {expert}")
        assert f": {len(went)} of {int(trace.is_text.sum())} tokens" in seen["picked"]
        if asked.get("mode") == "tokens":
            assert set(seen["dim"]) == set(range(trace.num_tokens)) - set(went)
    else:
        assert seen["picked"] == ""
    return trace.text


def _check_state(seen: dict[str, Any], asked: dict[str, str], trace: Any) -> None:
    state, mode, colour = seen["state"], asked.get("mode", "reading"), asked.get("view", "original")
    assert state["layer"] == asked.get("layer", "all") and state["expert"] == asked.get("expert", "")
    assert state["token"] == asked.get("tok", "") and state["mode"] == mode and state["colour"] == colour
    assert seen["checked"] == [mode, colour] and colour in seen["colourings"]
    assert seen["legend"], "no legend"
    count = trace.num_tokens
    if mode == "tokens":
        assert seen["chips"] == [chip_label(piece) for piece in trace.token_bytes], "chips of another text"
    assert sorted(seen["options"]) == list(range(count))
    assert seen["stops"] == [int(asked.get("tok", 0))], "one tab stop"


def _check_token(seen: dict[str, Any], trace: Any, token: int, weight: float, where: str) -> None:
    piece, terms = trace.token_bytes[token], seen["terms"]
    assert seen["selected"] == [token] and any(str(token) in tokens.split() for tokens in seen["on"])
    assert terms["Token"].removesuffix(", pinned") == f"{token + 1} of {trace.num_tokens}", "the panel's token"
    assert terms["Bytes"].startswith(piece.hex(" ").upper() if piece else "none"), "the panel's bytes"
    assert terms["Vocabulary id"] == str(trace.token_ids[token]), "the panel's id"
    said, _, place = terms["Original expert"].partition(", ")
    assert _close(said, float(weight)) and place == where, "the panel's weight"
    assert seen["of"].startswith(f"token {token + 1},")
    assert (
        seen["labels"][0].startswith(f"token {token + 1} of {trace.num_tokens}, ")
        and f", {where}: " in seen["labels"][0]
    )


def _close(said: str, value: float) -> bool:
    """Whether a percentage in words is a share; 16 bits and half precision were between them."""
    return abs(float(said.strip("<>%")) / 100 - value) < 0.011


def check_controls(page: Page, folder: Path) -> None:
    """Compare the controls of `/routing` with the address."""
    asked = query_of(page)
    trace = Run(folder / asked["run"]).traces.read(asked["text"])
    # Waits: while choices are drawn anew, none is checked for a moment.
    checked = "fieldset:visible input[type=radio]:checked"
    text = "own" if is_own(asked["text"]) else asked["text"]
    expect(page.locator(f'{checked}[value="{text}"]').first, "the chosen text").to_be_attached()
    if len([name for name in trace.stage_names if name]) > 1:
        stage = asked.get("stage") or trace.stage
        expect(page.locator(f'{checked}[value="{stage}"]').first, "the chosen stage").to_be_attached()
    assert Run(folder / asked["run"]).title in page.get_by_label("Run", exact=True).first.input_value(), (
        "the chosen run"
    )


def state_of(page: Page) -> dict[str, Any]:
    """Return what a page says and which choices stand, without what passes."""
    seen = page.evaluate(PAGE)
    text = re.sub(r"\d+ (?:s|min|h|days?)(?: \d+ (?:min|s|h))? ago", "… ago", seen["text"])
    lines = [line.strip() for line in text.replace(", pinned", "").splitlines()]
    # A notice says what became of the last choice; the address that came of it needs none.
    seen["text"] = [line for line in lines if line and not line.startswith("Notice. ")]
    return seen


# ----------------------------------------------------------------------------------------------------- walking


@dataclass
class Walk:
    """A walk of one seed: which steps there are on which page, and what was done so far."""

    page: Page
    folder: Path
    seed: int
    trail: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.visits: list[str] = []
        self.seconds: dict[str, float] = {}

    @property
    def path(self) -> str:
        """Which page this is."""
        return urlsplit(self.page.url).path

    def step(self) -> None:
        """Do one thing that this page offers; what is not there now is another thing's turn."""
        self.page.wait_for_selector("[data-lpr-page=ready]", state="attached")
        kinds = [*STEPS[self.path] * 6, "back"]
        ordered = self.random.sample(kinds, len(kinds))
        for kind in ["leave", *ordered] if len(self.trail) % STAY == STAY - 1 else [*ordered, "leave"]:
            began = time.monotonic()
            done = getattr(self, f"_{kind}")()
            if done:
                self.trail.append(f"{self.path} {kind}: {done}")
                self.seconds[kind] = self.seconds.get(kind, 0.0) + time.monotonic() - began
                return
        raise AssertionError(f"Nothing can be done on {self.page.url}")

    def _any(self, found: Locator) -> Locator | None:
        count = found.count()
        return found.nth(self.random.randrange(count)) if count else None

    def _press(self, found: Locator) -> str:
        """Click one of them, also where it is outside the window or small: chosen and clicked in one go, since what is
        found may be another one a moment later.
        """
        return str(found.evaluate_all(PRESS, self.random.random()))

    def _key(self, found: Locator, keys: str) -> str:
        """Press a key on one of them, found and focused in one go: drawing anew takes away what was found."""
        said = str(found.evaluate_all(FOCUS, self.random.random()))
        if not said:
            return ""
        key = self.random.choice(keys.split())
        self.page.keyboard.press(key)
        return f"{key} on {said}"

    def _radio(self) -> str:
        return self._press(self.page.locator("fieldset:visible .wrap input[type=radio]:not(:checked):enabled"))

    def _box(self) -> str:
        return self._press(self.page.locator("fieldset:visible input[type=checkbox]:enabled"))

    def _blind(self) -> str:
        return self._press(self.page.locator(".lpr-check:visible input[type=checkbox]"))

    def _dropdown(self) -> str:
        box = self._any(self.page.locator(".block input[role=listbox]:visible, .block [role=combobox]:visible"))
        if box is None:
            return ""
        try:
            box.click()
        except PlaywrightTimeoutError:
            if box.count():
                raise
            return ""  # drawn anew without it
        option = self._any(self.page.locator("ul[role=listbox] [role=option]:not([aria-selected=true])"))
        if option is None:
            self.page.keyboard.press("Escape")
            return ""
        try:
            said = option.inner_text(timeout=5000)
            option.dispatch_event("mousedown", timeout=5000)
        except PlaywrightTimeoutError:
            if option.count():
                raise
            return ""  # an answer to an earlier step drew the page anew, and the list with it
        box.blur()
        return said.replace("\n", " ")

    def _strip_look(self) -> str:
        return self._press(self.page.locator("#lpr-text input[data-set]:not(:checked)"))

    def _token(self) -> str:
        return self._press(self.page.locator("#lpr-text [role=option]:visible"))

    def _cell(self) -> str:
        return self._press(self.page.locator("#lpr-text .lpr-grid button, #lpr-text .lpr-picked:visible button"))

    def _token_key(self) -> str:
        stop = self.page.locator("#lpr-text [role=option][tabindex='0']:visible")
        return self._key(stop, "ArrowRight ArrowLeft ArrowUp ArrowDown Home End Enter Escape")

    def _layer_key(self) -> str:
        return self._key(self.page.locator("#lpr-text .lpr-profile"), "ArrowRight ArrowLeft PageDown Home End")

    def _cell_key(self) -> str:
        stop = self.page.locator("#lpr-text .lpr-grid button[tabindex='0']")
        return self._key(stop, "ArrowRight ArrowDown ArrowUp Enter Escape")

    def _hover(self) -> str:
        one = self._any(self.page.locator("#lpr-text [role=option]:visible"))
        if one is None:
            return ""
        one.hover(force=True)
        self.page.mouse.move(2, 2)
        return "a token"

    def _stepper(self) -> str:
        layers = self.page.get_by_role("spinbutton", name=re.compile("^Layer"))
        done = self._key(layers, "ArrowUp ArrowDown ArrowRight 3 Home")
        self.page.wait_for_timeout(STEPPER_PAUSE_MS)
        return done

    def _number(self) -> str:
        boxes = self.page.locator("input[type=number]:visible:not([aria-label^=number]):enabled")
        done = self._key(boxes, " ".join("123456789"))  # what was in it is selected, so the digit replaces it
        if done:
            self.page.keyboard.press("Enter")
        return done

    def _link(self) -> str:
        return self._press(self.page.locator("a[data-pick]:visible, a[data-tick]:visible"))

    def _list(self) -> str:
        lists = self.page.locator("select[data-choose]:visible")
        return str(lists.evaluate_all(CHOOSE, [self.random.random(), self.random.random()]))

    def _way(self) -> str:
        """From a token to its expert, and from an expert to the token it came from or to a text of one's own."""
        done = self._press(self.page.locator("#lpr-text a.lpr-way:visible, #lpr-expert .lpr-ctx-ways a:visible"))
        if done:
            self.page.wait_for_load_state("domcontentloaded")
        return done

    def _leave(self) -> str:
        others = [path for path in STEPS if path != self.path]
        self.visits = [path for path in self.visits if path != self.path] or self.random.sample(others, len(others))
        name = self.visits.pop()
        self.page.locator(f"a[data-page='{name}']").click()
        self.page.wait_for_load_state("domcontentloaded")
        return name

    def _back(self) -> str:
        if not any(": " in done for done in self.trail):
            return ""
        before = self.page.url
        self.page.go_back()
        if not self.page.url.startswith("http"):
            self.page.go_forward()
        self.page.wait_for_load_state("domcontentloaded")
        return f"from {before[-60:]}"


STEPPER_PAUSE_MS = 350
"""Longer than the plan waits for further steps before it tells Python."""
STAY = 14
"""Steps on a page before the walk goes on to another one; pages take turns."""

STEPS = {
    "/": ["link", "link", "dropdown", "list"],
    "/routing": [
        *("radio", "radio", "radio", "dropdown", "strip_look", "token", "token", "cell", "token_key", "layer_key"),
        *("cell_key", "hover", "way"),
    ],
    "/experts": ["radio", "dropdown", "box", "link", "way"],
    "/retention": ["radio", "dropdown", "link"],
    "/compare": ["radio", "dropdown", "blind", "link"],
    "/plan": ["radio", "dropdown", "stepper", "stepper", "number"],
}
