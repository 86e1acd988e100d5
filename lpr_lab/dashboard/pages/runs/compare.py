"""Comparison of runs: the settings in which they differ, and the results of each."""

from collections.abc import Sequence

from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.runs.report import report_link
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import LprError
from lpr_lab.runs.compare.differences import compare_runs
from lpr_lab.runs.run import Run, short_id
from lpr_lab.views.html import comparison
from lpr_lab.views.html.templates import render

MOST = 6


def chosen_runs(context: PageContext) -> list[Run]:
    """Return the runs that the address asks to compare, those that are there, in its order."""
    readable = {run.id: run for run in context.runs if run.problem is None}
    return [readable[name] for name in dict.fromkeys(context.query.compared) if name in readable][:MOST]


def toggle(context: PageContext, run: Run, ticked: Sequence[str]) -> Markup:
    """Return the box that puts a run into the comparison or takes it out.

    It names its run alone (`data-tick`), and the script adds that to what is ticked by then: an address that was
    written when the page was drawn would leave out what was ticked since.

    Args:
        context: of the page.
        run: the box's own.
        ticked: ids of the runs that are compared.
    """
    inside = run.id in ticked
    full = len(ticked) >= MOST and not inside
    others = [name for name in ticked if name != run.id]
    query = context.query.urlencode(runs=",".join(others if inside or full else [*others, run.id]))
    box = Markup(
        '<a class="lpr-box" href="/?{query}" data-tick="{id}" data-most="{most}" role="checkbox" '
        'aria-checked="{inside}" aria-disabled="{full}" aria-label="Compare {name}" title="{title}"></a>'
    )
    return box.format(
        query=query,
        id=run.id,
        most=MOST,
        inside=str(inside).lower(),
        full=str(full).lower(),
        name=f"{run.title}, {short_id(run.id)}",
        title=f"At most {MOST} runs at once" if full else "Compare with others",
    )


def render_comparison(context: PageContext) -> Markup:
    """Return the table of differences; empty while nothing was chosen."""
    runs = chosen_runs(context)
    if not runs:
        return Markup("")
    if len(runs) == 1:
        return Markup('<p class="lpr-caption lpr-compare-hint">Select a second run to see differences.</p>')
    try:
        compared = compare_runs(runs)
    except LprError as error:
        return shell.notice("bad", str(error))
    return render(
        "dashboard/pages/runs/compare.html.j2",
        finding=f"{len(runs)} runs: {comparison.finding(compared)}",
        table=comparison.render_comparison(compared, runs, ("results", "settings", "data", "environment")),
        clear=context.query.urlencode(runs=""),
        report=report_link(runs, "Export report of these"),
    )
