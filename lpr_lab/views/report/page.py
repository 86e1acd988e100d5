"""Runs as one HTML file to send: it opens without a network, keeps every token to be looked into, and prints.

    report = render_report([Run.open("runs", run_id)])

The file holds its own style, script, figures and plotly.js (compressed; the browser unpacks it after the text is
there). A content security policy names the hash of every script, so nothing that came from data can run and nothing can
be fetched. Whatever would make the file larger than `MAX_BYTES` is left out, and the file says so.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.compare.differences import compare_runs
from lpr_lab.runs.environment import package_versions
from lpr_lab.runs.housekeeping import read_tags
from lpr_lab.runs.run import Run
from lpr_lab.storage import write_text
from lpr_lab.text.languages import direction_of
from lpr_lab.views import theme
from lpr_lab.views.html import tokens
from lpr_lab.views.html.comparison import finding, render_comparison
from lpr_lab.views.html.templates import render
from lpr_lab.views.report.article import SECTIONS, Article, Room, Shared
from lpr_lab.views.report.sections import summary
from lpr_lab.views.static import read_static

MAX_BYTES = 7_900_000
MAX_RUNS = 24


def write_report(runs: Sequence[Run], path: Path, **options: Any) -> int:
    """Write a report of one run or several; returns its size in bytes. Takes the options of `render_report`."""
    text = render_report(runs, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return len(text.encode())


def render_report(
    runs: Sequence[Run],
    *,
    title: str = "",
    language: str = "",
    around: Sequence[Run] | None = None,
    own_texts: bool = False,
    compare_pairs: bool = False,
) -> str:
    """Return the report as HTML.

    Args:
        runs: what it is about; with several, a comparison comes first.
        title: instead of the run's own.
        language: code of the language of `title`, for its direction and for screen readers.
        around: all runs of their folder, to name parents and children; by default only `runs`.
        own_texts: also the texts that readers typed on the page `/routing` and kept.
        compare_pairs: also the pairs that readers kept on the page `/compare`.

    Raises:
        UsageError: no run, or too many to read.
    """
    if not runs:
        raise UsageError("A report needs a run. `lpr-lab runs list` shows them; `lpr-lab demo` makes one.")
    if len(runs) > MAX_RUNS:
        raise UsageError(f"A report holds at most {MAX_RUNS} runs; {len(runs)} were given. Choose those that matter.")
    room = Room(MAX_BYTES, MAX_BYTES - _fixed_bytes())
    shared = Shared(around or runs, room, len(runs) == 1, own_texts, compare_pairs)
    comparison = Markup() if shared.is_alone else _side_by_side(runs)
    room.take(comparison)
    articles = [Article(run, f"r{number}-", shared).render() for number, run in enumerate(runs, start=1)]
    script, library = _script(), _library() if shared.figures else ""
    lines = summary(runs[0]) if shared.is_alone else []
    page = render(
        "views/report/page.html.j2",
        title=title or (runs[0].title if shared.is_alone else f"{len(runs)} runs side by side"),
        language=language,
        direction=direction_of(language),
        lead=lines[0] if lines else "",
        facts=[fact for fact in _facts(runs) if fact],
        contents=_contents(runs),
        comparison=comparison,
        articles=articles,
        policy=_policy(script, with_library=bool(shared.figures)),
        style=Markup(_style()),  # noqa: S704, as the two below: ours, or made of characters that end no element
        figures=Markup(_data(shared.figures)),  # noqa: S704
        script=Markup(script),  # noqa: S704
        library=library,
        version=package_versions(("lpr_lab",))["lpr_lab"] or "(version unknown)",
        today=f"{datetime.now(UTC):%Y-%m-%d}",
    )
    return str(page)


def _side_by_side(runs: Sequence[Run]) -> Markup:
    """Return the comparison of several runs; results on different documents are named and left out."""
    try:
        compared = compare_runs(runs)
    except LprError as error:
        return Markup('<p class="lpr-notice" role="note"><b>Not compared.</b> {}</p>').format(error)
    links = [f"#r{number}-top" for number in range(1, len(runs) + 1)]
    table = render_comparison(compared, runs, links=links)
    return render("views/report/side_by_side.html.j2", finding=finding(compared), table=table)


def _facts(runs: Sequence[Run]) -> list[str]:
    """Return what stands below the title: which runs, of what kind, of when, from which code."""
    if len(runs) > 1:
        return [f"{len(runs)} runs"]
    run = runs[0]
    commit = str((run.documents.read("env").get("git") or {}).get("commit") or "")
    facts = [f"Run {run.id}", run.kind, run.created[:10], *(f"#{word}" for word in read_tags(run))]
    return [*facts, f"commit {commit[:10]}"] if commit else facts


def _contents(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return places in the page, and what they are called."""
    if len(runs) == 1:
        return [(f"r1-{key}", title) for key, title in SECTIONS.items()]
    return [("side-by-side", "Side by side")] + [(f"r{n}-top", run.title) for n, run in enumerate(runs, start=1)]


def _policy(script: str, *, with_library: bool) -> str:
    """Return the content security policy: scripts by their hash, nothing from elsewhere."""
    scripts = [script, _plotlyjs()] if with_library else [script]
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _data(figures: dict[str, Any]) -> str:
    """Return figures and the template that all of them share, as JSON that cannot end the element it stands in."""
    value = {"template": theme.template().to_plotly_json() if figures else {}, "figures": figures}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _style() -> str:
    dark = theme.css_colours(":root", dark=True)
    asked = theme.css_colours(':root[data-theme="dark"]', dark=True)
    sheets = ("run_overview.css", "token_strip.css", "expert_panels.css", "continuations.css", "report.css")
    return (
        theme.css_constants()
        + theme.css_colours(":root")
        # On paper it is always light.
        + f"@media screen and (prefers-color-scheme:dark){{{dark.replace(':root', ':root:not([data-theme=light])')}}}"
        + f"@media screen{{{asked}}}"
        + "".join(map(read_static, sheets))
    )


@cache
def _script() -> str:
    return f"{tokens.script()}\n{read_static('report.js')}"


@cache
def _plotlyjs() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


@cache
def _library() -> str:
    """Return plotly.js compressed to a third, as base64."""
    return base64.b64encode(gzip.compress(_plotlyjs().encode(), 9, mtime=0)).decode()


def _fixed_bytes() -> int:
    """Return the size of what every report holds."""
    return len(_library()) + len(_style().encode()) + len(_script().encode()) + 20_000


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
