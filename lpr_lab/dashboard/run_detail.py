"""One run in full: what came of it, what it promised, what it did and when, what it was made from."""

from typing import Any

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.shell import esc
from lpr_lab.dashboard.view import View
from lpr_lab.errors import LprError
from lpr_lab.experiments.lineage import ancestors_of, children_of
from lpr_lab.experiments.run_differences import flatten
from lpr_lab.experiments.runs import Run
from lpr_lab.views.numbers import NOT_MEASURED, change, count, duration, percent
from lpr_lab.views.plots import dataset_name, language_name

PAGES = {
    "/routing": "Where its tokens went",
    "/experts": "What its experts do",
    "/retention": "What it gained and kept",
    "/compare": "What it says",
}
PLAN_PAGES = {"/plan": "What it plans, and what that costs"}


def render_detail(run: Run, runs: list[Run]) -> str:
    """Return everything about one run but its curves."""
    try:
        parts = [_title(run), _state(run), _tiles(run), _claims(run), _lineage(run, runs), _phases(run)]
        parts += [_settings(run), _data(run), _notes(run)]
    except LprError as error:
        parts = [_title(run), shell.notice("bad", esc(str(error)))]
    return f'<article class="lpr-detail" aria-label="Run {esc(run.title)}">{"".join(parts)}</article>'


def metrics_of(run: Run | None) -> Any:
    """Return a run's recorded numbers as a table, or None when there are none."""
    if run is None or not (run.path / "metrics.jsonl").is_file():
        return None
    try:
        metrics = run.metrics()
    except LprError:
        return None
    metrics = metrics[metrics["value"].notna()]
    return None if metrics.empty else metrics


def _title(run: Run) -> str:
    view = View(run=run.id)
    pages = PLAN_PAGES if run.kind == "plan" else PAGES
    links = "".join(f'<a class="lpr-button" href="{view.link(path)}">{text}</a>' for path, text in pages.items())
    return (
        f"<header><h2>{esc(run.title)} {shell.example_badge(run)}{shell.tag_chips(run)}</h2>"
        f'<p class="lpr-id">{esc(run.id)}</p><div class="lpr-links">{links}</div></header>'
    )


def _state(run: Run) -> str:
    """Say what the state means and what to do; a finished run needs neither."""
    status = run.status
    seen = shell.age(status.heartbeat)
    step = _last_step(run)
    where = esc((status.stage or "its start").replace("_", " "))
    match status.state:
        case "running":
            text = f"Running, at {where}{step}; last sign of life {seen}."
            return shell.notice("info", text)
        case "stalled":
            text = f"No sign of life for {esc(seen.removesuffix(' ago'))}; stalled? It stood at {where}{step}."
            return shell.notice("warn", text)
        case "interrupted":
            text = (
                f"Interrupted at {esc(status.stage or 'its start')}{step}. The same command again goes on from there: "
            )
            return shell.notice("warn", text + shell.command("lpr-lab demo"))
        case "failed":
            tail = f'<pre class="lpr-log">{esc(status.error_tail or "No message was left.")}</pre>'
            code = "" if status.exit_code is None else f" with exit code {status.exit_code}"
            text = f"It failed at {where}{code}{step}. The same command again goes on from there: "
            return shell.notice("bad", text + shell.command("lpr-lab demo")) + tail
        case "queued":
            return shell.notice("info", "Not started yet.")
    return ""


def _last_step(run: Run) -> str:
    metrics = metrics_of(run)
    if metrics is None:
        return ""
    last = metrics.iloc[-1]
    return f", step {int(last['step'])}, {count(last['tokens'])} tokens" if last["step"] == last["step"] else ""


