"""One run in full: what came of it, what it promised, what it did and when, what it was made from."""

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.runs.live import snapshot_of
from lpr_lab.dashboard.pages.runs.report import report_link
from lpr_lab.dashboard.pages.runs.sweep import command_of, render_sweep
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.shell import esc
from lpr_lab.errors import LprError
from lpr_lab.experiments.sweep.grid import KIND as SWEEP
from lpr_lab.runs.compare.differences import flatten
from lpr_lab.runs.lineage import ancestors_of, children_of
from lpr_lab.runs.run import Run
from lpr_lab.views.html import run_overview
from lpr_lab.views.numbers import count

PAGES = {
    "/routing": "Where its tokens went",
    "/experts": "What its experts do",
    "/retention": "What it gained and kept",
    "/compare": "What it says",
}
PAGES_OF_KIND: dict[str, dict[str, str]] = {
    "plan": {"/plan": "What it plans, and what that costs"},
    "upcycle": {"/routing": "Where tokens go before training", "/plan": "What it costs"},
    "text": {},
    "sweep": {},
}
"""What other runs than expansions can be looked at with."""


def render_detail(run: Run, runs: list[Run]) -> str:
    """Return everything about one run but its curves."""
    try:
        parts = [_title(run), _state(run), run_overview.render_tiles(run), render_sweep(run, runs)]
        parts += [_section(run_overview.claims_finding(run), run_overview.render_claims(run)), _lineage(run, runs)]
        parts += [_section(run_overview.phases_finding(run), run_overview.render_phases(run)), _settings(run)]
        parts += [_folded("Text it was made from", run_overview.render_texts(run)), _notes(run)]
    except LprError as error:
        parts = [_title(run), shell.notice("bad", esc(str(error)))]
    return f'<article class="lpr-detail" aria-label="Run {esc(run.title)}">{"".join(parts)}</article>'


def _title(run: Run) -> str:
    query = Query(run=run.id)
    pages = PAGES_OF_KIND.get(run.kind, PAGES)
    links = "".join(f'<a class="lpr-button" href="{query.link(path)}">{text}</a>' for path, text in pages.items())
    links += report_link([run], "Export report")
    return (
        f"<header><h2>{esc(run.title)} {shell.example_badge(run)}{shell.tag_chips(run)}</h2>"
        f'<p class="lpr-id">{esc(run.id)}</p><div class="lpr-links">{links}</div></header>'
    )


def _state(run: Run) -> str:
    """Say what the state means and what to do; a finished run needs neither, one at work has a card of its own."""
    status = run.status
    step = _last_step(run)
    where = esc((status.stage or "its start").replace("_", " "))
    again = shell.command(command_of(run) if run.kind == SWEEP else "lpr-lab demo")
    match status.state:
        case "interrupted":
            text = (
                f"Interrupted at {esc(status.stage or 'its start')}{step}. The same command again goes on from there: "
            )
            return shell.notice("warn", text + again)
        case "failed":
            tail = f'<pre class="lpr-log">{esc(status.error_tail or "No message was left.")}</pre>'
            code = "" if status.exit_code is None else f" with exit code {status.exit_code}"
            text = f"It failed at {where}{code}{step}. The same command again goes on from there: "
            return shell.notice("bad", text + again) + tail
        case "queued":
            return shell.notice("info", "Not started yet.")
    return shell.notice("info", esc(run.note)) if run.note else ""


def _last_step(run: Run) -> str:
    seen = snapshot_of(run)
    return "" if seen.step is None else f", step {seen.step}, {count(seen.tokens or 0)} tokens"


def _lineage(run: Run, runs: list[Run]) -> str:
    before, children = ancestors_of(run, runs), children_of(run, runs)
    if not before and not children:
        return ""
    titles = {other.id: other.title for other in runs}

    def link(run_id: str) -> str:
        params = esc(Query(run=run_id).urlencode())
        known = run_id in titles
        name = esc(titles.get(run_id, run_id))
        return f'<a href="/?{params}" data-pick="{params}">{name}</a>' if known else f"<span>{name} (not here)</span>"

    earlier = " ".join(f"{link(parent)} →" for parent in before)
    if run.kind == SWEEP and children:
        after = f"→ {len(children)} runs of this sweep"  # its table links to them
    else:
        after = " ".join(f"→ {link(child.id)}" for child in children)
    return f'<section><h3>Lineage</h3><p class="lpr-lineage">{earlier} <b>{esc(run.title)}</b> {after}</p></section>'


def _section(title: str, body: str) -> str:
    return f"<section><h3>{esc(title)}</h3>{body}</section>" if body else ""


def _folded(title: str, body: str) -> str:
    if not body:
        return ""
    return f'<details class="lpr-fold"><summary>{esc(title)}</summary><div class="lpr-scroll">{body}</div></details>'


def _settings(run: Run) -> str:
    settings, made_with = flatten(run.config), flatten(run.documents.read("env"))
    parts = [_folded("Settings", run_overview.render_settings(settings))] if settings else []
    parts += [_folded("Made with", run_overview.render_settings(made_with))] if made_with else []
    return "".join(parts)


def _notes(run: Run) -> str:
    notes = run.documents.notes
    return f'<section><h3>Notes</h3><p class="lpr-notes">{esc(notes)}</p></section>' if notes.strip() else ""
