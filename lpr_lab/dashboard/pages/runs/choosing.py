"""Which runs the list of page `/` shows, in which order: by kind, state, tag, any setting and number of results."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lpr_lab.dashboard.pages.runs.sweep import points_of
from lpr_lab.dashboard.shell import PageContext
from lpr_lab.errors import UsageError
from lpr_lab.runs.housekeeping import tags_of
from lpr_lab.runs.run import Run
from lpr_lab.runs.selection import (
    CREATED,
    RESULTS,
    TITLE,
    Condition,
    Value,
    counts_of,
    names_in,
    order,
    read_conditions,
    select,
    values_of,
    write_conditions,
)
from lpr_lab.views.html.templates import render

MAX_VALUES = 24
"""Values of a setting that are offered one by one; numbers have bounds as well."""
_LABELS = {CREATED: "when it was made", TITLE: "title"}

Option = tuple[str, str]
"""Value and label of one line of a list to choose from."""


@dataclass(frozen=True)
class Offered:
    """A value that the list can be narrowed to: the address then, its text, whether it is now, how many have it."""

    query: str
    text: str
    is_current: bool
    number: int


def conditions_of(context: PageContext) -> tuple[list[Condition], str]:
    """Return the conditions in the address, and what is wrong with them, in a sentence; usually nothing."""
    try:
        return read_conditions(context.query.where), ""
    except UsageError as error:
        return [], f"{error} The address asks for it; no run was left out."


def is_narrowed(context: PageContext) -> bool:
    """Whether the address leaves runs out."""
    query = context.query
    return bool(query.kind or query.state or query.tag or conditions_of(context)[0])


def shown_runs(context: PageContext) -> list[Run]:
    """Return the runs that the address asks for, in its order; unreadable ones are always there, last if ordered.

    Where nothing is asked for, the points of a sweep stand for themselves only in the sweep's own table.
    """
    return order(select_unreadable_too(_of_kind(context), conditions_of(context)[0]), context.query.sort)


def select_unreadable_too(runs: list[Run], conditions: list[Condition]) -> list[Run]:
    """Return the runs for which the conditions hold, and those that cannot be read, in their order."""
    kept = {run.id for run in select(runs, conditions)}
    return [run for run in runs if run.problem is not None or run.id in kept]


def _of_kind(context: PageContext) -> list[Run]:
    query = context.query
    sweeps = set() if is_narrowed(context) else set(points_of(context.runs))
    chosen = context.run.id if context.run else ""
    return [
        run
        for run in context.runs
        if run.problem is not None
        or (
            (run.id == chosen or sweeps.isdisjoint(run.parents))
            and (not query.kind or run.kind == query.kind)
            and (not query.state or run.status.state == query.state)
            and (not query.tag or query.tag in tags_of(run))
        )
    ]


def render_choosing(context: PageContext) -> Markup:
    """Return what narrows and orders the list by settings and results; nothing where there is one run at most."""
    query, runs = context.query, [run for run in context.runs if run.problem is None]
    conditions, wrong = conditions_of(context)
    if len(runs) < 2 and not (conditions or wrong or query.sort):
        return Markup("")
    names = names_in(runs)
    return render(
        "dashboard/pages/runs/choosing.html.j2",
        by=query.by,
        by_options=_options(names, (CREATED, TITLE)),
        sort=query.sort.removeprefix("-"),
        descending=query.sort.startswith("-"),
        sort_options=_options(names),
        turned=query.urlencode(sort=_turned(query.sort)),
        conditions=[
            (query.urlencode(where=write_conditions(other for other in conditions if other != one)), label_of(one))
            for one in conditions
        ],
        wrong=wrong,
        offered=_offered(context, conditions) if query.by else None,
        without=query.urlencode(where="", by="", sort=""),
    )


def _turned(sort: str) -> str:
    return sort.removeprefix("-") if sort.startswith("-") else f"-{sort}"


def _options(names: dict[str, bool], without: tuple[str, ...] = ()) -> list[tuple[str, list[Option]]]:
    """Return groups of names to choose from: first what differs between runs."""
    groups = {
        "Settings that differ": [
            name for name in names if names[name] and not _is_result(name) and name not in _LABELS
        ],
        "Results": [name for name in names if _is_result(name)],
        "Settings that all share": [name for name in names if not names[name] and name not in _LABELS],
        "Runs": [name for name in _LABELS if name in names and name not in without],
    }
    groups["Settings that all share"] = [name for name in groups["Settings that all share"] if not _is_result(name)]
    return [(title, [(name, called(name)) for name in ones]) for title, ones in groups.items() if ones]


def _is_result(name: str) -> bool:
    return name.startswith(RESULTS)


def called(name: str) -> str:
    """Return what a value is called: a setting by its name, a number of the results by its place there.

    >>> called("learning_rate"), called("results.summary.heldout.expanded.mean_change_percent")
    ('learning_rate', 'heldout expanded mean change percent')
    """
    if _is_result(name):
        return name.removeprefix(RESULTS).removeprefix("summary.").replace("_", " ").replace(".", " ")
    return _LABELS.get(name, name)


def label_of(condition: Condition) -> str:
    """Return a condition as people read it."""
    sign = {"=": "=", ">=": "≥", "<=": "≤"}[condition.sign]
    return f"{called(condition.name)} {sign} {condition.text}"


def _offered(context: PageContext, conditions: list[Condition]) -> dict[str, Any]:
    """Return the values of the chosen name that the list can be narrowed to, as the other conditions leave them."""
    query, name = context.query, context.query.by
    others = [one for one in conditions if one.name != name]
    counts = counts_of(select(_of_kind(context), others), name)
    mine = {one.text: one for one in conditions if one.name == name and one.sign == "="}
    shown = [pair for pair in counts if pair[0].text in mine]
    shown += [pair for pair in counts if pair[0].text not in mine][: max(MAX_VALUES - len(shown), 0)]
    chips = []
    for value, number in sorted(shown, key=lambda pair: pair[0].place):
        one = Condition(name, "=", value.text)
        now = [other for other in conditions if other != one] if value.text in mine else [*conditions, one]
        chips.append(Offered(query.urlencode(where=write_conditions(now)), value.text, value.text in mine, number))
    numbers = [value.number for value, _ in counts if value.number is not None]
    bounds = {one.sign: one.text for one in conditions if one.name == name and one.sign != "="}
    return {
        "name": called(name),
        "values": chips,
        "more": len(counts) - len(shown),
        "is_number": len(numbers) > 1 or bool(bounds),
        "bounds": bounds,
        "between": f"{min(numbers):.6g} to {max(numbers):.6g}" if numbers else "",
        "escaped": write_conditions([Condition(name, "=", "")]).removesuffix("="),
        "rest": write_conditions(one for one in conditions if one.name != name or one.sign == "="),
    }


def asked_values(context: PageContext, run: Run) -> list[tuple[str, Value | None]]:
    """Return the values of a run that the list is narrowed or ordered by, with what they are called."""
    query = context.query
    names = [one.name for one in conditions_of(context)[0]] + [query.sort.removeprefix("-"), query.by]
    values = values_of(run)
    return [(called(name), values.get(name)) for name in dict.fromkeys(filter(None, names)) if name not in _LABELS]
