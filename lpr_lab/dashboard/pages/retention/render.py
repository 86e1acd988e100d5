"""The words and tables of the page `/retention`."""

from collections.abc import Iterable
from typing import Any

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.shell import esc
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
from lpr_lab.runs.model_ref import BASE, analysed_run
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.text.sample_texts import PROMPTS
from lpr_lab.views import Table
from lpr_lab.views.names import ROLES
from lpr_lab.views.numbers import NOT_MEASURED, change, count, interval, points_with_interval

VERDICTS = {BETTER: "▼ better", NOT_WORSE: f"▼ {NOT_WORSE}", WORSE: "▲ worse", UNCLEAR: f"≈ {UNCLEAR}"}

DEFINITIONS = (
    f'<span class="lpr-more">{shell.BITS_PER_BYTE} Change = after ÷ before − 1; <b>below zero is better</b>. On '
    "expanded languages a fall is the <b>gain</b>; on original languages a rise is <b>forgetting</b>, and the absence "
    "of one is <b>retention</b>. A change is called better or worse only when its 95% interval leaves zero out.</span>"
)


def finding(rows: Table, *, from_base: bool = True) -> str:
    """Return the answer in words: mean change on both kinds of languages, and how many changed clearly.

    What a fall on original languages means when it is seen from the base stands beside it.
    """
    sentences = []
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
        sentences.append(f'<span class="lpr-{role}">{title}</span>{much}{judged}')
    fell = mean_change(rows[rows["role"] == "original"].to_dict("records")).value < 0
    caveat = f'<span class="lpr-more">{esc(ADAPTATION)}</span>' if fell and from_base else ""
    return "; ".join(sentences) + "." + caveat


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
    name = esc(language_name(str(row["language"])))
    if found.verdict() == WORSE:
        return f"Of the original languages {name} lost most: {change(found.value)}{ends}."
    return f"No original language is clearly worse; the highest change is that of {name}, {change(found.value)}{ends}."


def sides_line(comparison: PairedChange) -> str:
    """Return which two are compared, and what of it is not known, in sentences."""
    called = [side.title(comparison.after.run) for side in (comparison.before, comparison.after)]
    said = f"Before: <b>{esc(called[0])}</b>. After: <b>{esc(called[1])}</b>."
    if comparison.missing:
        names = ", ".join(language_name(code) for code in comparison.missing)
        said += f" Only one of them was evaluated on {esc(names)}, so nothing is said about that."
    if comparison.rows is not None and comparison.rows["ci_low"].isna().all():
        said += f" Scores by document were not kept for both, so there is no interval and {UNCLEAR} can be claimed."
    return said


def change_table(rows: Table, before: str, after: str, *, from_base: bool = True) -> str:
    """Return the same numbers as the chart, with interval and verdict, original languages above expanded ones."""
    heads = ("Language", "Documents", before, after, "Change", "95% interval", "Verdict")
    body = ""
    for role, title in ROLES.items():
        part = rows[rows["role"] == role]
        if part.empty:
            continue
        mark = shell.language_chips([title], role)
        body += f'<tr class="lpr-block"><th scope="rowgroup" colspan="7">{mark}</th></tr>'
        body += "".join(_row(row, heads, from_base) for row in part.to_dict("records"))
    head = "".join(
        f'<th scope="col"{" class=lpr-number" if 0 < index < 6 else ""}>{esc(_short(name))}</th>'
        for index, name in enumerate(heads)
    )
    return (
        f'<div class="lpr-panel">{_scroll("Bits per byte by language")}<table class="lpr-table lpr-changes">'
        '<caption class="lpr-hidden">Bits per byte before and after, by language</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        '<p class="lpr-caption">Bits per byte of both on the same documents; interval by paired bootstrap over '
        "documents.</p></div>"
    )


def _scroll(name: str) -> str:
    """Return the opening tag around a table that may be wider than a phone; by keyboard it scrolls too."""
    return f'<div class="lpr-scroll" role="region" tabindex="0" aria-label="{esc(name)}">'


def _short(name: str) -> str:
    name = {"base": "Base", "expanded": "Expanded"}.get(name, name)
    return name if len(name) <= 24 else name[:23] + "…"


