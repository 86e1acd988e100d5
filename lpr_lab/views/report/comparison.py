"""Several runs at the head of a report: results beside one another where that is fair, and in what the runs differ."""

import html
from collections.abc import Sequence

from lpr_lab.errors import LprError
from lpr_lab.runs.compare.differences import compare_runs
from lpr_lab.runs.run import Run, short_id
from lpr_lab.views.html import comparison

esc = html.escape


def render_comparison(runs: Sequence[Run]) -> str:
    """Return the comparison; results on different documents are named and left out."""
    try:
        compared = compare_runs(runs)
    except LprError as error:
        return _notice("Not compared", str(error))
    heads = [
        f'<a href="#r{n}-top">{esc(run.title)}</a><small>{esc(run.created[:10])} {esc(short_id(run.id))}</small>'
        for n, run in enumerate(runs, start=1)
    ]
    notices = "".join(_notice("Notice", said) for said in comparison.notices(compared, runs))
    return (
        '<section id="side-by-side" aria-labelledby="side-by-side-h"><h2 id="side-by-side-h">Side by side</h2>'
        f'<p class="lpr-lead">{esc(comparison.finding(compared))}.</p>{notices}'
        f"{comparison.render(compared, heads)}</section>"
    )


def _notice(word: str, said: str) -> str:
    return f'<p class="lpr-notice" role="note"><b>{word}.</b> {esc(said)}</p>'
