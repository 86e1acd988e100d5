"""Runs side by side as tables, the same on the page Runs and in reports: results, and settings that differ.

Only a run that is clearly better than every other is marked; everything else says that there is no clear difference.
"""

from collections.abc import Sequence

from markupsafe import Markup, escape

from lpr_lab.runs.compare.differences import Row, RunDifferences
from lpr_lab.runs.run import Run, short_id
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.templates import notice, render
from lpr_lab.views.numbers import points_with_interval

FOLDED_FROM = 12
"""Rows; longer groups stand below, to be opened."""

_TITLES = {
    "results": "Mean change of bits per byte; less is better",
    "languages": "Change by language",
    "settings": "Settings that differ",
    "data": "Text that differs",
    "environment": "Environment that differs",
}


def finding(compared: RunDifferences) -> str:
    """Return in how many settings the runs differ."""
    differing = sum(row.differs for row in compared.settings)
    if differing:
        return f"{differing} of {len(compared.settings)} settings differ"
    if any(row.is_partial for row in compared.settings):
        return "All settings that they all recorded are the same"
    return "All settings are the same"


def notices(compared: RunDifferences, runs: Sequence[Run]) -> list[str]:
    """Return what keeps these from being compared, in sentences."""
    said, kinds = [], sorted({run.kind for run in runs})
    if len(kinds) > 1:
        said.append(f"These are runs of different kinds ({', '.join(kinds)}).")
    if compared.refusal:
        said.append(compared.refusal)
    if compared.unlike:
        where = ", ".join(f"{language_name(language)} ({dataset})" for dataset, language in compared.unlike)
        said.append(f"Their test sets hold different documents: {where}. Their results there are not put side by side.")
    return said


def render_comparison(
    compared: RunDifferences,
    runs: Sequence[Run],
    groups: Sequence[str] = tuple(_TITLES),
    links: Sequence[str] = (),
) -> Markup:
    """Return what keeps runs from being compared, their table, and, folded, long groups and what is the same.

    Args:
        compared: of two runs or more.
        runs: the same.
        groups: which of its groups, in this order.
        links: an address for each run, for its name in the head of the table.
    """
    rows = {name: [row for row in compared.groups[name] if row.values or row.differs] for name in groups}
    is_long = {name: len(rows[name]) > FOLDED_FROM and name != "results" for name in groups}
    titled = [{"title": _TITLES[name], "rows": rows[name], "is_long": is_long[name]} for name in groups]
    return render(
        "views/html/comparison.html.j2",
        notices=[notice("warn", said) for said in notices(compared, runs)],
        runs=runs,
        links=links,
        short_id=short_id,
        open=[group for group in titled if not group["is_long"]],
        long=[group for group in titled if group["is_long"]],
        has_results=any(row.values for row in (*compared.results, *compared.languages)),
        same=[(row.name, row.texts[0]) for row in compared.settings if not row.differs and not row.is_partial],
        partial=[row for name in groups for row in compared.groups[name] if row.is_partial and not row.values],
        row_name=_name,
    )


def _name(row: Row) -> Markup:
    """Return what a row is about; of results also the verdict, and of two runs the difference that it rests on."""
    if not row.values:
        return Markup("<code>{}</code>").format(row.name)
    code, _, dataset = row.name.partition(", ")
    said = [row.verdict] if row.verdict else []
    if row.difference is not None and row.difference.has_interval:
        said.append(f"second − first {points_with_interval(row.difference)}")
    verdict = Markup("<small>{}</small>").format(": ".join(said)) if said else ""
    return escape(f"{language_name(code)}, {dataset}") + verdict
