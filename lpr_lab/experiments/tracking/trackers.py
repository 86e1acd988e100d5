"""The experiment trackers that metrics can be logged to: TensorBoard, Trackio, W&B and MLflow, and which are selected.

`LPR_LAB_TRACKERS=tensorboard,mlflow`, `lpr-lab run --track tensorboard` and `pipeline.run(…, trackers=…)` select them.
They are no setting of an experiment: a run is the same run with and without.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpr_lab.errors import MissingError, one_of
from lpr_lab.runs.run import Run

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

VARIABLE = "LPR_LAB_TRACKERS"
PROJECT = "lpr_lab"


def selected(names: Sequence[str] | None = None) -> tuple[str, ...]:
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
        one_of("tracker", name, OPENERS)
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise MissingError(
            f"The tracker {missing[0]} is not installed. In the checkout: pip install -e '.[{','.join(missing)}]'"
        )
    return wanted


def _tensorboard(run: Run, stage: str, folder: Path, state: dict[str, Any]) -> "GeneralTracker":
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(stage, folder / "tensorboard")


def _trackio(run: Run, stage: str, folder: Path, state: dict[str, Any]) -> "GeneralTracker":
    from accelerate.tracking import TrackioTracker

    # It reads TRACKIO_DIR once, when it is imported; a process may work on one run after another.
    import_module("trackio.sqlite_storage")
    for name, module in list(sys.modules.items()):
        if name.startswith("trackio") and "TRACKIO_DIR" in vars(module):
            vars(module)["TRACKIO_DIR"] = (folder / "trackio").absolute()
    return TrackioTracker(PROJECT, name=f"{run.id} {stage}", group=run.id, resume="allow", embed=False)


def _wandb(run: Run, stage: str, folder: Path, state: dict[str, Any]) -> "GeneralTracker":
    from accelerate.tracking import WandBTracker

    mode = os.environ.get("WANDB_MODE", "offline")
    if mode == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
    (folder / "wandb").mkdir(exist_ok=True)
    return WandBTracker(
        os.environ.get("WANDB_PROJECT", PROJECT),
        name=f"{run.id} {stage}",
        id=f"{run.id}-{stage}",
        group=run.id,
        job_type=stage,
        dir=str(folder / "wandb"),
        mode=mode,
        resume="allow",
    )


def _mlflow(run: Run, stage: str, folder: Path, state: dict[str, Any]) -> "GeneralTracker":
    # Plain files, like everything else here; MLflow would rather have a database, and asks whether one means it.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow
    from accelerate.tracking import MLflowTracker

    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri((folder / "mlflow").absolute().as_uri())
    return MLflowTracker(PROJECT, run_id=state.get("id"), run_name=f"{run.id} {stage}", tags={"stage": stage})


OPENERS: "dict[str, Callable[[Run, str, Path, dict[str, Any]], GeneralTracker]]" = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
"""How each tracker is opened for a stage of a run, with its files in a folder; the last argument is what `log` noted
when the stage began. Each name is also that of a Python package and of the extra in pyproject.toml that installs it."""


def id_of(tracker: "GeneralTracker") -> str | None:
    """Return the id that MLflow gave its run; the others take the one we give."""
    return getattr(getattr(getattr(tracker, "tracker", None), "info", None), "run_id", None)
