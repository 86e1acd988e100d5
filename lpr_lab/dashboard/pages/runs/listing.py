"""The list of runs, and the answer of page `/` in a sentence."""

from typing import Any

from markupsafe import Markup, escape

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.runs.choosing import asked_values, is_narrowed, render_choosing, shown_runs
from lpr_lab.dashboard.pages.runs.compare import chosen_runs, toggle
from lpr_lab.dashboard.pages.runs.sweep import points_of
from lpr_lab.dashboard.shell import BITS_PER_BYTE, PageContext
from lpr_lab.errors import LprError
from lpr_lab.experiments.sweep.grid import KIND as SWEEP
from lpr_lab.measure.significance import ADAPTATION, UNCLEAR
from lpr_lab.runs.housekeeping import tags_of
from lpr_lab.runs.model_ref import analysed_run
from lpr_lab.runs.people.notes import first_line, read_notes
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts
from lpr_lab.text.languages import language_name
from lpr_lab.text.splits import main_test_set
from lpr_lab.views.html.run_overview import mean_of
from lpr_lab.views.html.templates import render
from lpr_lab.views.numbers import NOT_MEASURED, change, duration
from lpr_lab.wording import counted

MAX_ROWS = 200
SEARCH_FROM = 8

Choice = tuple[str, str, bool, int]
"""Query, label, whether it is the one there is, and how many runs it leaves."""


def headline(results: dict[str, Any]) -> dict[str, float]:
    """Return mean change of bits per byte in per cent by role, on held-out text where there is any; empty when none."""
    summary = results.get("summary") or {}
    by_role = summary.get(main_test_set(summary), {})
    found = {}
    for role in ("expanded", "original"):
        value = by_role.get(role, {}).get("mean_change_percent") if isinstance(by_role, dict) else None
        if isinstance(value, int | float):
            found[role] = float(value)
    return found


def finding(context: PageContext) -> Markup:
    """Return the page's answer in a sentence about the chosen run, and one about the others."""
    run = context.run
    if run is None:
        return Markup("")
    try:
        numbers, (original, expanded) = headline(run.results), shell.languages_of(run)
        base = str((run.results or run.config).get("base") or "The base")
    except LprError as error:
        return escape(str(error))
    taught = Markup('<span class="lpr-expanded">{}</span>').format(_list(expanded))
    if not numbers:
        return _progress(run, base, taught if expanded else run.title) + shell.more(_inventory(context))
    text = Markup("{} learned {}").format(base, taught)
    if "expanded" in numbers:
        text += f": {_amount(run, 'expanded', numbers, ' bits per byte')}"
    if "original" in numbers:
        kept = Markup('<span class="lpr-original">{}</span>').format(_list(original))
        text += Markup("; {}: {}").format(kept, _amount(run, "original", numbers))
    adapted = ADAPTATION if numbers.get("original", 0) < 0 else ""
    return text + "." + shell.more(BITS_PER_BYTE, adapted, _inventory(context))


def _progress(run: Run, base: str, taught: str | Markup) -> Markup:
    """Return the state of a run that was not evaluated, in a sentence."""
    status = run.status
    where = (status.stage or "its start").replace("_", " ")
    if run.kind == SWEEP:
        sentence = Markup("A sweep of {} over every point of a grid: {}.")
        return sentence.format(run.config.get("notebook"), status.state)
    silence = duration(status.heartbeat_age_seconds) if status.state == "stalled" else ""
    by_state = {
        "running": Markup("{base} is learning {taught}: at {where} now."),
        "stalled": Markup("{base} was learning {taught} and has shown no sign of life for {silence}."),
        "interrupted": Markup("{base} was learning {taught} and was interrupted at {where}."),
        "failed": Markup("{base} was learning {taught} and failed at {where}."),
        "queued": Markup("{base} is to learn {taught}; nothing was started yet."),
    }
    by_kind = {
        "plan": Markup("{base} has a plan for {taught}."),
        "upcycle": Markup("{base} was given new experts; nothing was trained yet."),
        "text": Markup("Text for {taught} was read by the tokenizer of {base}."),
    }
    sentence = by_state.get(status.state) or by_kind.get(run.kind)
    if sentence is None and analysed_run(run):
        return Markup("This {} analysed a finished run. {}").format(run.kind, shell.elsewhere(run, "/"))
    sentence = sentence or Markup("{base} learned {taught}; nothing was measured.")
    return sentence.format(base=base, taught=taught, where=where, silence=silence)


