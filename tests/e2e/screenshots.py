"""Take pictures of every page: `python tests/e2e/screenshots.py --runs-dir runs --out docs/screenshots`.

Without `--runs-dir` a run with made-up numbers is shown, which is for looking, not for publishing. Look at every
picture before committing any.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from lpr_lab.dashboard import serve

PAGES = {"runs": "/", "routing": "/routing", "retention": "/retention", "compare": "/compare"}
MAX_BYTES = 300_000


def take(browser: Browser, address: str, query: str, out: Path, width: int, scheme: str, whole: bool) -> None:
    """Write one picture per page at one width and brightness."""
    height = 800 if width >= 1000 else 760
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    for name, path in PAGES.items():
        page.goto(f"{address}{path}{query}")
        page.wait_for_selector("[data-lpr-page=ready]")
        if name != "compare":
            page.wait_for_selector(".js-plotly-plot .main-svg, .lpr-empty")
        page.evaluate("document.fonts.ready")
        file = out / f"{name}-{width}-{scheme}.png"
        page.screenshot(path=str(file), full_page=whole, animations="disabled")
        size = file.stat().st_size
        print(f"{file}  {size / 1000:.0f} kB{'  TOO LARGE TO COMMIT' if size > MAX_BYTES else ''}")
    context.close()


def main() -> None:
    """Serve the runs, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs-dir", type=Path)
    parser.add_argument("--query", default="", help="such as '?run=ID&text=el&tok=3'")
    parser.add_argument("--out", type=Path, default=Path("docs/screenshots"))
    parser.add_argument("--widths", type=int, nargs="+", default=[1280, 360])
    parser.add_argument("--schemes", nargs="+", default=["light", "dark"])
    parser.add_argument("--whole", action="store_true", help="the whole page, not what fits a window")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        if given.runs_dir is None:
            sys.path.insert(0, str(Path(__file__).parents[1]))
            from sample_runs import make_run

            given.runs_dir = make_run(Path(folder) / "runs").path.parent
        address = serve(given.runs_dir, port=None, open_browser=False, block=False)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for width in given.widths:
            for scheme in given.schemes:
                take(browser, address, given.query, given.out, width, scheme, given.whole)
        browser.close()


if __name__ == "__main__":
    main()
