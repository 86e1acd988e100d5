"""HTML of page `/retention`: sentences and tables."""

from typing import Any

from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.query import Query
from lpr_lab.measure.significance import (
    ADAPTATION,
    BETTER,
    NOT_WORSE,
    UNCLEAR,
    WORSE,
    Difference,
    change_of,
    change_verdict,
    mean_change,
)
from lpr_lab.runs.compare.paired_scores import PairedChange, most_moved
from lpr_lab.runs.compare.trade_off import TradeOff
from lpr_lab.runs.model_ref import BASE, ModelRef, analysed_run
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.text.sample_texts import PROMPTS
from lpr_lab.views import Table
from lpr_lab.views.html.tasks import render_tasks, tasks_finding
from lpr_lab.views.html.templates import render
from lpr_lab.views.names import ROLES
from lpr_lab.views.numbers import NOT_MEASURED, change, count, interval, points_with_interval

VERDICTS = {BETTER: "▼ better", NOT_WORSE: f"▼ {NOT_WORSE}", WORSE: "▲ worse", UNCLEAR: f"≈ {UNCLEAR}"}

DEFINITIONS = Markup(
    '<span class="lpr-more">{} Change = after ÷ before − 1; <b>below zero is better</b>. On expanded languages a fall '
    "is the <b>gain</b>; on original languages a rise is <b>forgetting</b>, and the absence of one is "
    "<b>retention</b>. A change is called better or worse only when its 95% interval leaves zero out.</span>"
).format(shell.BITS_PER_BYTE)


def finding(rows: Table, *, from_base: bool = True) -> Markup:
    """Return the answer in words: mean change on both kinds of languages, and how many changed clearly.

    What a fall on original languages means when it is seen from the base stands beside it.
    """
    sentences: list[Markup] = []
    for role in ("expanded", "original"):
        part = rows[rows["role"] == role]
        if part.empty:
            continue
        records = part.to_dict("records")
        mean = mean_change(records)
        title = ROLES[role] if not sentences else ROLES[role].lower()
        need, unit = (" need", " bits per byte") if not sentences else ("", "")
        much = f"{need} {abs(mean.value):.1f}% {'fewer' if mean.direction < 0 else 'more'}{unit}"
        if not mean.direction:
            much = f"{' show' if not sentences else ''} {UNCLEAR} on average ({change(mean.value)})"
        judged = _judge([change_verdict(row, from_base=from_base) for row in records], bool(mean.direction))
        sentences.append(Markup('<span class="lpr-{}">{}</span>{}{}').format(role, title, much, judged))
    fell = mean_change(rows[rows["role"] == "original"].to_dict("records")).value < 0
    return Markup("{}.{}").format(Markup("; ").join(sentences), shell.more(ADAPTATION if fell and from_base else ""))


def _judge(verdicts: list[str], is_clear: bool) -> str:
    """Return how many languages are clearly better or worse, beside a mean that is itself clear or not."""
    counts = [(verdicts.count(word), word) for word in (BETTER, NOT_WORSE, WORSE, UNCLEAR)]
    for number, word in counts:
        if number == len(verdicts):
            if word == UNCLEAR:
                return f", with {UNCLEAR} in any one" if is_clear else ""
            if word == NOT_WORSE:
                return ", none worse" if number > 1 else f", {word}"
            return f", {'all ' if number > 1 else ''}clearly {word}"
    words = {UNCLEAR: "unclear"}
    return ", " + ", ".join(f"{number} {words.get(word, word)}" for number, word in counts if number)


def worst(rows: Table) -> str:
    """Return in a sentence whether an original language is clearly worse, with the highest change and its interval."""
    part = rows[rows["role"] == "original"]
    if part.empty:
        return ""
    row = part.loc[part["change_percent"].idxmax()]
    found = change_of(row.to_dict())
    ends = f", 95% interval {interval(found.low, found.high)}" if found.has_interval else ", without an interval"
    name = language_name(str(row["language"]))
    if found.verdict() == WORSE:
        return f"Of the original languages {name} lost most: {change(found.value)}{ends}."
    return f"No original language is clearly worse; the highest change is that of {name}, {change(found.value)}{ends}."


def sides_line(comparison: PairedChange) -> Markup:
    """Return which two are compared, and what of it is not known, in sentences."""
    called = [side.title(comparison.after.run) for side in (comparison.before, comparison.after)]
    said = Markup("Before: <b>{}</b>. After: <b>{}</b>.").format(*called)
    if comparison.missing:
        names = ", ".join(language_name(code) for code in comparison.missing)
        said += f" Only one of them was evaluated on {names}, so nothing is said about that."
    if comparison.rows is not None and comparison.rows["ci_low"].isna().all():
        said += f" Scores by document were not kept for both, so there is no interval and {UNCLEAR} can be claimed."
    return said


def change_table(rows: Table, before: str, after: str, *, from_base: bool = True) -> Markup:
    """Return the same numbers as the chart, with interval and verdict, original languages above expanded ones."""
    blocks = [(role, title, rows[rows["role"] == role].to_dict("records")) for role, title in ROLES.items()]
    return render(
        "dashboard/pages/retention/changes.html.j2",
        heads=[_short(name) for name in ("Documents", before, after, "Change", "95% interval")],
        blocks=[
            (shell.language_chips([title], role), [_row(row, from_base) for row in records])
            for role, title, records in blocks
            if records
        ],
    )


def _short(name: str) -> str:
    name = {"base": "Base", "expanded": "Expanded"}.get(name, name)
    return name if len(name) <= 24 else name[:23] + "…"


