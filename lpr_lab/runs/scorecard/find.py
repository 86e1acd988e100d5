"""Which runs belong to which arm of a scorecard: those that were made with its settings, whatever made them."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lpr_lab.errors import LprError
from lpr_lab.runs.run import Run

Key = str


def key_of(config: Mapping[str, Any]) -> Key:
    """Return settings as one text, to compare runs by."""
    return json.dumps(config, sort_keys=True, ensure_ascii=False)


def finished_by_key(
    runs: Iterable[Run], completed: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
) -> dict[Key, Run]:
    """Return finished runs by their settings; of several with the same the one that comes first.

    Args:
        runs: newest first, as `find.list_runs` has them.
        completed: adds to settings of an earlier version the ones introduced since.
    """
    found: dict[Key, Run] = {}
    for run in runs:
        settings = finished_settings(run)
        if settings is not None:
            found.setdefault(key_of(completed(settings)), run)
    return found


def finished_settings(run: Run) -> Mapping[str, Any] | None:
    """Return the settings of a run that ended and can be read; None of another one."""
    try:
        return run.config if run.problem is None and run.status.recorded_state == "finished" else None
    except LprError:
        return None
