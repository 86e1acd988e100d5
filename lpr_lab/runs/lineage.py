"""Parents, ancestors, children and members of runs."""

from collections.abc import Sequence

from lpr_lab.errors import LprError
from lpr_lab.runs.run import Run


def parents_of(run: Run) -> list[str]:
    """Return the ids of the runs that a run builds on: first the one in its settings, then those in `run.json`.

    A run of a sweep builds on the run that it continues, and on the sweep.
    """
    try:
        parent = run.config.get("from_run") or run.config.get("parent")
    except LprError:
        parent = None
    return list(dict.fromkeys([*([str(parent)] if parent else []), *run.parents]))


def ancestors_of(run: Run, runs: Sequence[Run]) -> list[str]:
    """Return all ancestors, the oldest first; where a run has several parents, those of the first."""
    known = {other.id: other for other in runs if other.problem is None}
    line = parents_of(run)
    seen = {run.id, *line}
    while line and line[0] in known:
        further = [parent for parent in parents_of(known[line[0]]) if parent not in seen]
        if not further:
            break
        seen.update(further)
        line = [*further, *line]
    return line


def members_of(run: Run) -> list[str]:
    """Return the ids of the runs, group by group, that a lifelong run holds together."""
    phases = run.phases
    return [str(phases[key]["run"]) for key in sorted(phases) if key.startswith("group_")]


def children_of(run: Run, runs: Sequence[Run]) -> list[Run]:
    """Return the runs that build on this one."""
    return [other for other in runs if other.problem is None and other.id != run.id and run.id in parents_of(other)]
