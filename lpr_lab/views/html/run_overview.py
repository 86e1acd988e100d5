"""One run at a glance as HTML, the same on the dashboard and in reports: results, claims, phases, settings, texts."""

from typing import Any

from markupsafe import Markup

from lpr_lab.measure.significance import ADAPTATION, UNCLEAR, Difference, mean_change
from lpr_lab.runs.compare.costs import costs_of
from lpr_lab.runs.run import Run
from lpr_lab.text.languages import language_name
from lpr_lab.text.splits import main_test_set
from lpr_lab.views.html.templates import render
from lpr_lab.views.names import dataset_name
from lpr_lab.views.numbers import NOT_MEASURED, change, count, duration, interval, percent, size


def render_tiles(run: Run) -> Markup:
    """Return the results of a run as four large numbers; empty while nothing was measured."""
    results = run.results
    if not results.get("summary"):
        return Markup()
    summary = results["summary"]
    dataset = main_test_set(summary)
    by_role = summary.get(dataset, {})
    tiles = []
    for role, word in (("expanded", "gain"), ("original", "retention")):
        value = (by_role.get(role) or {}).get("mean_change_percent")
        tiles.append(
            (f"{role.capitalize()} languages: {word}", change(value), _change_note(results, role, value), role)
        )
    for role in ("original", "expanded"):
        weight = (by_role.get(role) or {}).get("original_weight")
        if weight is not None:
            tiles.append((f"Original expert, {role} languages", percent(weight), "mean weight over layers", role))
    parameters = results.get("parameters") or {}
    note = f"{dataset_name(dataset)}; below zero is better." if dataset else ""
    added = [f"{key.replace('_', ' ')} {count(value)}" for key, value in parameters.items() if isinstance(value, int)]
    counted = f"Parameters: {', '.join(added)}." if added else ""
    caption = " ".join(filter(None, [note, counted, _cost(run), lost_text(run)]))
    return render("views/html/run_tiles.html.j2", tiles=tiles, caption=caption)


def _cost(run: Run) -> str:
    """Return what training took and what it left, in a sentence; empty where that was not recorded."""
    found = costs_of(run)
    parts = []
    if "tokens_per_second" in found:
        parts.append(f"{duration(found['training_seconds'])} at {found['tokens_per_second']:.0f} tokens/s")
    if "peak_memory_bytes" in found:
        parts.append(f"{size(found['peak_memory_bytes'])} of memory at most")
    if "file_bytes" in found:
        parts.append(f"{size(found['file_bytes'])} of weights kept")
    return f"Training: {', '.join(parts)}." if parts else ""


def _change_note(results: dict[str, Any], role: str, value: float | None) -> Markup:
    """Return over which languages a mean change is, its interval, and whether it is clear."""
    codes = ", ".join(language_name(code) for code in results.get(role) or [])
    note = Markup("mean change of bits per byte, {}").format(codes)
    if value is None:
        return note
    found = mean_of(results, role)
    ends = f"95% interval {interval(found.low, found.high)}" if found.has_interval else "no interval"
    note += Markup("; {}").format(ends) if found.direction else Markup("; <b>{}</b> ({})").format(UNCLEAR, ends)
    return note + f". {ADAPTATION}" if role == "original" and value < 0 else note


def mean_of(results: dict[str, Any], role: str) -> Difference:
    """Return the mean change of bits per byte over the languages of a role, on held-out text where there is any."""
    rows = [row for row in results.get("change") or [] if isinstance(row, dict)]
    dataset = main_test_set(str(row.get("dataset")) for row in rows)
    return mean_change(row for row in rows if (row.get("dataset"), row.get("role")) == (dataset, role))


def lost_text(run: Run) -> str:
    """Say how much of the evaluated text the tokenizer loses; empty where it gives back the text."""
    rows = run.results.get("lost_text") or []
    if not rows:
        return ""
    parts = [f"{row['lost_share']:.2%} of {language_name(row['language'])} ({row['dataset']})" for row in rows]
    return f"The tokenizer loses text, which is not counted in bits per byte: {', '.join(parts)}."


def render_claims(run: Run) -> Markup:
    """Return the claims of the method and whether each holds; empty where nothing was checked."""
    claims = run.results.get("claims") or []
    return render("views/html/run_claims.html.j2", claims=claims, short=_short) if claims else Markup()


def claims_finding(run: Run) -> str:
    """Return how many claims hold."""
    claims = run.results.get("claims") or []
    held = sum(bool(claim["holds"]) for claim in claims)
    of = ", asked of a baseline" if run.results.get("baseline") else ""
    return f"{held} of {len(claims)} promises of the method hold{of}"


def _short(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    text = f"{value:.1e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return "−" + text[1:] if text.startswith("-") else text


def render_phases(run: Run) -> Markup:
    """Return the phases of a run and how long each took; empty where it has none."""
    status, seconds = run.status, run.phases.seconds
    phases = []
    for name in dict.fromkeys(filter(None, (*status.done_phases, status.stage))):
        is_done = name in status.done_phases or status.state == "finished"
        mark = "✓" if is_done else "…" if status.is_live else "✕"
        took = duration(seconds[name]) if name in seconds else ""
        phases.append((name.replace("_", " "), "done" if is_done else status.state, mark, took))
    return render("views/html/run_phases.html.j2", phases=phases) if phases else Markup()


def phases_finding(run: Run) -> str:
    """Return how long all phases took."""
    seconds = run.phases.seconds
    total = sum(value for value in seconds.values() if isinstance(value, int | float))
    return f"Phases, {duration(total)} in all" if total else "Phases"


def render_settings(rows: list[tuple[str, str | None]]) -> Markup:
    """Return names and texts as a table."""
    return render("views/html/settings.html.j2", rows=rows)


def render_texts(run: Run) -> Markup:
    """Return size and hash of every text that a run was made from, and what was not read; empty if not recorded."""
    texts = run.documents.read("data").get("texts")
    if not isinstance(texts, dict):
        return Markup()
    rows = [
        (
            language_name(code),
            split,
            count(facts.get("n_documents", 0)),
            count(facts.get("characters", 0)),
            Markup("<code>{}</code>").format(str(facts.get("sha256", ""))[:12]),
        )
        for code, splits in texts.items()
        for split, facts in splits.items()
    ]
    return render("views/html/run_texts.html.j2", rows=rows, left_out=run.documents.read("data").get("left_out") or [])
