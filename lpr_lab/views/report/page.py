"""Runs as one HTML file to send: it opens without a network, keeps every token to be looked into, and prints.

    report = render_report([Run.open("runs", run_id)])

The file holds its own style, script, figures and plotly.js (compressed; the browser unpacks it after the text is
there). A content security policy names the hash of every script, so nothing that came from data can run and nothing can
be fetched. Whatever would make the file larger than `MAX_BYTES` is left out, and the file says so.
"""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from lpr_lab.errors import LprError, UsageError
from lpr_lab.runs.environment import package_versions
from lpr_lab.runs.housekeeping import read_tags
from lpr_lab.runs.run import Run
from lpr_lab.storage import write_text
from lpr_lab.views import theme
from lpr_lab.views.html import run_overview, tokens
from lpr_lab.views.report import charts as report_charts
from lpr_lab.views.report import parts
from lpr_lab.views.report.charts import Chart
from lpr_lab.views.report.comparison import render_comparison
from lpr_lab.views.static import read_static

MAX_BYTES = 7_900_000
MAX_RUNS = 24

esc = html.escape


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
    figures: dict[str, Any] = {}
    bodies = []
    room = _Room(MAX_BYTES - _fixed_bytes())
    typed = _Typed(own_texts, compare_pairs)
    compared = render_comparison(runs) if len(runs) > 1 else ""
    room.take(compared)
    for number, run in enumerate(runs, start=1):
        prefix = f"r{number}-"
        bodies.append("".join(_run(run, prefix, around or runs, figures, room, typed, len(runs) > 1)))
    name = title or (runs[0].title if len(runs) == 1 else f"{len(runs)} runs side by side")
    head = _masthead(runs, name, language)
    return _page(name, head, _contents(runs), compared + "".join(bodies), figures)


@dataclass(frozen=True)
class _Typed:
    """What of that which people typed goes into a report; nothing unless somebody says so."""

    own_texts: bool
    compare_pairs: bool


class _Room:
    """How much may still be added. What does not fit is counted, never cut."""

    def __init__(self, left: int):
        self.left = left

    def take(self, text: str) -> bool:
        """Whether a text fits; then it counts."""
        size = len(text.encode())
        if size > self.left:
            return False
        self.left -= size
        return True


# ----------------------------------------------------------------------------------------------------- one run


SECTIONS = {
    "summary": "Summary",
    "promises": "What the method promises",
    "retention": "What was gained, what was kept",
    "routing": "Where tokens go",
    "experts": "What experts do",
    "texts": "Token by token",
    "said": "Two models continue one beginning",
    "training": "Training",
    "origin": "What it was made from",
    "repeat": "How to repeat it",
}


def _run(
    run: Run, prefix: str, around: Sequence[Run], figures: dict[str, Any], room: _Room, typed: _Typed, several: bool
) -> Iterator[str]:
    heading = f'<h2 id="{prefix}top">{esc(run.title)}</h2>' if several else '<h2 class="lpr-hidden">The run</h2>'
    yield f'<article class="lpr-run" aria-label="{esc(run.title)}">{heading}'
    if several:
        yield f'<p class="lpr-id">{esc(run.id)}</p>'
    yield parts.standing(run)
    drawn: list[str] = []
    for key, title in SECTIONS.items():
        try:
            body, lead = _section(key, run, prefix, around, figures, room, typed, drawn, several)
        except (LprError, LookupError, TypeError, ValueError, OSError) as error:
            # One damaged or foreign file must not keep the rest from being sent.
            body, lead = parts.unreadable(run, error), ""
        text = parts.section(prefix + key, title, body, lead)
        if not room.take(text):
            text = parts.section(prefix + key, title, _too_large())
        yield text
    if (notes := run.documents.notes).strip():
        yield parts.section(f"{prefix}notes", "Notes", f'<p class="lpr-notes" dir="auto">{esc(notes)}</p>')
    yield "</article>"


def _section(
    key: str,
    run: Run,
    prefix: str,
    around: Sequence[Run],
    figures: dict[str, Any],
    room: _Room,
    typed: _Typed,
    drawn: list[str],
    several: bool,
) -> tuple[str, str]:
    """Return a section's body and the sentence above it; charts go into `figures`."""

    def charts(found: Iterator[Chart], **options: Any) -> str:
        out = []
        for one in found:
            if not room.take(json.dumps(one.figure)):
                out.append(_too_large())
                continue
            figures[prefix + one.name] = one.figure
            drawn.append(one.name)
            out.append(parts.chart(prefix, one, **options))
        return "".join(out)

    match key:
        case "summary":
            lines = parts.words(run)
            tiles = run_overview.render_tiles(run)
            body = f"{tiles}{''.join(f'<p>{esc(line)}</p>' for line in lines[1:])}"
            lead = lines[0] if lines and several else ""  # alone, it stands at the head of the page
            return body or parts.missing("This run has no results of an expansion."), lead
        case "promises":
            body = run_overview.render_claims(run)
            return body or parts.missing("No promise was checked in this run."), (
                run_overview.claims_finding(run) + "." if body else ""
            )
        case "retention":
            body = charts(report_charts.retention_charts(run), open_table=True)
            return body or parts.missing("No model of this run was scored on test documents."), ""
        case "routing":
            body = charts(report_charts.routing_charts(run))
            return body or parts.missing("Routing by language and layer was not recorded."), ""
        case "experts":
            body = parts.experts(run) + charts(report_charts.expert_charts(run))
            return body or parts.missing("What each expert carries was not counted."), ""
        case "texts":
            return _strips(run, prefix, room, typed), ""
        case "said":
            body = parts.continuations(run, typed=typed.compare_pairs)
            return body or parts.missing("Base and expanded model continued no prompt in this run."), ""
        case "training":
            found = charts(report_charts.plan_charts(run)) + charts(report_charts.training_charts(run))
            found = found or parts.missing("No number was recorded while training.")
            phases = run_overview.render_phases(run)
            kept = charts(report_charts.kept_charts(run, drawn))
            return found + kept + (f"<h4>{esc(run_overview.phases_finding(run))}</h4>{phases}" if phases else ""), ""
        case "origin":
            return parts.lineage(run, around) + parts.licences(run) + parts.made_with(run), ""
        case _:
            return parts.repeat(run), ""


