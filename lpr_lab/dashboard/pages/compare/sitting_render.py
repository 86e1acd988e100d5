"""HTML of a sitting on page `/compare`: the prompt that is judged, the result, the sittings that a run keeps."""

from markupsafe import Markup

from lpr_lab.dashboard.query import Query
from lpr_lab.runs.people.sittings import SAME, Prompt, Sitting, kept_sitting, kept_sittings
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.html.continuations import render_pair, title_of
from lpr_lab.views.html.judgements import decided, verdict
from lpr_lab.views.html.templates import render
from lpr_lab.wording import counted


def sitting(run: Run, now: Sitting, query: Query) -> Markup:
    """Return the prompt that is to be judged, blind, or the result where the sitting is over."""
    if now.current is None:
        return _result(run, now, query)
    one = now.prompts[now.current]
    return render(
        "dashboard/pages/compare/sitting.html.j2",
        place=now.current,
        number=len(now.prompts),
        judged=len(now.judged),
        language=language_name(one.language) if one.language else "",
        code=one.language,
        prompt=one.text,
        pair=render_pair(now.pair(now.current)) if one.is_written else "",
    )


def _result(run: Run, now: Sitting, query: Query) -> Markup:
    count, address = now.tally, query.urlencode(run=run.id, sitting=now.id)
    neither = f"; no difference {count.ties}" if count.ties else ""
    written = [(place, one) for place, one in enumerate(now.prompts) if one.is_written]
    return render(
        "dashboard/pages/compare/sitting_result.html.j2",
        verdict=verdict(count)[:1].upper() + verdict(count)[1:],
        rest=f"{decided(count)}{neither}.",
        judged=len(now.judged),
        number=len(now.prompts),
        ended=now.ended,
        seed=now.seed,
        same=sum(one.is_written and one.first == one.second for one in now.prompts),
        is_kept=kept_sitting(run, now.id) is not None,
        csv=f"/data/compare/sitting.csv?{address}",
        json=f"/data/compare/sitting.json?{address}",
        prompts=[
            {"prompt": one.text, "code": one.language, "said": _said(now, one), "pair": render_pair(now.pair(place))}
            for place, one in written
        ],
    )


def _said(now: Sitting, one: Prompt) -> str:
    if one.preferred is not None:
        return f"Preferred: {title_of(now.models[one.preferred])}."
    return "No difference." if one.choice == SAME else "Not judged."


def kept(run: Run, query: Query) -> Markup:
    """Return the sittings that the run keeps, as links; what a sitting that goes on is between is not told."""
    rows = []
    for one in kept_sittings(run):
        judged = f"{len(one.judged)} of {counted(len(one.prompts), 'prompt')} judged"
        said = f"{one.begun[:16].replace('T', ' ')} UTC · {judged}"
        if one.is_over:
            said += f" · {' and '.join(map(title_of, one.models))}: {verdict(one.tally)}"
        rows.append((query.urlencode(sitting=one.id, text="", seed=None), said, query.sitting == one.id))
    return render("dashboard/pages/compare/sittings_kept.html.j2", rows=rows) if rows else Markup("")
