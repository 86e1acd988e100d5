"""Runs beside one another: the settings in which they differ, and what came of each."""

from collections.abc import Sequence

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.report import PATH as REPORT
from lpr_lab.dashboard.shell import Scene, esc
from lpr_lab.dashboard.view import View
from lpr_lab.errors import LprError
from lpr_lab.experiments.run_differences import Row, compare_runs
from lpr_lab.experiments.runs import Run
from lpr_lab.views.numbers import NOT_MEASURED, change
from lpr_lab.views.plots import language_name

MOST = 6


def chosen_runs(scene: Scene) -> list[Run]:
    """Return the runs that the address asks to compare, those that are there, in its order."""
    readable = {run.id: run for run in scene.runs if run.problem is None}
    return [readable[name] for name in dict.fromkeys(scene.view.compared) if name in readable][:MOST]


def toggle(scene: Scene, run: Run) -> str:
    """Return the box that puts a run into the comparison or takes it out."""
    chosen = [one.id for one in chosen_runs(scene)]
    inside = run.id in chosen
    full = len(chosen) >= MOST and not inside
    others = [name for name in chosen if name != run.id]
    query = esc(scene.view.to_query(runs=",".join(others if inside or full else [*others, run.id])))
    title = f"At most {MOST} runs at once" if full else "Compare with others"
    return (
        f'<a class="lpr-box" href="/?{query}" data-pick="{query}" role="checkbox" aria-checked="{str(inside).lower()}" '
        f'aria-disabled="{str(full).lower()}" aria-label="Compare {esc(run.title)}, {esc(run.id[-4:])}" '
        f'title="{title}"></a>'
    )


def render_comparison(scene: Scene) -> str:
    """Return the table of differences; empty while nothing was chosen."""
    runs = chosen_runs(scene)
    if not runs:
        return ""
    if len(runs) == 1:
        return '<p class="lpr-caption lpr-compare-hint">Select a second run to see differences.</p>'
    try:
        compared = compare_runs(runs)
    except LprError as error:
        return shell.notice("bad", esc(str(error)))
    settings, texts, made_with = (
        [row for row in rows if row.differs] for rows in (compared.settings, compared.data, compared.environment)
    )
    same = [row for row in compared.settings if not row.differs]
    kinds = {run.kind for run in runs}
    warning = (
        shell.notice("warn", f"These are runs of different kinds ({esc(', '.join(sorted(kinds)))}).")
        if len(kinds) > 1
        else ""
    )
    if compared.refusal:
        warning += shell.notice("warn", esc(compared.refusal))
    if compared.unlike:
        unlike = ", ".join(f"{language_name(code)} ({dataset})" for dataset, code in compared.unlike)
        text = f"Their test sets hold different documents: {unlike}. Their results there are not put side by side."
        warning += shell.notice("warn", esc(text))
    heads = "".join(
        f'<th scope="col">{esc(run.title)}<small>{esc(run.created[:10])} {esc(run.id[-4:])}</small></th>'
        for run in runs
    )
    total = len(compared.settings)
    said = f"{len(settings)} of {total} settings differ" if settings else "All settings are the same"
    body = (
        _group("Mean change of bits per byte; less is better", compared.results)
        + _group("Settings that differ", settings)
        + _group("Text that differs", texts)
        + _group("Environment that differs", made_with)
    )
    table = (
        f'<div class="lpr-scroll" tabindex="0" role="region" aria-label="Comparison of {len(runs)} runs">'
        '<table class="lpr-table lpr-compared"><caption class="lpr-hidden">Runs side by side</caption>'
        f'<thead><tr><th scope="col">What</th>{heads}</tr></thead>{body}</table></div>'
    )
    rest = (
        f'<details class="lpr-fold"><summary>{len(same)} settings that are the same</summary><div class="lpr-scroll" '
        f'tabindex="0"><table class="lpr-table lpr-plain">{_same(same)}</table></div></details>'
        if same
        else ""
    )
    clear = esc(scene.view.to_query(runs=""))
    export = View(runs=",".join(run.id for run in runs)).link(REPORT)
    return (
        f'<section class="lpr-card" aria-label="Comparison"><h2 class="lpr-subfinding">{len(runs)} runs: {said}</h2>'
        f'{warning}{table}{rest}<p class="lpr-caption"><a href="/?{clear}" data-pick="{clear}">Compare none</a> · '
        f'<a href="{esc(export)}" download>Export report of these</a></p>'
        "</section>"
    )


def _group(title: str, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    width = len(rows[0].texts) + 1
    head = f'<tr class="lpr-block"><th scope="rowgroup" colspan="{width}">{title}</th></tr>'
    return f"<tbody>{head}{''.join(_row(row) for row in rows)}</tbody>"


def _row(row: Row) -> str:
    measured = [value for value in row.values if value is not None]
    worst = max(measured) if row.best is not None else None
    cells = []
    for place, said in enumerate(row.texts):
        value = row.values[place] if row.values else None
        text = change(value) if row.values else said or NOT_MEASURED
        if value is not None and value == row.best:
            cells.append(
                f'<td><b>{esc(text)} <span aria-hidden="true">▼</span></b><span class="lpr-hidden">, best</span></td>'
            )
        elif value is not None and value == worst:
            cells.append(f'<td>{esc(text)} <span aria-hidden="true">▲</span></td>')
        else:
            cells.append(f"<td>{esc(text)}</td>")
    name = f"<code>{esc(row.name)}</code>" if not row.values else esc(row.name)
    return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'


def _same(rows: Sequence[Row]) -> str:
    body = "".join(
        f'<tr><th scope="row"><code>{esc(row.name)}</code></th><td>{esc(row.texts[0] or NOT_MEASURED)}</td></tr>'
        for row in rows
    )
    return f"<tbody>{body}</tbody>"