def _strips(run: Run, prefix: str, room: _Room, typed: _Typed) -> str:
    shown, left_out = [], []
    for name, strip in parts.strips(run, own_texts=typed.own_texts):
        if len(strip.encode()) < room.left // 2:  # the other half is for what follows, and for further runs
            shown.append((name, strip))
            room.left -= len(strip.encode())
        else:
            left_out.append(name)
    note = f'<p class="lpr-note">Left out, to keep this file small: {esc(", ".join(left_out))}.</p>' if left_out else ""
    if not shown and not left_out:
        return parts.missing("No text was traced through this run's model.")
    room.left += sum(len(strip.encode()) for _, strip in shown)  # taken again with the whole section
    return (parts.tabs(f"{prefix}strips", shown) if shown else "") + note


def _too_large() -> str:
    return f'<p class="lpr-note">Left out, to keep this file below {MAX_BYTES / 1e6:.0f} MB.</p>'


# ----------------------------------------------------------------------------------------------------- the page


def _masthead(runs: Sequence[Run], name: str, language: str) -> str:
    run = runs[0]
    facts = [f"{len(runs)} runs"] if len(runs) > 1 else [f"Run {run.id}", run.kind, run.created[:10]]
    if len(runs) == 1:
        facts += [f"#{word}" for word in read_tags(run)]
        commit = str((run.documents.read("env").get("git") or {}).get("commit") or "")
        facts += [f"commit {commit[:10]}"] if commit else []
    lines = parts.words(run) if len(runs) == 1 else []
    lead = f'<p class="lpr-standfirst">{esc(lines[0])}</p>' if lines else ""
    return (
        '<header class="lpr-masthead"><div class="lpr-top"><p class="lpr-brand">'
        '<svg viewBox="0 0 28 20" aria-hidden="true"><circle cx="10" cy="10" r="8.5" fill="var(--lpr-original)"/>'
        '<circle cx="18" cy="10" r="7.5" fill="none" stroke="var(--lpr-new)" stroke-width="2.5" '
        'stroke-dasharray="3.4 2.1"/></svg>lpr_lab <span>report</span></p>'
        '<button type="button" id="lpr-brightness" hidden>Dark</button></div>'
        f'<h1{parts.title_direction(language)}>{esc(name)}</h1>{lead}<p class="lpr-facts">'
        + "".join(f"<span>{esc(fact)}</span>" for fact in facts if fact)
        + "</p></header>"
    )


def _contents(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        items = [(f"r1-{key}", title) for key, title in SECTIONS.items()]
    else:
        items = [("side-by-side", "Side by side")] + [(f"r{n}-top", run.title) for n, run in enumerate(runs, start=1)]
    links = "".join(f'<li><a href="#{key}">{esc(title)}</a></li>' for key, title in items)
    return f'<nav class="lpr-contents" aria-label="Contents"><ol>{links}</ol></nav>'


def _page(name: str, head: str, contents: str, body: str, figures: dict[str, Any]) -> str:
    script, library = _script(), _library() if figures else ""
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}" + (f" {_hash(_plotlyjs())}" if figures else ""),
            "style-src 'unsafe-inline'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    version = package_versions(("lpr_lab",))["lpr_lab"] or "(version unknown)"
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    written = f"Written {today} by lpr_lab {version}. This file needs no network and loads nothing."
    return (
        '<!doctype html><html lang="en" dir="ltr"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{esc(policy)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{esc(name)}</title><style>{_style()}</style></head>"
        f'<body><a class="lpr-skip" href="#lpr-main">Skip to the findings</a><div class="lpr-page">{head}{contents}'
        f'<main id="lpr-main" tabindex="-1">{body}</main><footer class="lpr-foot-note">{esc(written)}</footer></div>'
        f'<script type="application/json" id="lpr-figures">{_data(_with_look(figures))}</script>'
        f'<script type="application/octet-stream" id="lpr-library">{library}</script>'
        f"<script>{script}</script></body></html>"
    )


def _with_look(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures with the template that all of them share."""
    return {
        "template": theme.template().to_plotly_json() if figures else {},
        "figures": figures,
    }


def _data(value: Any) -> str:
    """Return JSON that cannot end the element it stands in."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


@cache
def _style() -> str:
    dark = theme.css_colours(":root", dark=True)
    asked = theme.css_colours(':root[data-theme="dark"]', dark=True)
    return (
        theme.css_constants()
        + theme.css_colours(":root")
        # On paper it is always light.
        + f"@media screen and (prefers-color-scheme:dark){{{dark.replace(':root', ':root:not([data-theme=light])')}}}"
        + f"@media screen{{{asked}}}"
        + read_static("run_overview.css")
        + read_static("token_strip.css")
        + read_static("expert_panels.css")
        + read_static("continuations.css")
        + read_static("report.css")
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
