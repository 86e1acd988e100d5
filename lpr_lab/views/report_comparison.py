"""Several runs at the head of a report: results beside one another where that is fair, and in what the runs differ."""

import html
from collections.abc import Sequence

from lpr_lab.errors import LprError
from lpr_lab.experiments.run_differences import Comparison, Row, compare_runs
from lpr_lab.experiments.runs import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.numbers import NOT_MEASURED
from lpr_lab.views.numbers import change as change_text

esc = html.escape

FOLDED_FROM = 12
"""Rows; longer groups stand below, to be opened."""

_TITLES = {
    "settings": "Settings that differ",
    "data": "Text that differs",
    "environment": "Environment that differs",
}


def render_comparison(runs: Sequence[Run]) -> str:
    """Return the comparison; results on different documents are named and left out."""
    try:
        compared = compare_runs(runs)
    except LprError as error:
        return f'<p class="lpr-notice" role="note"><b>Not compared.</b> {esc(str(error))}</p>'
    heads = "".join(
        f'<th scope="col"><a href="#r{n}-top">{esc(run.title)}</a>'
        f"<small>{esc(run.created[:10])} {esc(run.id[-4:])}</small></th>"
        for n, run in enumerate(runs, start=1)
    )
    groups = _group("Mean change of bits per byte; less is better", compared.results, len(runs))
    groups += _group("Change by language", compared.languages, len(runs))
    rest = ""
    for name, title in _TITLES.items():
        rows = [row for row in compared.groups[name] if row.differs]
        if len(rows) > FOLDED_FROM:
            rest += (
                f'<details class="lpr-fold"><summary>{title}, {len(rows)} rows</summary>'
                f"{_table(title, heads, _group(title, rows, len(runs)))}</details>"
            )
        else:
            groups += _group(title, rows, len(runs))
    settings = sum(row.differs for row in compared.settings)
    said = f"{settings} of {len(compared.settings)} settings differ" if settings else "All settings are the same"
    return (
        '<section id="side-by-side" aria-labelledby="side-by-side-h"><h2 id="side-by-side-h">Side by side</h2>'
        f'<p class="lpr-lead">{esc(said)}.</p>{_unlike(compared)}{_kinds(runs)}'
        f"{_table('Runs side by side', heads, groups)}{rest}</section>"
    )


def _table(title: str, heads: str, groups: str) -> str:
    return (
        f'<div class="lpr-scroll" tabindex="0" role="region" aria-label="{title}">'
        f'<table class="lpr-table lpr-compared"><caption class="lpr-hidden">{title}</caption>'
        f'<thead><tr><th scope="col">What</th>{heads}</tr></thead>{groups}</table></div>'
    )


def _unlike(compared: Comparison) -> str:
    if compared.refusal:
        return f'<p class="lpr-notice" role="note"><b>Not compared.</b> {esc(compared.refusal)}</p>'
    if not compared.unlike:
        return ""
    where = ", ".join(f"{language_name(language)} ({dataset})" for dataset, language in compared.unlike)
    return (
        '<p class="lpr-notice" role="note"><b>Not compared.</b> The test sets hold different documents, so numbers on '
        f"them say nothing about the models side by side: {esc(where)}.</p>"
    )


def _kinds(runs: Sequence[Run]) -> str:
    kinds = sorted({run.kind for run in runs})
    if len(kinds) < 2:
        return ""
    said = f"These are runs of different kinds ({', '.join(kinds)})."
    return f'<p class="lpr-notice" role="note"><b>Notice.</b> {esc(said)}</p>'


def _group(title: str, rows: Sequence[Row], width: int) -> str:
    if not rows:
        return ""
    head = f'<tr class="lpr-block"><th scope="rowgroup" colspan="{width + 1}">{esc(title)}</th></tr>'
    return f"<tbody>{head}{''.join(_row(row) for row in rows)}</tbody>"


def _row(row: Row) -> str:
    cells = ""
    for place, text in enumerate(row.texts):
        value = row.values[place] if row.values else None
        said = esc(change_text(value) if row.values else text or NOT_MEASURED)
        best = value is not None and value == row.best
        cells += f'<td><b>{said}<span class="lpr-hidden">, best</span></b></td>' if best else f"<td>{said}</td>"
    code, _, dataset = row.name.partition(", ")
    name = esc(f"{language_name(code)}, {dataset}") if row.values else f"<code>{esc(row.name)}</code>"
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'