def _row(row: dict[str, Any], heads: tuple[str, ...], from_base: bool) -> str:
    found = change_of(row)
    verdict = change_verdict(row, from_base=from_base)
    unknown = f'<span title="not measured">{NOT_MEASURED}</span>'
    cells = [
        count(row["n_documents"]),
        f"{row['before']:.3f}",
        f"{row['after']:.3f}",
        f"<b>{change(row['change_percent'])}</b>",
        interval(found.low, found.high) if found.has_interval else unknown,
    ]
    kind, word = verdict.partition(" ")[0], VERDICTS.get(verdict, verdict)
    said = f'<span class="lpr-verdict lpr-verdict-{esc(kind)}">{esc(word)}</span>'
    return (
        f'<tr><th scope="row">{esc(language_name(str(row["language"])))}</th>'
        + "".join(
            f'<td class="lpr-number" data-label="{esc(_short(name))}">{cell}</td>'
            for name, cell in zip(heads[1:-1], cells, strict=True)
        )
        + f"<td>{said}</td></tr>"
    )


def refused(comparison: PairedChange) -> str:
    """Return the card that says why two are not compared, and which test sets differ."""
    rows = "".join(
        f'<tr><th scope="row">{esc(language_name(language))}<small>{esc(dataset)}</small></th>'
        + "".join(f"<td><code>{esc(digest or 'unknown')}</code></td>" for digest in hashes)
        + "</tr>"
        for language, dataset, *hashes in comparison.different
    )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Language", "Test set before", "Test set after"))
    table = f'<table class="lpr-table"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    detail = f"{_scroll('Differing test sets')}{table}</div>" if rows else ""
    return (
        '<section class="lpr-card lpr-empty" role="alert"><h2>Not compared</h2>'
        f"<p>{esc(comparison.refusal)}</p>{detail}</section>"
    )


def not_measured(run: Run) -> str:
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


# --------------------------------------------------------------------------------------------------- documents


def moved_documents(comparison: PairedChange, query: Query) -> str:
    """Return the documents that moved most, worst beside best; a sentence where scores by document were not kept."""
    if comparison.rows is None:
        return ""
    if comparison.documents is None:
        body = (
            "<p>Scores by document were not kept for these two: they were measured by an earlier version. A new "
            "evaluation keeps them.</p>"
        )
        return f'<section class="lpr-panel lpr-section"><h2>Documents that moved most</h2>{body}</section>'
    trend = {
        (str(row["language"]), str(row["dataset"])): change_of(row).verdict()
        for row in comparison.rows.to_dict("records")
    }
    rose = comparison.documents[comparison.documents["change_percent"] > 0]
    total = len(comparison.documents)
    verb = "needs" if len(rose) == 1 else "need"
    found = f"{count(len(rose))} of {count(total)} documents {verb} more bits than before."
    tables = ""
    titles = ("More bits than before", "Fewer bits than before")
    for title, rows in zip(titles, most_moved(comparison.documents), strict=True):
        tables += f"<div><h3>{title}</h3>{_documents(title, rows, trend, comparison.after.run, query)}</div>"
    return (
        '<section class="lpr-panel lpr-section"><h2>Documents that moved most</h2>'
        f'<p class="lpr-subfinding">{found}</p><div class="lpr-halves">{tables}</div>'
        '<p class="lpr-caption">↯ marks a document that went against its language: more bits where the language got '
        "clearly better, or fewer where it got clearly worse. Texts are those of others and stay in the corpus; the "
        "link continues our own prompt in that language.</p></section>"
    )


