"""The real app in a real browser, on a runs folder with a tiny random model; nothing leaves this machine.

Set CHROMIUM to name a browser. Where there is none the tests are skipped, loudly; with LPR_LAB_REQUIRE_BROWSER=1 (the
full check sets it) they fail instead, so that a skip cannot hide.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from helpers.sample_runs import HOSTILE, MIXED, SENTENCES, make_run, make_trace
from lpr_lab.dashboard import serve
from lpr_lab.experiments.doctor import BROWSERS, find_browser
from lpr_lab.runs.run import Run

pytest.importorskip("playwright", reason="the browser tests need playwright (pip install -e '.[dev]')")
from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

PATIENCE_MS = 30_000

# Every new window loads the suggestions of its address bar, which are a web page, and starts a process for the next
# window: together a quarter of all processor time here. The switch replaces playwright's of the same name; what of that
# matters to pages is named again.
OFF = (
    *("WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "SpareRendererForSitePerProcess"),
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "HttpsUpgrades", "MediaRouter", "OptimizationHints", "PaintHolding"),
    *("DestroyProfileOnBrowserClose", "NetworkTimeServiceQuerying", "PreconnectToSearch", "AimEnabled", "LensOverlay"),
)


@pytest.fixture(scope="session", autouse=True)
def patient_launch() -> Iterator[None]:
    """Let a server take as long as it needs: gradio gives its own three seconds, which a busy machine does not have."""
    from gradio import networking

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networking, "url_ok", lambda url: True)
        yield


@pytest.fixture(scope="session")
def chromium() -> str:
    found = find_browser()
    if found:
        return found
    reason = f"NO BROWSER: install Debian's `{BROWSERS[0]}`, or set CHROMIUM to one; the app was not tested."
    if os.environ.get("LPR_LAB_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser(chromium) -> Iterator[Browser]:
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")
    background = ("--disable-background-networking", "--disable-component-update", "--disable-extensions")
    with sync_playwright() as playwright:
        off = f"--disable-features={','.join(OFF)}"
        browser = playwright.chromium.launch(executable_path=chromium, args=[*quiet, *background, off])
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory, tiny_model, tiny_tokenizer) -> Path:
    """Three runs: one with made-up numbers and hostile texts, one with a real tiny model, and a broken one."""
    folder = tmp_path_factory.mktemp("served") / "runs"
    stored = make_run(folder, title="Stored numbers")
    stored.traces.write("hostile", make_trace(HOSTILE))
    stored.traces.write("long", make_trace("ένα δύο τρία " * 900, "el", num_layers=4))
    broken = make_run(folder, title="Broken")
    (broken.path / "run.json").write_text("{", encoding="utf-8")
    _with_weights(folder, tmp_path_factory.mktemp("base"), tiny_model, tiny_tokenizer)
    return folder


def _with_weights(folder: Path, base_folder: Path, tiny_model, tokenizer) -> Run:
    """Make a run whose adapter is a tiny expansion with random new experts and routers."""
    import torch

    from lpr_lab.measure.routing import trace
    from lpr_lab.method.allocation import uniform
    from lpr_lab.method.upcycle import upcycle
    from lpr_lab.model.bases.load import load_base
    from lpr_lab.model.formats.save_load import save_expansion

    tiny_model("llama", num_layers=3).save_pretrained(base_folder)
    tokenizer.save_pretrained(base_folder)
    base, tokenizer = load_base(str(base_folder))
    model = upcycle(base, uniform(3, 1))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    config = {"recipe": "route_first", "base": str(base_folder), "original": ["en", "es"], "expanded": ["el", "th"]}
    run = Run.create(folder, kind="expansion", slug="tiny", title="Tiny model", config=config)
    save_expansion(model, run.paths.checkpoint)
    for code in ("en", "el"):
        run.traces.write(code, trace(model, tokenizer, SENTENCES[code], code))
    run.finish({"schema_version": 1, **config})
    return run


@pytest.fixture(scope="session")
def stored(runs_dir) -> str:
    return next(
        path.name for path in runs_dir.iterdir() if "route-first" in path.name and _title(path) == "Stored numbers"
    )


@pytest.fixture(scope="session")
def tiny(runs_dir) -> str:
    return next(path.name for path in runs_dir.iterdir() if "tiny" in path.name)


def _title(path: Path) -> str:
    run = Run(path)
    return "" if run.problem else run.title


@pytest.fixture(scope="session")
def address(runs_dir) -> str:
    return serve(runs_dir, port=None, open_browser=False, block=False)


@pytest.fixture(scope="session")
def empty_address(tmp_path_factory) -> str:
    return serve(tmp_path_factory.mktemp("nothing"), port=None, open_browser=False, block=False)


def pytest_collection_modifyitems(items):
    """Begin with the walk, by far the longest, so that it does not run on alone when all others are done."""
    items.sort(key=lambda item: item.path.name != "test_walk.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Let fixtures know whether their test failed."""
    report = yield
    if report.when == "call":
        item.failed = report.failed
    return report


@pytest.fixture
def open_page(browser, address, request, tmp_path) -> Iterator:
    """Open pages under guard: no console error, no page error, no dialog, no request beyond this machine, no U+FFFD."""
    contexts, complaints = [], []

    def open_(path: str = "/", *, at: str = address, script: str = "", **options) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("console", lambda m: complaints.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append("a dialog opened"), dialog.dismiss()))
        page.on("request", lambda r: None if _is_here(r.url) else complaints.append(f"request to {r.url}"))
        page.goto(at + path)
        page.wait_for_selector("[data-lpr-page=ready]")
        return page

    yield open_
    for number, context in enumerate(contexts):
        for page in context.pages:
            assert _asked(page, "window.boom") is None
            if getattr(request.node, "failed", False):
                page.screenshot(path=str(tmp_path / f"page-{number}.png"), full_page=True)
            assert "�" not in _asked(page, "document.body.innerText"), page.url
        context.close()
    assert not complaints


@pytest.fixture
def axe():
    """Return a function that checks part of a page for accessibility; it returns what is violated, {} for nothing.

    What is ours is checked for serious and critical violations; with `strict`, for any.
    """
    from axe_playwright_python.sync_playwright import Axe

    def check(page: Page, within: str = ".gradio-container", *, strict: bool = False) -> dict[str, list[str]]:
        found = Axe().run(page, within).response["violations"]
        return {
            one["id"]: [node["html"][:160] for node in one["nodes"]]
            for one in found
            if strict or one["impact"] in ("serious", "critical")
        }

    return check


def _asked(page: Page, expression: str) -> Any:
    """Return what a page evaluates; once more where the last step of a test had it load another one meanwhile."""
    try:
        return page.evaluate(expression)
    except PlaywrightError:
        page.wait_for_load_state()
        return page.evaluate(expression)


def _is_here(url: str) -> bool:
    return urlsplit(url).scheme in ("data", "blob") or urlsplit(url).hostname == "127.0.0.1"


@pytest.fixture
def slowly(monkeypatch):
    """Make every step take a fifth of a second; returns what sets the pace, also of the step that is being taken."""
    from lpr_lab.measure import generation

    real, pace = generation.generate_pair, {"seconds": 0.2}

    def paced(*arguments, **options):
        for step in real(*arguments, **options):
            began = time.monotonic()
            while time.monotonic() - began < pace["seconds"]:
                time.sleep(0.02)
            yield step

    monkeypatch.setattr(generation, "generate_pair", paced)
    return pace


@pytest.fixture
def texts() -> dict[str, str]:
    return {**SENTENCES, "mixed": MIXED, "hostile": HOSTILE}