def _amount(run: Run, role: str, numbers: dict[str, float], unit: str = "") -> str:
    value = numbers[role]
    if not mean_of(run.results, role).direction:
        return f"{UNCLEAR} ({change(value)})"
    return f"{abs(value):.1f}% {'fewer' if value < 0 else 'more'}{unit}"


def _list(codes: list[str]) -> str:
    names = [language_name(code) for code in codes]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "no language"


def _inventory(context: PageContext) -> str:
    own = [run for run in context.runs if not run.is_example]
    examples = len(context.runs) - len(own)
    parts = [f"{counted(len(own), 'run')} in this folder" if own else "No run of your own yet"]
    states = [run.status.state for run in own if run.problem is None]
    parts += [f"{states.count(state)} {state}" for state in shell.STATES if state != "finished" and state in states]
    if examples:
        parts.append(f"{counted(examples, 'example')} that came with the code")
    return ", ".join(parts) + "."


def _filters(context: PageContext) -> dict[str, list[Choice]]:
    """Return the choices of kind, state and tag, where there is one to make."""
    readable = [run for run in context.runs if run.problem is None]
    found = {}
    for name, values in (
        ("kind", [run.kind for run in readable]),
        ("state", [run.status.state for run in readable]),
        ("tag", sorted(word for run in readable for word in tags_of(run))),
    ):
        there = list(dict.fromkeys(values))
        if len(there) > (name != "tag") or getattr(context.query, name):
            every = _choice(context, name, "", len(readable))
            found[name] = [every, *(_choice(context, name, value, values.count(value)) for value in there)]
    return found


def _choice(context: PageContext, name: str, value: str, number: int) -> Choice:
    query = context.query
    return query.urlencode(**{name: value}), value or f"every {name}", getattr(query, name) == value, number


def render_list(context: PageContext) -> Markup:
    """Return the table of runs; choosing one shows it below."""
    if not context.runs:
        return Markup("")
    runs = shown_runs(context)
    hidden = 0 if len(runs) == len(context.runs) else sum(points_of(context.runs).values())
    ticked = [run.id for run in chosen_runs(context)]
    return render(
        "dashboard/pages/runs/list.html.j2",
        filters=_filters(context),
        with_search=len(context.runs) > SEARCH_FROM,
        choosing=render_choosing(context),
        rows=[_row(run, context, ticked) for run in runs[:MAX_ROWS]],
        num_runs=len(runs),
        most=MAX_ROWS,
        is_sorted=bool(context.query.sort),
        hidden=0 if is_narrowed(context) else hidden,
        unclear=UNCLEAR,
    )


def _row(run: Run, context: PageContext, ticked: list[str]) -> dict[str, Any]:
    """Return what the template shows of a run; of one that cannot be read, why."""
    if run.problem is not None:
        return {"id": run.id, "problem": run.problem}
    try:
        results = run.results
        numbers = headline(results)
        original, expanded = shell.languages_of(run, results)
        recipe = str((results or run.config).get("recipe") or run.kind)
    except LprError as error:
        return {"id": run.id, "problem": str(error)}
    return {
        "title": run.title,
        "problem": "",
        "is_chosen": context.run is not None and context.run.id == run.id,
        "query": context.query.urlencode(run=run.id, text="", tok=None),
        "toggle": toggle(context, run, ticked),
        "badges": Markup("{}{}{}").format(shell.example_badge(run), shell.tag_chips(run), _alert_badge(run)),
        "facts": f"{recipe.replace('_', ' ')} · {shell.age(run.created)}",
        "asked": [(name, value.text if value else NOT_MEASURED) for name, value in asked_values(context, run)],
        "notes": first_line(read_notes(run)),
        "state": shell.state_badge(run.status.state),
        "languages": shell.language_chips(original, "original") + shell.language_chips(expanded, "expanded"),
        "numbers": {role: _number(results, role, numbers.get(role)) for role in ("expanded", "original")},
    }


def _alert_badge(run: Run) -> Markup:
    """Return how many alerts the run raised, with their sentences; nothing where there are none."""
    raised = alerts.read(run)
    if not raised:
        return Markup("")
    many = counted(len(raised), "alert")
    badge = Markup('<span class="lpr-badge lpr-alert" title="{}"><i aria-hidden="true">▲</i> {}</span>')
    return badge.format(" ".join(map(alerts.line, raised)), many)


def _number(results: dict[str, Any], role: str, value: float | None) -> Markup:
    if value is None:
        return Markup('<span title="not measured">{}</span>').format(NOT_MEASURED)
    unclear = "" if mean_of(results, role).direction else Markup("<small>{}</small>").format(UNCLEAR)
    return Markup("{}{}").format(change(value), unclear)
