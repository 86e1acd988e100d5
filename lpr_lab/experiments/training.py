"""The training phase of a run: the recipe's steps one after the other, by one process or by several together.

Several processes (ranks) do the same steps at the same time: the training loop shares each step's blocks among them,
and only the first writes into the run.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch.distributed import DistBackendError, DistNetworkError

from lpr_lab.errors import LprError, NotFiniteError
from lpr_lab.experiments.processes.number import started
from lpr_lab.experiments.steps import STEPS, RunContext
from lpr_lab.experiments.tracking.log import tracking
from lpr_lab.method.baselines.files import restore_trained, save_trained
from lpr_lab.model.machine import peak_memory
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.progress import announce
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts


def train_steps(context: RunContext) -> None:
    """Run the recipe's steps, each from where it was left, and write the sealed adapter to `checkpoint/`.

    Raises:
        LprError: another of the processes that train together ended.
    """
    with _lost_process_named():
        _train_steps(context)


def _train_steps(context: RunContext) -> None:
    run, experiment = context.run, context.experiment
    left = [step for step in experiment.steps if not run.phases.is_done(step)]
    wait_for_all()  # else a slow rank could find done what the others are just doing
    for step in experiment.steps:
        folder = run.paths.stage(step)
        with run.working(step):
            if step not in left:
                continue
            with timed(run, step) if context.writes else nullcontext():
                if context.writes:
                    run.phases.record_processes(step, started())
                _load_step_before(context, step)
                with tracking(run, step, context.trackers if context.writes else ()) as context.track:
                    facts = _trained(context, step, folder)
                if context.writes:
                    run.phases.record(step, {**facts, "peak_memory_bytes": peak_memory()})
                    # Kept until the run is finished, so that the next step can start from it after an interruption.
                    save_trained(context.model, folder / "adapter")
                    run.phases.mark_done(step)
            wait_for_all()
    with run.working("save"):
        _load_step_before(context, None)
        if context.writes:
            facts = {"run": run.id, "recipe": experiment.recipe}
            save_trained(context.model, run.paths.checkpoint, facts, tokenizer=context.tokenizer)
            run.phases.mark_done("save")
        wait_for_all()


def _trained(context: RunContext, step: str, folder: Path) -> dict[str, Any]:
    """Make a step; one that ends because a number is not finite leaves an alert."""
    try:
        return STEPS[step](context, folder)
    except NotFiniteError as error:
        if context.writes:
            for alert in alerts.Watch(step).update(error.metrics):
                alerts.add(context.run, alert)
        raise


@contextmanager
def _lost_process_named() -> Iterator[None]:
    """Say in a sentence that another process ended, where torch says that a connection was closed."""
    try:
        yield
    except RuntimeError as error:
        is_lost = isinstance(error, DistNetworkError | DistBackendError) or "by peer" in str(error)
        if started() == 1 or not is_lost:
            raise
        raise LprError(
            f"Another of the {started()} processes that train together ended, so this one stopped too. What the "
            "launcher printed says which and why. The work up to the last checkpoint is saved; the same command goes "
            "on from there."
        ) from error


def wait_for_all() -> None:
    """Wait until every process that was started together with this one is here."""
    if started() > 1:
        join_processes().wait_for_everyone()


@contextmanager
def timed(run: Run, phase: str) -> Iterator[None]:
    """Announce a phase, and record how long it took over all its sessions."""
    started_at = time.monotonic()
    announce(f"[{run.id}] {phase} ...")
    yield
    seconds = run.phases.seconds
    took = round(seconds.get(phase, 0) + time.monotonic() - started_at, 1)
    run.phases.record("seconds", {**seconds, phase: took})


def _load_step_before(context: RunContext, step: str | None) -> None:
    """Put the weights in place that the last finished step before `step` (None: the last of all) left."""
    steps = context.experiment.steps
    before = steps[: steps.index(step)] if step is not None else steps
    if before:
        restore_trained(context.model, context.run.paths.stage(before[-1]) / "adapter")
