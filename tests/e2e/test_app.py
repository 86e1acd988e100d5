"""The app as people meet it: in a browser, by mouse, by keyboard, by address, in any script and width."""

import re
import socket
import time
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from lpr_lab.dashboard import serve
from lpr_lab.runs.run import Run

pytestmark = pytest.mark.e2e

PAGES = {
    "/": "Runs",
    "/routing": "Routing",
    "/experts": "Experts",
    "/retention": "Retention",
    "/compare": "Compare",
    "/plan": "Plan",
}


def option(page: Page, token: int):
    return page.locator(f".lpr-text [role=option][data-i='{token}']")


def chosen(page: Page) -> int:
    return int(page.locator("[role=option][aria-selected=true]:visible").get_attribute("data-i") or -1)


# ------------------------------------------------------------------------------------------------- every page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("path", "name"), PAGES.items(), ids=PAGES.values())
def test_every_page_answers_its_question_is_accessible_and_fits_a_phone(open_page, axe, stored, path, name, scheme):
    page = open_page(f"{path}?run={stored}", color_scheme=scheme)
    expect(page).to_have_title(f"{name} · lpr_lab")
    expect(page.locator("h1")).to_have_count(1)
    expect(page.locator(".lpr-finding").first).to_be_visible()
    expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name=name)).to_have_attribute(
        "aria-current", "page"
    )
    expect(page.get_by_label("Empty value")).to_have_count(0)  # gradio's placeholder until a chart is there
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    if path in ("/retention", "/routing"):
        page.locator(".js-plotly-plot").first.wait_for()
    if path == "/retention":
        expect(page.get_by_role("heading", name="Gain against forgetting, over runs")).to_be_visible()
    assert not axe(page, "html", strict=True)
    page.set_viewport_size({"width": 360, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for link in PAGES.values():
        expect(page.get_by_role("navigation", name="Pages").get_by_role("link", name=link)).to_be_in_viewport(ratio=1)
    # What remains without colours of our own is still a page: nothing hidden, the chosen page and choices outlined.
    page.emulate_media(forced_colors="active")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    marked = page.locator(".lpr-header nav a[aria-current]")
    assert marked.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_links_between_pages_keep_run_and_language_and_nothing_else(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=el&tok=3")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Compare").click()
    expect(page).to_have_title("Compare · lpr_lab")
    expect(page).to_have_url(re.compile(rf"/compare\?run={stored}&lang=el"))
    expect(page.get_by_role("radio", name="Greek")).to_be_checked()


def test_a_page_is_found_again_as_it_was_left(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=el&layer=7&tok=3")
    pages = page.get_by_role("navigation", name="Pages")
    pages.get_by_role("link", name="Plan").click()
    expect(page).to_have_title("Plan · lpr_lab")
    pages.get_by_role("link", name="Routing").click()
    expect(option(page, 3)).to_have_attribute("aria-selected", "true")
    expect(page).to_have_url(re.compile("text=el.*layer=7.*tok=3"))
    page.go_back()
    expect(page).to_have_title("Plan · lpr_lab")


def test_brightness_is_remembered(open_page, stored):
    page = open_page("/", color_scheme="light")
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.reload()
    expect(page.locator("body")).to_have_class(re.compile("dark"))


@pytest.mark.parametrize("path", PAGES, ids=PAGES.values())
def test_an_empty_folder_teaches_how_to_make_a_run(open_page, empty_address, path):
    page = open_page(path, at=empty_address)
    expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
    expect(page.get_by_text("lpr-lab demo").first).to_be_visible()


@pytest.mark.parametrize("run", ["gone-1234", "../../etc/passwd", "%3Cimg%20src%3Dx%20onerror%3Dboom()%3E"])
def test_an_unknown_run_is_a_notice_and_not_a_blank_page(open_page, run):
    page = open_page(f"/routing?run={run}")
    expect(page.get_by_text("isn't in this folder. Showing the newest one instead.")).to_be_visible()
    expect(page.locator(".lpr-strip")).to_be_visible()


@pytest.fixture(scope="module")
def bare_address(tmp_path_factory) -> str:
    """A folder with a run that holds nothing, one that failed, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("bare") / "runs"
    broken = Run.create(folder, kind="expansion", slug="broken", title="Broken", config={})
    (broken.path / "run.json").write_text("{", encoding="utf-8")
    failed = Run.create(folder, kind="expansion", slug="failed", title="Failed", config={"base": "b"})
    failed.stop("failed", error_tail="RuntimeError: no room")
    Run.create(folder, kind="expansion", slug="z-bare", title="Bare", config={"base": "b", "expanded": ["el"]})
    return serve(folder, port=None, open_browser=False, block=False)


SAID = {
    "/": "Not started yet.",
    "/routing": "No text was traced in this run",
    "/experts": "This run is still working; its experts are counted near its end.",
    "/retention": "Not measured yet",
    "/compare": "This run is still working; its weights are written near its end.",
    "/plan": "How many layers b has is not known yet",
}


@pytest.mark.parametrize("path", PAGES, ids=PAGES.values())
def test_a_run_without_anything_says_what_is_missing_and_how_to_get_it(open_page, bare_address, path):
    page = open_page(path, at=bare_address)
    expect(page.get_by_text(SAID[path]).first).to_be_visible()


def test_failed_and_unreadable_runs_say_why_beside_the_others(open_page, bare_address):
    page = open_page("/", at=bare_address)
    expect(page.get_by_text("not readable as JSON")).to_be_visible()
    page.get_by_role("link", name="Failed", exact=True).click()
    expect(page.get_by_text("RuntimeError: no room")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("Not started yet.")).to_be_visible()


PROBES = (
    *("/gradio_api/file=/etc/passwd", "/gradio_api/file=../../etc/passwd", "/gradio_api/file%3D/etc/passwd"),
    *("/file=/etc/passwd", "/static/../../../etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/assets/..%2f..%2fx"),
    *("/gradio_api/file={run}/run.json", "/{run}/run.json", "/gradio_api/file={run}/checkpoint", "/theme.css/../x"),
)


@pytest.mark.parametrize("probe", PROBES)
def test_no_address_leads_to_a_file(address, runs_dir, stored, probe):
    # As typed: clients tidy up the dots before they send.
    with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=10) as raw:
        path = probe.replace("{run}", str(runs_dir / stored))
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split()[1] in (b"400", b"403", b"404")
    assert b"root:" not in answer and b"schema_version" not in answer


# ------------------------------------------------------------------------------------------------------ runs


def test_choosing_a_run_shows_it_and_changes_the_address(open_page, stored, tiny):
    page = open_page(f"/?run={tiny}")
    expect(page.get_by_text("unreadable")).to_be_visible()
    page.get_by_role("link", name="Stored numbers").click()
    expect(page.get_by_role("heading", name="Stored numbers")).to_be_visible()
    expect(page).to_have_url(re.compile(f"run={stored}"))
    expect(page.get_by_text("6 of 6 promises of the method hold")).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="Tiny model")).to_be_visible()


def test_ticked_runs_are_compared_by_what_differs_and_the_address_restores_it(open_page, stored, tiny):
    page = open_page(f"/?run={stored}")
    page.get_by_role("checkbox", name="Compare Tiny model").click()
    expect(page.get_by_text("Select a second run to see differences.")).to_be_visible()
    page.get_by_role("checkbox", name="Compare Stored numbers").focus()
    page.keyboard.press("Space")
    table = page.get_by_role("table", name="Runs side by side")
    expect(table.get_by_role("row", name=re.compile("^expanded el, "))).to_contain_text("el, hu, tr")
    expect(table.get_by_role("row", name=re.compile("^recipe "))).to_have_count(0)
    expect(page).to_have_url(re.compile(f"runs={tiny},{stored}"))
    other = open_page(page.url.removeprefix(page.url.split("/?")[0]))
    expect(other.get_by_role("heading", name=re.compile("^2 runs: "))).to_be_visible()
    expect(other.get_by_role("checkbox", name="Compare Tiny model")).to_be_checked()


# ------------------------------------------------------------------------------------------------- token strip


def test_any_script_is_shown_whole_and_nothing_of_it_is_run(open_page, stored, texts):
    page = open_page(f"/routing?run={stored}&text=en")
    for name, text in texts.items():
        if name in ("hostile", "mixed"):
            page.goto(re.sub("text=[a-z]+", f"text={name}", page.url).split("&tok")[0])
        else:
            page.locator(f"fieldset:visible input[type=radio][value={name}]").check(force=True)
        expect(page).to_have_url(re.compile(f"text={name}"))
        page.wait_for_selector(".lpr-strip[data-lpr-ready]")
        expect(page.locator(".lpr-text")).to_have_js_property("textContent", text.replace("\x07", "␇"))


def test_the_address_is_the_state(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=el&layer=7&tok=3")
    expect(option(page, 3)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_role("slider", name="Layer")).to_have_attribute("aria-valuetext", re.compile("^Layer 7:"))
    option(page, 3).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.get_by_text("Tokens", exact=True).click()
    expect(page).to_have_url(re.compile("layer=8.*tok=4.*mode=tokens"))
    other = open_page(page.url.replace(page.url.split("/routing")[0], ""))
    assert chosen(other) == 4
    expect(other.get_by_role("slider", name="Layer")).to_have_attribute("aria-valuetext", re.compile("^Layer 8:"))
    expect(other.locator(".lpr-chips")).to_be_visible()


@pytest.mark.parametrize(("text", "forward"), [("el", "ArrowRight"), ("ar", "ArrowLeft")])
def test_one_tab_stop_and_arrow_keys_that_follow_the_text(open_page, stored, text, forward):
    page = open_page(f"/routing?run={stored}&text={text}")
    page.locator(".lpr-strip input[value=original]").focus()
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_attribute("data-i", "0")
    for _ in range(3):
        page.keyboard.press(forward)
    expect(page.locator(":focus")).to_have_attribute("data-i", "3")
    assert re.match(
        r"token 4 of \d+, .+, all layers: expert 0 original", page.locator(":focus").get_attribute("aria-label")
    )
    page.keyboard.press("ArrowDown")
    assert "layer 0: expert 0 original" in (page.locator(":focus").get_attribute("aria-label") or "")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(page.locator(".lpr-token")).to_contain_text("pinned")
    page.keyboard.press("Escape")
    expect(page.locator(".lpr-of")).to_have_text("whole text")
    page.keyboard.press("Tab")
    expect(page.get_by_role("slider", name="Layer")).to_be_focused()


def test_dragging_over_the_layers_recolours_the_text_without_asking_python(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=el")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    before = option(page, 2).evaluate("e => e.closest('.lpr-t').style.cssText")
    profile = page.get_by_role("slider", name="Layer")
    box = profile.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 20, steps=5)
    page.mouse.up()
    expect(profile).to_have_attribute("aria-valuetext", re.compile("^Layer 29:"))
    expect(page).to_have_url(re.compile("layer=29"))
    assert option(page, 2).evaluate("e => e.closest('.lpr-t').style.cssText") != before
    assert asked == []


def test_a_long_text_is_cut_and_said_to_be(open_page, stored):
    page = open_page(f"/routing?run={stored}&text=long")
    expect(page.get_by_text(re.compile(r"Showing the first 2,048 of [\d,]+ tokens"))).to_be_visible()
    started = time.monotonic()
    option(page, 0).focus()
    page.keyboard.press("ArrowDown")
    expect(page).to_have_url(re.compile("layer=0"))
    assert time.monotonic() - started < 10


# ----------------------------------------------------------------------------------------------- with a model


def trace(page: Page, text: str) -> None:
    page.get_by_label("Your text, in any language").fill(text)
    page.get_by_role("button", name="Trace this text").click()
    expect(page.get_by_role("status").filter(has_text="not kept.")).to_be_visible()
    expect(page.locator("#lpr-text .lpr-text")).to_have_text(text)


def test_a_greek_sentence_is_traced_token_by_token_and_not_kept(open_page, tiny, runs_dir):
    before = sorted((runs_dir / tiny / "traces").iterdir())
    page = open_page(f"/routing?run={tiny}")
    page.get_by_text("Your own text", exact=True).click()
    trace(page, "Το πρωί άνοιξα το παράθυρο.")
    tones = page.locator(".lpr-text .lpr-t").evaluate_all("all => all.map(e => e.style.getPropertyValue('--tone'))")
    assert len(tones) > 5 and all(tone.startswith("var(--lpr-") for tone in tones)
    expect(page).to_have_url(re.compile("text=own-[0-9a-f]{32}"))
    page.reload()
    expect(page.locator(".lpr-text")).to_have_text("Το πρωί άνοιξα το παράθυρο.")
    expect(page.get_by_text("only who has this page’s address sees this text")).to_be_visible()
    assert sorted((runs_dir / tiny / "traces").iterdir()) == before
    other = open_page(f"/routing?run={tiny}")
    expect(other.get_by_label("Texts kept by readers")).to_have_count(0)


def test_a_text_is_kept_under_its_name_edited_renamed_and_deleted(open_page, tiny):
    page = open_page(f"/routing?run={tiny}&text=own")
    trace(page, "The first words.")
    page.get_by_label("Its name").fill("A beginning")
    page.get_by_role("button", name="Keep this text").click()
    expect(page.get_by_role("status").filter(has_text="for everybody to see")).to_be_visible()
    kept = page.url
    other = open_page(kept.partition("/routing")[1] + kept.partition("/routing")[2])
    expect(other.get_by_label("Texts kept by readers")).to_have_value("A beginning")
    trace(page, "The first words, and more of them.")
    page.get_by_role("button", name="Replace “A beginning”").click()
    expect(page).to_have_url(re.compile(re.search("own-[0-9a-f]{32}", kept)[0]))
    expect(page.locator("#lpr-text .lpr-text")).to_have_text("The first words, and more of them.")
    page.get_by_label("Its name").fill("An end")
    page.get_by_role("button", name="Save changes").click()
    expect(page.get_by_label("Texts kept by readers")).to_have_value("An end")
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Leave it").click()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete for everybody").click()
    expect(page.get_by_role("status").filter(has_text="Deleted.")).to_be_visible()
    expect(page.get_by_label("Texts kept by readers")).to_have_count(0)
    other.reload()
    expect(other.get_by_text("it was never kept, or somebody deleted it")).to_be_visible()


def test_a_file_of_lines_is_imported_into_a_group_and_a_line_that_is_not_utf8_is_named(open_page, axe, tiny):
    page = open_page(f"/routing?run={tiny}&text=own")
    page.get_by_role("button", name="Import a file of texts, one a line").click()
    file, box = page.get_by_label("Open a file"), page.get_by_label("Texts, one a line", exact=True)
    file.set_input_files({"name": "bad.txt", "mimeType": "text/plain", "buffer": b"good\n\xff bad"})
    expect(page.get_by_role("alert").filter(has_text="Line 2 of the file is not UTF-8")).to_be_visible()
    expect(box).to_have_value("")
    lines = "Μια θάλασσα.\r\n\nبحر <b>\n"
    file.set_input_files({"name": "good.txt", "mimeType": "text/plain", "buffer": lines.encode()})
    expect(box).to_be_focused()
    assert box.input_value().split() == lines.split()
    page.get_by_label("Group", exact=True).fill("Seas")
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="2 texts kept with this run")).to_be_visible()
    expect(page.get_by_label("Texts kept by readers")).to_have_value("Seas: Μια θάλασσα. (not traced)")
    expect(page.get_by_label("Your text, in any language")).to_have_value("Μια θάλασσα.")
    assert not axe(page)
    page.get_by_role("button", name="Trace this text").click()
    expect(page.locator("#lpr-text .lpr-text")).to_have_text("Μια θάλασσα.")
    page.get_by_role("button", name=re.compile("^Replace “")).click()
    expect(page.get_by_label("Texts kept by readers")).to_have_value("Seas: Μια θάλασσα.")
    page.set_viewport_size({"width": 360, "height": 780})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.get_by_role("button", name="Delete…").press("Enter")
    page.get_by_role("button", name="Delete all 2 texts of “Seas”").press("Enter")
    expect(page.get_by_role("status").filter(has_text="2 texts of “Seas” deleted.")).to_be_visible()
    expect(page.get_by_label("Texts kept by readers")).to_have_count(0)


def test_two_readers_do_not_see_each_others_text(open_page, tiny):
    one, two = open_page(f"/routing?run={tiny}&text=own"), open_page(f"/routing?run={tiny}&text=own")
    for page, text in ((one, "First reader."), (two, "Second reader.")):
        page.get_by_label("Your text, in any language").fill(text)
    for page in (one, two):
        page.get_by_role("button", name="Trace this text").click()
    expect(one.locator(".lpr-text")).to_have_text("First reader.")
    expect(two.locator(".lpr-text")).to_have_text("Second reader.")
