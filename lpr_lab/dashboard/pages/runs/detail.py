"""One run in full: results, claims, phases, settings and lineage."""

from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.runs.live import AT_WORK, snapshot_of
from lpr_lab.dashboard.pages.runs.report import report_link
from lpr_lab.dashboard.pages.runs.sweep import command_of, render_sweep
from lpr_lab.dashboard.query import Query
from lpr_lab.errors import LprError
from lpr_lab.experiments.sweep.grid import KIND as SWEEP
from lpr_lab.runs.compare.differences import flatten
from lpr_lab.runs.lineage import ancestors_of, children_of
from lpr_lab.runs.model_ref import tuned_as
from lpr_lab.runs.people.notes import read_notes
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts
from lpr_lab.views.html import run_overview
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import count
from lpr_lab.wording import counted

PAGES = {
    "/routing": "Where its tokens went",
    "/experts": "What its experts do",
    "/retention": "What it gained and kept",
    "/compare": "What it says",
}
PAGES_OF_KIND: dict[str, dict[str, str]] = {
    "plan": {"/plan": "What it plans, and what that costs"},
    "upcycle": {"/routing": "Where tokens go before training", "/plan": "What it costs"},
    "baseline": {"/retention": "What it gained and kept", "/compare": "What it says"},
    "text": {},
    "sweep": {},
}
"""The pages for runs that are no expansions."""


def render_detail(run: Run, runs: list[Run]) -> Markup:
    """Return everything about one run but its curves."""
    try:
        made = [
            _title(run),
            _notes(run),
            _state(run),
            _alerts(run),
            run_overview.render_tiles(run),
            render_sweep(run, runs),
        ]
        made += [_section(run_overview.claims_finding(run), run_overview.render_claims(run)), _lineage(run, runs)]
        made += [_section(run_overview.phases_finding(run), run_overview.render_phases(run)), *_settings(run)]
        made += [_folded("Text it was made from", run_overview.render_texts(run))]
    except LprError as error:
        made = [_title(run), shell.notice("bad", str(error))]
    article = Markup('<article class="lpr-detail" aria-label="Run {}">{}</article>')
    return article.format(run.title, Markup("").join(made))


def _title(run: Run) -> Markup:
    pages = PAGES_OF_KIND.get("baseline" if tuned_as(run) else run.kind, PAGES)
    return render(
        "dashboard/pages/runs/title.html.j2",
        title=run.title,
        id=run.id,
        badges=Markup("{}{}").format(shell.example_badge(run), shell.tag_chips(run)),
        links={Query(run=run.id).link(path): text for path, text in pages.items()},
        report=report_link([run], "Export report"),
    )


def _state(run: Run) -> Markup:
    """Say what the state means and what to do; a finished run needs neither, one at work has a card of its own."""
    status, step = run.status, _last_step(run)
    again = shell.command(command_of(run) if run.kind == SWEEP else "lpr-lab demo")
    said = Markup("{} at {}{}. The same command again goes on from there: {}")
    match status.state:
        case "interrupted":
            return shell.notice("warn", said.format("Interrupted", status.stage or "its start", step, again))
        case "failed":
            where = (status.stage or "its start").replace("_", " ")
            code = "" if status.exit_code is None else f" with exit code {status.exit_code}"
            tail = Markup('<pre class="lpr-log">{}</pre>').format(status.error_tail or "No message was left.")
            return shell.notice("bad", said.format("It failed", where, code + step, again)) + tail
        case "queued":
            return shell.notice("info", "Not started yet.")
    return shell.notice("info", run.note) if run.note else Markup("")


def _alerts(run: Run) -> Markup:
    """Return what the run raised itself; of one at work the card that follows it says so."""
    if run.status.state in AT_WORK and not run.is_example:
        return Markup("")
    return Markup("").join(shell.notice("warn", alerts.line(alert)) for alert in alerts.read(run))


def _last_step(run: Run) -> str:
    seen = snapshot_of(run)
    return "" if seen.step is None else f", step {seen.step}, {count(seen.tokens or 0)} tokens"


def _lineage(run: Run, runs: list[Run]) -> Markup:
    before, children = ancestors_of(run, runs), children_of(run, runs)
    if not before and not children:
        return Markup("")
    titles = {other.id: other.title for other in runs}

    def link(run_id: str) -> Markup:
        if run_id not in titles:
            return Markup("<span>{} (not here)</span>").format(run_id)
        named = Markup('<a href="/?{0}" data-pick="{0}">{1}</a>')
        return named.format(Query(run=run_id).urlencode(), titles[run_id])

    earlier = Markup(" ").join(Markup("{} →").format(link(parent)) for parent in before)
    if run.kind == SWEEP and children:
        after = Markup("→ {} of this sweep").format(counted(len(children), "run"))  # its table links to them
    else:
        after = Markup(" ").join(Markup("→ {}").format(link(child.id)) for child in children)
    section = Markup('<section><h3>Lineage</h3><p class="lpr-lineage">{} <b>{}</b> {}</p></section>')
    return section.format(earlier, run.title, after)


def _section(title: str, body: str | Markup) -> Markup:
    return Markup("<section><h3>{}</h3>{}</section>").format(title, body) if body else Markup("")


def _folded(title: str, body: str | Markup) -> Markup:
    if not body:
        return Markup("")
    fold = Markup('<details class="lpr-fold"><summary>{}</summary><div class="lpr-scroll">{}</div></details>')
    return fold.format(title, body)


def _settings(run: Run) -> list[Markup]:
    told = {"Settings": flatten(run.config), "Made with": flatten(run.documents.read("env"))}
    return [_folded(title, run_overview.render_settings(pairs)) for title, pairs in told.items() if pairs]


def _notes(run: Run) -> Markup:
    notes = read_notes(run)
    section = Markup('<section class="lpr-noted"><h3>Notes</h3><p class="lpr-notes" dir="auto">{}</p></section>')
    return section.format(notes) if notes else Markup("")
