"""Take pictures of every page: `make screenshots`, or with widths and brightness of one's own choice.

They show the newest finished run of the folder, so they are made after `make demo`. Without any run one with made-up
numbers is shown, which is for looking, not for publishing. Look at every selection before committing any.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from lpr_lab.dashboard import serve
from lpr_lab.experiments.doctor import find_browser
from lpr_lab.runs.find import default_runs_dir, list_runs
from lpr_lab.runs.run import Run

PAGES = ("", "routing", "experts", "retention", "compare", "plan")
# What is worth looking at on a page: a token and a layer chosen, two stages, one language.
ASKS = {"routing": "text={lang}&tok=3&layer=12", "compare": "lang={lang}"}
MAX_BYTES = 300_000


def subject(folder: Path) -> Run | None:
    """Return the newest finished expansion."""
    runs = (run for run in list_runs(folder) if not run.problem and run.kind == "expansion")
    return next((run for run in runs if run.status.state == "finished"), None)


def take(browser: Browser, address: str, run: Run, out: Path, width: int, scheme: str, whole: bool) -> None:
    """Write one selection per page at one width and brightness."""
    height = 800 if width >= 1000 else 760
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    for name in PAGES:
        asks = ASKS.get(name, "").format(lang=run.config["expanded"][0])
        page.goto(f"{address}/{name}?run={run.id}&{asks}")
        settle(page)
        file = out / f"{name or 'runs'}-{width}-{scheme}.png"
        page.screenshot(path=str(file), full_page=whole, animations="disabled")
        size = file.stat().st_size
        print(f"{file}  {size / 1000:.0f} kB{'  TOO LARGE TO COMMIT' if size > MAX_BYTES else ''}")
    context.close()


def settle(page: Page) -> None:
    """Wait until a page shows all it has: its parts, its charts, its fonts."""
    page.wait_for_selector("[data-lpr-page=ready]")
    page.wait_for_function("!document.querySelector('[aria-label=\"Empty value\"]')")  # until a chart is there
    page.evaluate("document.fonts.ready")
    page.wait_for_function("!document.querySelector('.pending, .generating')")


def main() -> None:
    """Serve the runs, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs-dir", type=Path, default=default_runs_dir())
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots"))
    parser.add_argument("--widths", type=int, nargs="+", default=[1280, 360])
    parser.add_argument("--schemes", nargs="+", default=["light", "dark"])
    parser.add_argument("--whole", action="store_true", help="the whole page, not what fits a window")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = subject(given.runs_dir)
        if run is None:
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from helpers.sample_runs import make_run

            print(f"No finished expansion in {given.runs_dir}: these pictures show made-up numbers.")
            run = make_run(Path(folder) / "runs")
        address = serve(run.path.parent, port=None, open_browser=False, block=False)
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"])
        for width in given.widths:
            for scheme in given.schemes:
                take(browser, address, run, given.out, width, scheme, given.whole)
        browser.close()


if __name__ == "__main__":
    main()
