"""Runs side by side as tables, the same on the page Runs and in reports: results, and settings that differ.

Only a run that is clearly better than every other is marked; everything else says that there is no clear difference.
"""

import html
from collections.abc import Sequence

from lpr_lab.runs.compare.differences import Row, RunDifferences
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.numbers import NOT_MEASURED, change, points_with_interval

esc = html.escape

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


def render(compared: RunDifferences, heads: Sequence[str], groups: Sequence[str] = tuple(_TITLES)) -> str:
    """Return the table, and below it, folded, long groups, what is the same, and what only some recorded.

    Args:
        compared: of two runs or more.
        heads: what stands above the column of each run, as HTML.
        groups: which of its groups, in this order.
    """
    width, body, rest = len(heads), "", ""
    for name in groups:
        rows = [row for row in compared.groups[name] if row.values or row.differs]
        if len(rows) > FOLDED_FROM and name != "results":
            rest += _folded(f"{_TITLES[name]}, {len(rows)} rows", _table(_TITLES[name], heads, _group("", rows, width)))
        else:
            body += _group(_TITLES[name], rows, width)
    same = [row for row in compared.settings if not row.differs and not row.is_partial]
    if same:
        rest += _folded(f"{len(same)} settings that are the same", _plain(same))
    partial = [row for name in groups for row in compared.groups[name] if row.is_partial and not row.values]
    if partial:
        title = f"{len(partial)} {'things' if len(partial) > 1 else 'thing'} that only some of them recorded"
        rest += _folded(title, _table(title, heads, _group("", partial, width)))
    return _table("Runs side by side", heads, body) + _caption(compared) + rest


def _caption(compared: RunDifferences) -> str:
    if not any(row.values for row in (*compared.results, *compared.languages)):
        return ""
    return (
        '<p class="lpr-caption">▼ is clearly better than every other: the 95% interval of the paired difference, over '
        "the documents that both were scored on, leaves zero out. Where no scores by document were kept, there is no "
        "interval and so no clear difference.</p>"
    )


def _table(title: str, heads: Sequence[str], body: str) -> str:
    columns = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return (
        f'<div class="lpr-scroll" tabindex="0" role="region" aria-label="{esc(title)}">'
        f'<table class="lpr-table lpr-compared"><caption class="lpr-hidden">{esc(title)}</caption>'
        f'<thead><tr><th scope="col">What</th>{columns}</tr></thead>{body}</table></div>'
    )


def _group(title: str, rows: Sequence[Row], width: int) -> str:
    if not rows:
        return ""
    head = f'<tr class="lpr-block"><th scope="rowgroup" colspan="{width + 1}">{esc(title)}</th></tr>' if title else ""
    return f"<tbody>{head}{''.join(_row(row) for row in rows)}</tbody>"


def _row(row: Row) -> str:
    cells = ""
    for place, text in enumerate(row.texts):
        value = row.values[place] if row.values else None
        said = esc(change(value) if row.values else NOT_MEASURED if text is None else text)
        if place == row.best:
            said = f'<b>{said} <span aria-hidden="true">▼</span></b><span class="lpr-hidden">, clearly the best</span>'
        cells += f"<td>{said}</td>"
    if not row.values:
        return f'<tr><th scope="row"><code>{esc(row.name)}</code></th>{cells}</tr>'
    code, _, dataset = row.name.partition(", ")
    return f'<tr><th scope="row">{esc(f"{language_name(code)}, {dataset}")}{_apart(row)}</th>{cells}</tr>'


def _apart(row: Row) -> str:
    """Return the verdict of a row of results, and of two runs the paired difference that it rests on."""
    said = [row.verdict] if row.verdict else []
    if row.difference is not None and row.difference.has_interval:
        said.append(f"second − first {points_with_interval(row.difference)}")
    return f"<small>{esc(': '.join(said))}</small>" if said else ""


def _plain(rows: Sequence[Row]) -> str:
    body = "".join(
        f'<tr><th scope="row"><code>{esc(row.name)}</code></th><td>{esc(row.texts[0] or NOT_MEASURED)}</td></tr>'
        for row in rows
    )
    return (
        '<div class="lpr-scroll" tabindex="0" role="region" aria-label="Settings that are the same">'
        f'<table class="lpr-table lpr-plain"><tbody>{body}</tbody></table></div>'
    )


def _folded(title: str, body: str) -> str:
    return f'<details class="lpr-fold"><summary>{esc(title)}</summary>{body}</details>'
