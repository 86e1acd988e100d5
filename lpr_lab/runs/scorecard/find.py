"""Which runs belong to which arm of a scorecard: those that were made with its settings, whatever made them."""

import json
from collections.abc import Mapping
from typing import Any

from lpr_lab.errors import LprError
from lpr_lab.runs.run import Run

Key = str


def key_of(config: Mapping[str, Any]) -> Key:
    """Return settings as one text, to compare runs by."""
    return json.dumps(config, sort_keys=True, ensure_ascii=False)


def finished_settings(run: Run) -> Mapping[str, Any] | None:
    """Return the settings of a run that ended and can be read; None of another one."""
    try:
        return run.config if run.problem is None and run.status.recorded_state == "finished" else None
    except LprError:
        return None
