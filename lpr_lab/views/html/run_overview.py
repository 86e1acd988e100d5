"""Pieces of one run as HTML, the same on the dashboard and in reports: numbers, promises, phases, texts.

Text that came from a file goes through `html.escape`.
"""

import html
from functools import cache
from typing import Any

from lpr_lab.measure.significance import ADAPTATION, UNCLEAR, Difference, mean_change
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.views.names import dataset_name
from lpr_lab.views.numbers import NOT_MEASURED, change, count, duration, interval, percent
from lpr_lab.views.static import read_static

esc = html.escape


@cache
def style() -> str:
    """Return the style sheet of these pieces; colours come from the page's variables."""
    return read_static("run_overview.css")


def render_tiles(run: Run) -> str:
    """Return what came of a run as four large numbers; empty while nothing was measured."""
    results = run.results
    if not results or not results.get("summary"):
        return ""
    summary = results["summary"]
    dataset = "heldout" if "heldout" in summary else next(iter(summary), None)
    by_role = summary.get(dataset, {}) if dataset else {}
    tiles = []
    for role, word in (("expanded", "gain"), ("original", "retention")):
        numbers = by_role.get(role) or {}
        value, found = numbers.get("mean_change_percent"), mean_of(results, role)
        codes = ", ".join(language_name(code) for code in results.get(role) or [])
        small = f"mean change of bits per byte, {esc(codes)}"
        if value is not None:
            ends = f"95% interval {interval(found.low, found.high)}" if found.has_interval else "no interval"
            small += f"; {ends}" if found.direction else f"; <b>{UNCLEAR}</b> ({ends})"
            if role == "original" and value < 0:
                small += f". {esc(ADAPTATION)}"
        tiles.append(_tile(f"{role.capitalize()} languages: {word}", change(value), small, role))
    for role in ("original", "expanded"):
        weight = (by_role.get(role) or {}).get("original_weight")
        if weight is not None:
            tiles.append(_tile(f"Original expert, {role} languages", percent(weight), "mean weight over layers", role))
    parameters = results.get("parameters") or {}
    note = f"{dataset_name(dataset)}; below zero is better." if dataset else ""
    added = [f"{key.replace('_', ' ')} {count(value)}" for key, value in parameters.items() if isinstance(value, int)]
    caption = " ".join(filter(None, [note, f"Parameters: {', '.join(added)}." if added else "", lost_text(run)]))
    return f'<div class="lpr-tiles">{"".join(tiles)}</div><p class="lpr-caption">{esc(caption)}</p>'


def mean_of(results: dict[str, Any], role: str) -> Difference:
    """Return the mean change of bits per byte over the languages of a role, on held-out text where there is any."""
    rows = [row for row in results.get("change") or [] if isinstance(row, dict)]
    named = {str(row.get("dataset")) for row in rows}
    dataset = "heldout" if "heldout" in named else next((str(row.get("dataset")) for row in rows), "")
    return mean_change(row for row in rows if (row.get("dataset"), row.get("role")) == (dataset, role))


def lost_text(run: Run) -> str:
    """Say how much of the evaluated text the tokenizer loses; empty where it gives back the text."""
    rows = run.results.get("lost_text") or []
    if not rows:
        return ""
    parts = [f"{row['lost_share']:.2%} of {language_name(row['language'])} ({row['dataset']})" for row in rows]
    return f"The tokenizer loses text, which is not counted in bits per byte: {', '.join(parts)}."


def _tile(title: str, value: str, small: str, role: str) -> str:
    return (
        f'<div class="lpr-tile lpr-{role}"><span>{esc(title)}</span><strong>{value or NOT_MEASURED}</strong>'
        f"<small>{small}</small></div>"
    )


def render_claims(run: Run) -> str:
    """Return what the method promises and whether it holds; empty where nothing was checked."""
    claims = run.results.get("claims") or []
    if not claims:
        return ""
    items = "".join(
        f'<li class="{"lpr-holds" if claim["holds"] else "lpr-broke"}">'
        f"<b>{'✓ holds' if claim['holds'] else '✗ does not hold'}</b>"
        f"<span>{esc(claim['text'])}</span><em>measured {_short(claim['measured'])}</em></li>"
        for claim in claims
    )
    return f'<ul class="lpr-claims">{items}</ul>'


def claims_finding(run: Run) -> str:
    """Return how many promises hold."""
    claims = run.results.get("claims") or []
    held = sum(bool(claim["holds"]) for claim in claims)
    return f"{held} of {len(claims)} promises of the method hold"


def _short(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    text = f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return "−" + text[1:] if text.startswith("-") else text


def render_phases(run: Run) -> str:
    """Return the phases of a run and how long each took; empty where it has none."""
    status = run.status
    seconds = run.phases.seconds
    names = list(dict.fromkeys(filter(None, (*status.done_phases, status.stage))))
    if not names:
        return ""
    items = []
    for name in names:
        done = name in status.done_phases or status.state == "finished"
        took = duration(seconds[name]) if name in seconds else ""
        mark = "✓" if done else "…" if status.is_live else "✕"
        said = "done" if done else status.state
        items.append(
            f'<li class="{"lpr-done" if done else ""}"><i aria-hidden="true">{mark}</i>{esc(name.replace("_", " "))}'
            f'<span class="lpr-hidden">, {said}</span><small>{took}</small></li>'
        )
    return f'<ol class="lpr-phases">{"".join(items)}</ol>'


def phases_finding(run: Run) -> str:
    """Return how long all phases took."""
    seconds = run.phases.seconds
    total = sum(value for value in seconds.values() if isinstance(value, int | float))
    return f"Phases, {duration(total)} in all" if total else "Phases"


def render_pairs(rows: list[tuple[str, str | None]]) -> str:
    """Return names and texts as a table."""
    body = "".join(
        f'<tr><th scope="row"><code>{esc(name)}</code></th><td>{esc(text or NOT_MEASURED)}</td></tr>'
        for name, text in rows
    )
    return f'<table class="lpr-table lpr-plain"><tbody>{body}</tbody></table>'


def render_texts(run: Run) -> str:
    """Return size and hash of every text that a run was made from, and what was not read; empty if not recorded."""
    texts = run.documents.read("data").get("texts")
    if not isinstance(texts, dict):
        return ""
    rows = "".join(
        f'<tr><th scope="row">{esc(language_name(code))}</th><td>{esc(split)}</td>'
        f'<td class="lpr-number">{count(facts.get("n_documents", 0))}</td>'
        f'<td class="lpr-number">{count(facts.get("characters", 0))}</td>'
        f"<td><code>{esc(str(facts.get('sha256', ''))[:12])}</code></td></tr>"
        for code, splits in texts.items()
        for split, facts in splits.items()
    )
    names = ("Language", "Split", "Documents", "Characters", "SHA-256")
    head = "".join(f'<th scope="col"{" class=lpr-number" if name in names[2:4] else ""}>{name}</th>' for name in names)
    table = f'<table class="lpr-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return table + _not_read(run.documents.read("data").get("left_out") or [])


def _not_read(left_out: list[dict[str, str]]) -> str:
    if not left_out:
        return ""
    items = "".join(f"<li>{esc(one['name'])}: {esc(one['reason'])}</li>" for one in left_out)
    return f'<p class="lpr-note">Found and not read ({count(len(left_out))}):</p><ul>{items}</ul>'
