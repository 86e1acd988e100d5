"""The footer of every page, and the address `/concepts`, which explains the method.

`/concepts` is a document, not a page of the app: `docs/concepts.md` and `docs/glossary.md` as HTML, without a script.
"""

import re
from functools import cache

from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from lpr_lab.runs.environment import folder_of
from lpr_lab.views import theme

PATH = "/concepts"
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


def footer() -> str:
    """Return the foot of every page: what this is in a sentence, and where to read on."""
    links = {"How the method works": PATH, "Glossary": f"{PATH}#glossary"} | PAPERS
    shown = "".join(
        f'<a href="{address}"{"" if address.startswith("/") else " rel=noreferrer"}>{name}</a>'
        for name, address in links.items()
    )
    return f'<section class="lpr-about" aria-label="About lpr_lab"><p>{SENTENCE}</p><p>{shown}</p></section>'


def concepts_route() -> Route:
    """Return the route of `/concepts`."""

    async def answer(request: Request) -> HTMLResponse:
        return HTMLResponse(render_concepts())

    return Route(PATH, answer, methods=["GET"])


@cache
def render_concepts() -> str:
    """Return concepts and glossary as one HTML document, with the way back to the runs."""
    body = "".join(f'<section id="{name}">{_as_html(_text_of(name))}</section>' for name in _DOCUMENTS)
    by_night = f"@media (prefers-color-scheme: dark) {{{theme.css_colours(':root', dark=True)}}}"
    colours = theme.css_colours(":root") + by_night
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Concepts · lpr_lab</title>'
        f"<style>{colours}{_STYLE}</style></head><body>"
        f'<nav aria-label="Pages"><a href="/">lpr_lab: all runs</a></nav><main>{body}</main></body></html>'
    )


_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1rem clamp(1rem, 4vw, 2rem) 4rem; max-width: 46rem; background: var(--lpr-paper);
  color: var(--lpr-ink); font: 1rem/1.6 system-ui, sans-serif; }
a { color: inherit; text-underline-offset: .2em; }
h1, h2, h3 { line-height: 1.3; } h2 { margin-top: 2.5rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .9375rem; }
th, td { padding: .4rem .7rem; border-bottom: 1px solid var(--lpr-line); text-align: start; vertical-align: top; }
pre { overflow-x: auto; padding: .8rem 1rem; border-radius: 8px; background: var(--lpr-sunken); }
:focus-visible { outline: 2px solid var(--lpr-ink); outline-offset: 2px; }
"""


def _text_of(name: str) -> str:
    """Return a document: of the checkout, or as it was installed with the package."""
    return (folder_of("docs") / f"{name}.md").read_text(encoding="utf-8")


def _as_html(text: str) -> str:
    """Return Markdown as HTML; links to files of the repository, which are not served, become their words alone."""
    for name in _DOCUMENTS:
        text = text.replace(f"]({name}.md", f"](#{name}")
    text = re.sub(r"\[([^]]*)\]\((?!https?://|#)[^)]*\)", r"\1", text)
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    wide = '<div class="table" tabindex="0" role="region" aria-label="Table"><table>'
    return html.replace("<table>", wide).replace("</table>", "</table></div>")
