"""Trackers that people use beside the run directory: which there are, which were asked for, whether they are installed.

`LPR_LAB_TRACKERS=tensorboard,mlflow`, `lpr-lab run --track tensorboard` and `pipeline.run(…, trackers=…)` choose them.
They are no setting of an experiment: a run is the same run with and without.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec

from lpr_lab.errors import MissingError, UsageError, did_you_mean

VARIABLE = "LPR_LAB_TRACKERS"
TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
"""Each is also the name of its Python package and of the extra that installs it."""


def chosen(names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the trackers to use: those named, else those of `$LPR_LAB_TRACKERS`, each once.

    Raises:
        UsageError: there is no such tracker.
        MissingError: its package is not installed; the message names the extra.
    """
    if isinstance(names, str):
        names = [names]
    if names is None:
        names = os.environ.get(VARIABLE, "").split(",")
    wanted = tuple(dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip()))
    for name in wanted:
        if name not in TRACKERS:
            raise UsageError(
                f"There is no tracker {name!r}; there are {', '.join(TRACKERS)}.{did_you_mean(name, TRACKERS)}"
            )
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise MissingError(
            f"The tracker {missing[0]} is not installed. In the checkout: pip install -e '.[{','.join(missing)}]'"
        )
    return wanted
