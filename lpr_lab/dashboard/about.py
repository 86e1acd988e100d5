"""The footer of every page, and the address `/concepts`, which explains the method.

`/concepts` is a document, not a page of the app: `docs/concepts.md` and `docs/glossary.md` as HTML, without a script.
"""

import re
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from lpr_lab.dashboard import page_data
from lpr_lab.runs.environment import folder_of
from lpr_lab.views import theme
from lpr_lab.views.html.templates import render
from lpr_lab.views.static import read_static

PATH = "/concepts"
CLAIMS = "/claims"
"""The scorecard, see `claims`."""
TOUR = "/tour"
PAPERS = {
    "MoE-LPR (paper)": "https://arxiv.org/abs/2408.11396",
    "LayerMoE (paper)": "https://arxiv.org/abs/2505.22582",
}
SENTENCE = (
    "lpr_lab teaches a language model new languages and keeps those it has: each feed-forward block stays, frozen, as "
    "the original expert of a mixture; new experts learn the new languages, and routers choose the experts for every "
    "token."
)
_DOCUMENTS = ("concepts", "glossary")
_STATIC = Path(__file__).with_name("static")


def footer(page: str = "") -> Markup:
    """Return the foot of a page: what it shows as Python and files, what this is in a sentence, where to read on."""
    links = {
        "Two-minute tour": TOUR,
        "Do the claims hold?": CLAIMS,
        "How the method works": PATH,
        "Glossary": f"{PATH}#glossary",
    } | PAPERS
    data = f"{page_data.PATH}/{page.lower()}" if page else ""
    return render("dashboard/footer.html.j2", sentence=SENTENCE, links=links, data=data)


def concepts_route() -> Route:
    """Return the route of `/concepts`."""

    async def answer(request: Request) -> HTMLResponse:
        return HTMLResponse(render_concepts())

    return Route(PATH, answer, methods=["GET"])


@cache
def render_concepts() -> Markup:
    """Return concepts and glossary as one HTML document, with the way back to the runs."""
    by_night = f"@media (prefers-color-scheme: dark) {{{theme.css_colours(':root', dark=True)}}}"
    return render(
        "dashboard/concepts.html.j2",
        sections={name: _as_html(_text_of(name)) for name in _DOCUMENTS},
        style=Markup(theme.css_colours(":root") + by_night + read_static("concepts.css", _STATIC)),  # noqa: S704, ours
    )


def _text_of(name: str) -> str:
    """Return a document: of the checkout, or as it was installed with the package."""
    return (folder_of("docs") / f"{name}.md").read_text(encoding="utf-8")


def _as_html(text: str) -> Markup:
    """Return Markdown as HTML; links to files of the repository, which are not served, become their words alone."""
    for name in _DOCUMENTS:
        text = text.replace(f"]({name}.md", f"](#{name}")
    text = re.sub(r"\[([^]]*)\]\((?!https?://|#)[^)]*\)", r"\1", text)
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    wide = '<div class="table" tabindex="0" role="region" aria-label="Table"><table>'
    html = html.replace("<table>", wide).replace("</table>", "</table></div>")
    return Markup(html)  # noqa: S704, from documents of ours, without HTML of their own