def _documents(title: str, rows: Table, trend: dict[tuple[str, str], str], run: Run, query: Query) -> str:
    if rows.empty:
        return "<p>None.</p>"
    body = ""
    for row in rows.to_dict("records"):
        code = str(row["language"])
        verdict = trend.get((code, str(row["dataset"])), "")
        against = verdict == (BETTER if row["change_percent"] > 0 else WORSE)
        mark = ' <abbr title="against its language">↯</abbr>' if against else ""
        name = esc(language_name(code))
        if code in PROMPTS:
            link = Query(run=analysed_run(run) or run.id, lang=code).link("/compare")
            name = f'<a href="{esc(link)}" title="Continue our prompt in {name}">{name}</a>'
        body += (
            f'<tr><th scope="row"><span class="lpr-document">{esc(str(row["document"]))}</span>'
            f"<small>{name} · {count(row['bytes'])} bytes · {row['before']:.3f} → {row['after']:.3f} bits per byte"
            "</small></th>"
            f'<td class="lpr-number"><b>{change(row["change_percent"])}</b>{mark}</td></tr>'
        )
    heads = '<th scope="col">Document</th><th scope="col" class="lpr-number">Change</th>'
    return (
        f'{_scroll(f"Documents: {title.lower()}")}<table class="lpr-table"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


# ---------------------------------------------------------------------------------------------- over all runs


def trade_off_table(found: TradeOff, query: Query) -> str:
    """Return the scatter's numbers, and the runs that cannot stand beside them with the reason."""
    body = ""
    for row in found.points.to_dict("records"):
        link = esc(query.link("/retention", run=row["run"], run2="", stage="", stage2=""))
        here = ' <span class="lpr-badge">this run</span>' if row["chosen"] else ""
        cells = "".join(
            f'<td class="lpr-number" data-label="{head}">{change(row[key])}{_apart_from(row, key)}</td>'
            for key, head in _TRADE.items()
        )
        body += f'<tr><th scope="row">{row["number"]}. <a href="{link}">{esc(row["title"])}</a>{here}</th>{cells}</tr>'
    heads = "".join(
        f'<th scope="col"{"" if index == 0 else " class=lpr-number"}>{name}</th>'
        for index, name in enumerate(("Run", *_TRADE.values()))
    )
    return (
        f'<div class="lpr-panel">{_scroll("Gain and forgetting by run")}<table class="lpr-table lpr-stacked">'
        '<caption class="lpr-hidden">Gain and forgetting of runs on the same test sets</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>{_CAVEAT}{_apart(found.refused)}</div>"
    )


def _apart_from(row: dict[str, Any], key: str) -> str:
    """Return how another run differs from this one, paired: the verdict and what it rests on."""
    if row["chosen"] or key not in ("gain", "forgetting"):
        return ""
    names = (f"{key}_{part}" for part in ("difference", "low", "high"))
    apart = Difference(*(float(row[name]) for name in names))
    word = str(row[f"{key}_verdict"])
    said = VERDICTS[word] if apart.direction else word
    ends = points_with_interval(apart) if apart.has_interval else "not paired"
    return f'<small><span class="lpr-verdict-{esc(word.partition(" ")[0])}">{esc(said)}</span>, {esc(ends)}</small>'


_TRADE = {"gain": "Mean gain", "forgetting": "Mean forgetting", "worst": "Largest rise of one"}
_CAVEAT = (
    '<p class="lpr-caption">Small: the other run minus this one, in points, paired over the documents that both were '
    "scored on, with its 95% interval. Runs stand in no order of merit.</p>"
)


def _apart(refused_runs: Iterable[tuple[Run, str]]) -> str:
    items = "".join(f"<li>{esc(run.title)} <small>{esc(run.id)}</small>: {esc(why)}</li>" for run, why in refused_runs)
    if not items:
        return ""
    return (
        '<details class="lpr-fold"><summary>Runs that are not drawn, and why</summary>'
        "<p>Numbers from different documents do not stand on one axis.</p>"
        f'<ul class="lpr-apart">{items}</ul></details>'
    )


# -------------------------------------------------------------------------------------------------- lifelong


def stage_table(rows: Table) -> str:
    """Return bits per byte of every language after every stage of a lifelong run, with the change from the base."""
    stages = list(dict.fromkeys(rows["stage"]))
    body = ""
    for language, part in rows.groupby("language", sort=False):
        by_stage = part.set_index("stage")
        cells = ""
        for stage in stages:
            row = by_stage.loc[stage]
            moved = "" if stage == BASE else f"<small>{change(row['change_percent'])}</small>"
            ends = f"of the change {interval(row['change_low'], row['change_high'])}"
            name = f'data-label="{esc(str(stage))}" title="95% interval {ends}"'
            cells += f'<td class="lpr-number" {name}>{row["bits_per_byte"]:.3f}{moved}</td>'
        group = esc(str(part["group"].iloc[0]))
        body += f'<tr><th scope="row">{esc(language_name(str(language)))}<small>{group}</small></th>{cells}</tr>'
    heads = "".join(f'<th scope="col" class="lpr-number">{esc(str(stage))}</th>' for stage in stages)
    return (
        '<div class="lpr-panel"><div class="lpr-scroll" role="region" tabindex="0" aria-label="Bits per byte by stage">'
        '<table class="lpr-table lpr-stacked">'
        '<caption class="lpr-hidden">Bits per byte after every stage, by language</caption>'
        f'<thead><tr><th scope="col">Language</th>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
        '<p class="lpr-caption">Bits per byte after every stage, and below it the change from the base. G0 are the '
        "original languages, G1 the first group that was taught, and so on. All stages were scored on one copy of the "
        "weights and the same documents.</p></div>"
    )