def _tiles(run: Run) -> str:
    results = run.results
    if not results or not results.get("summary"):
        return ""
    summary = results["summary"]
    dataset = "heldout" if "heldout" in summary else next(iter(summary), None)
    by_role = summary.get(dataset, {}) if dataset else {}
    tiles = []
    for role, word in (("expanded", "gain"), ("original", "retention")):
        numbers = by_role.get(role) or {}
        value, worst = numbers.get("mean_change_percent"), numbers.get("worst_change_percent")
        codes = ", ".join(language_name(code) for code in results.get(role) or [])
        small = f"mean change of bits per byte, {esc(codes)}"
        if worst is not None:
            small += f"; least good {change(worst)}"
        tiles.append(_tile(f"{role.capitalize()} languages: {word}", change(value), small, role))
    for role in ("original", "expanded"):
        weight = (by_role.get(role) or {}).get("original_weight")
        if weight is not None:
            tiles.append(_tile(f"Original expert, {role} languages", percent(weight), "mean weight over layers", role))
    parameters = results.get("parameters") or {}
    note = f"{dataset_name(dataset)}; below zero is better." if dataset else ""
    added = [f"{key.replace('_', ' ')} {count(value)}" for key, value in parameters.items() if isinstance(value, int)]
    caption = " ".join(filter(None, [note, f"Parameters: {', '.join(added)}." if added else ""]))
    return f'<div class="lpr-tiles">{"".join(tiles)}</div><p class="lpr-caption">{esc(caption)}</p>'


def _tile(title: str, value: str, small: str, role: str) -> str:
    return (
        f'<div class="lpr-tile lpr-{role}"><span>{esc(title)}</span><strong>{value or NOT_MEASURED}</strong>'
        f"<small>{small}</small></div>"
    )


def _claims(run: Run) -> str:
    claims = (run.results or {}).get("claims") or []
    if not claims:
        return ""
    items = "".join(
        f'<li class="{"lpr-holds" if claim["holds"] else "lpr-broke"}">'
        f"<b>{'✓ holds' if claim['holds'] else '✗ does not hold'}</b>"
        f"<span>{esc(claim['text'])}</span><em>measured {_short(claim['measured'])}</em></li>"
        for claim in claims
    )
    held = sum(bool(claim["holds"]) for claim in claims)
    title = f"{held} of {len(claims)} promises of the method hold"
    return f'<section><h3>{title}</h3><ul class="lpr-claims">{items}</ul></section>'


def _short(value: float) -> str:
    text = f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return "−" + text[1:] if text.startswith("-") else text


def _lineage(run: Run, runs: list[Run]) -> str:
    before, children = ancestors_of(run, runs), children_of(run, runs)
    if not before and not children:
        return ""
    titles = {other.id: other.title for other in runs}

    def link(run_id: str) -> str:
        query = esc(View(run=run_id).to_query())
        known = run_id in titles
        name = esc(titles.get(run_id, run_id))
        return f'<a href="/?{query}" data-pick="{query}">{name}</a>' if known else f"<span>{name} (not here)</span>"

    earlier = " ".join(f"{link(parent)} →" for parent in before)
    after = " ".join(f"→ {link(child.id)}" for child in children)
    return f'<section><h3>Lineage</h3><p class="lpr-lineage">{earlier} <b>{esc(run.title)}</b> {after}</p></section>'


def _phases(run: Run) -> str:
    status = run.status
    seconds = (run.results or {}).get("seconds") or run.phases.get("seconds") or {}
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
    total = sum(value for value in seconds.values() if isinstance(value, int | float))
    title = f"Phases, {duration(total)} in all" if total else "Phases"
    return f'<section><h3>{title}</h3><ol class="lpr-phases">{"".join(items)}</ol></section>'


def _folded(title: str, body: str) -> str:
    return f'<details class="lpr-fold"><summary>{esc(title)}</summary><div class="lpr-scroll">{body}</div></details>'


def _pairs(rows: list[tuple[str, str | None]]) -> str:
    body = "".join(
        f'<tr><th scope="row"><code>{esc(name)}</code></th><td>{esc(text or NOT_MEASURED)}</td></tr>'
        for name, text in rows
    )
    return f'<table class="lpr-table lpr-plain"><tbody>{body}</tbody></table>'


def _settings(run: Run) -> str:
    settings, made_with = flatten(run.config), flatten(run.env or {})
    parts = [_folded("Settings", _pairs(settings))] if settings else []
    parts += [_folded("Made with", _pairs(made_with))] if made_with else []
    return "".join(parts)


def _data(run: Run) -> str:
    texts = (run.data or {}).get("texts")
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
    return _folded("Text it was made from", table)


def _notes(run: Run) -> str:
    return f'<section><h3>Notes</h3><p class="lpr-notes">{esc(run.notes)}</p></section>' if run.notes.strip() else ""
