"""Runs beside one another: the settings in which they differ, and what came of each."""

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.runs.report import report_link
from lpr_lab.dashboard.shell import PageContext, esc
from lpr_lab.errors import LprError
from lpr_lab.runs.compare.differences import compare_runs
from lpr_lab.runs.run import Run, short_id
from lpr_lab.views.html import comparison

MOST = 6


def chosen_runs(context: PageContext) -> list[Run]:
    """Return the runs that the address asks to compare, those that are there, in its order."""
    readable = {run.id: run for run in context.runs if run.problem is None}
    return [readable[name] for name in dict.fromkeys(context.query.compared) if name in readable][:MOST]


def toggle(context: PageContext, run: Run) -> str:
    """Return the box that puts a run into the comparison or takes it out."""
    chosen = [one.id for one in chosen_runs(context)]
    inside = run.id in chosen
    full = len(chosen) >= MOST and not inside
    others = [name for name in chosen if name != run.id]
    params = esc(context.query.urlencode(runs=",".join(others if inside or full else [*others, run.id])))
    title = f"At most {MOST} runs at once" if full else "Compare with others"
    return (
        f'<a class="lpr-box" href="/?{params}" data-pick="{params}" role="checkbox" '
        f'aria-checked="{str(inside).lower()}" aria-disabled="{str(full).lower()}" '
        f'aria-label="Compare {esc(run.title)}, {esc(short_id(run.id))}" title="{title}"></a>'
    )


def render_comparison(context: PageContext) -> str:
    """Return the table of differences; empty while nothing was chosen."""
    runs = chosen_runs(context)
    if not runs:
        return ""
    if len(runs) == 1:
        return '<p class="lpr-caption lpr-compare-hint">Select a second run to see differences.</p>'
    try:
        compared = compare_runs(runs)
    except LprError as error:
        return shell.notice("bad", esc(str(error)))
    table = comparison.render_comparison(compared, runs, ("results", "settings", "data", "environment"))
    clear = esc(context.query.urlencode(runs=""))
    said = f"{len(runs)} runs: {comparison.finding(compared)}"
    return (
        f'<section class="lpr-card" aria-label="Comparison"><h2 class="lpr-subfinding">{esc(said)}</h2>{table}'
        f'<p class="lpr-caption"><a href="/?{clear}" data-pick="{clear}">Compare none</a></p>'
        f'<div class="lpr-links">{report_link(runs, "Export report of these")}</div></section>'
    )