def _row(row: dict[str, Any], from_base: bool) -> dict[str, Any]:
    found = change_of(row)
    unknown = Markup('<span title="not measured">{}</span>').format(NOT_MEASURED)
    verdict = change_verdict(row, from_base=from_base)
    cells = [
        count(row["n_documents"]),
        f"{row['before']:.3f}",
        f"{row['after']:.3f}",
        Markup("<b>{}</b>").format(change(row["change_percent"])),
        interval(found.low, found.high) if found.has_interval else unknown,
    ]
    kind, word = verdict.partition(" ")[0], VERDICTS.get(verdict, verdict)
    return {"name": language_name(str(row["language"])), "cells": cells, "kind": kind, "verdict": word}


def refused(comparison: PairedChange) -> Markup:
    """Return the card that says why two are not compared, and which test sets differ."""
    template = "dashboard/pages/retention/refused.html.j2"
    return render(template, reason=comparison.refusal, different=comparison.different)


def not_measured(run: Run) -> Markup:
    """Return what the page shows for a run without an evaluation."""
    state = run.status.state
    if state == "finished" and (there := shell.elsewhere(run, "/retention")):
        return shell.card("Not measured here", there)
    if state in ("running", "queued"):
        return shell.missing(
            "Not measured yet", "This run is still working; base and expanded model are compared near its end."
        )
    how = f"This run ({state}) has no table of changes. Start the same command again: it goes on where it stopped."
    return shell.missing("Not measured", how, "lpr-lab demo")


# ------------------------------------------------------------------------------------------------------- tasks


def tasks_section(changes: Table | None, before: ModelRef, after: ModelRef) -> Markup:
    """Return what both answered, where tasks were asked of both; else nothing."""
    first, second = (_short(side.title(after.run)) for side in (before, after))
    body = render_tasks(changes, first, second, after.run.tables.read("tasks_left_out"))
    if not body:
        return Markup("")
    section = Markup(
        '<section class="lpr-section"><h2>Right or wrong: tasks made from held-out text</h2>'
        '<p class="lpr-subfinding">{}.</p></section>{}'
    )
    return section.format(tasks_finding(changes), body)


# --------------------------------------------------------------------------------------------------- documents


def moved_documents(comparison: PairedChange, query: Query) -> Markup:
    """Return the documents that moved most, worst beside best; a sentence where scores by document were not kept."""
    if comparison.rows is None:
        return Markup("")
    template, documents = "dashboard/pages/retention/documents.html.j2", comparison.documents
    if documents is None:
        return render(template, tables=None)
    verdicts = {
        (str(row["language"]), str(row["dataset"])): change_of(row).verdict()
        for row in comparison.rows.to_dict("records")
    }
    rose, total = int((documents["change_percent"] > 0).sum()), len(documents)
    verb = "needs" if rose == 1 else "need"
    halves = zip(("More bits than before", "Fewer bits than before"), most_moved(documents), strict=True)
    return render(
        template,
        finding=f"{count(rose)} of {count(total)} documents {verb} more bits than before.",
        tables={
            title: [_document(row, verdicts, comparison.after.run) for row in rows.to_dict("records")]
            for title, rows in halves
        },
    )


def _document(row: dict[str, Any], verdicts: dict[tuple[str, str], str], run: Run) -> dict[str, Any]:
    code = str(row["language"])
    verdict = verdicts.get((code, str(row["dataset"])), "")
    link = Query(run=analysed_run(run) or run.id, lang=code).link("/compare") if code in PROMPTS else ""
    return {
        **row,
        "name": language_name(code),
        "is_against": verdict == (BETTER if row["change_percent"] > 0 else WORSE),
        "link": link,
    }


# ---------------------------------------------------------------------------------------------- over all runs


def trade_off_table(found: TradeOff, query: Query) -> Markup:
    """Return the scatter's numbers, and the runs that cannot stand beside them with the reason."""
    return render(
        "dashboard/pages/retention/trade_off.html.j2",
        rows=[
            {
                **row,
                "link": query.link("/retention", run=row["run"], run2="", stage="", stage2=""),
                "cells": {head: (change(row[key]), _apart_from(row, key)) for key, head in _TRADE.items()},
            }
            for row in found.points.to_dict("records")
        ],
        heads=list(_TRADE.values()),
        left_out=found.refused,
    )


def _apart_from(row: dict[str, Any], key: str) -> Markup:
    """Return how another run differs from this one, paired: the verdict and what it rests on."""
    if row["chosen"] or key not in ("gain", "forgetting"):
        return Markup("")
    names = (f"{key}_{part}" for part in ("difference", "low", "high"))
    apart = Difference(*(float(row[name]) for name in names))
    word = str(row[f"{key}_verdict"])
    said = VERDICTS[word] if apart.direction else word
    ends = points_with_interval(apart) if apart.has_interval else "not paired"
    small = Markup('<small><span class="lpr-verdict-{}">{}</span>, {}</small>')
    return small.format(word.partition(" ")[0], said, ends)


_TRADE = {"gain": "Mean gain", "forgetting": "Mean forgetting", "worst": "Largest rise of one"}


# -------------------------------------------------------------------------------------------------- lifelong


def stage_table(rows: Table) -> Markup:
    """Return bits per byte of every language after every stage of a lifelong run, with the change from the base."""
    stages = list(dict.fromkeys(rows["stage"]))
    languages = []
    for language, part in rows.groupby("language", sort=False):
        by_stage = {row["stage"]: row for row in part.to_dict("records")}
        cells = [(stage, by_stage[stage], stage != BASE) for stage in stages]
        languages.append((str(language), str(part["group"].iloc[0]), cells))
    return render("dashboard/pages/retention/stages.html.j2", stages=stages, languages=languages)
