"""Whole runs of every recipe in bf16, made in one go or cut again and again, each time taken up by a new process.

    python tests/helpers/cut_runs.py FOLDER whole            every recipe in this process, one after another
    python tests/helpers/cut_runs.py FOLDER inside|between   every recipe, until its next cut

FOLDER holds `base` and `corpus.jsonl`; runs go to FOLDER/whole and FOLDER/cut, up to their sealed adapters. `inside`
cuts a stage after the first step that it makes (by Ctrl-C) or in the middle of fitting routers, `between` after a
stage. `tests/experiments/test_resume.py` starts this file and compares.
"""

import os
import shutil
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

from helpers.tiny_corpus import small_settings
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import Experiment, StageBudget
from lpr_lab.experiments.steps import STEPS
from lpr_lab.method import closed_form
from lpr_lab.runs.files import Metrics, Phases
from lpr_lab.runs.run import Run

BUDGET = StageBudget(tokens=3 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)
NAMES = ("moe_lpr", "layer_moe", "local_review", "guided_review", "route_first")
MOST_CUTS = 6
"""`guided_review` has three stages, each cut inside and after."""


def experiments(folder: Path, root: Path) -> dict[str, Experiment]:
    """Return every recipe with more than one stage, and two that go on from a run with a further group."""
    settings = {**small_settings(folder, BUDGET), "precision": "bf16", "allocation": (1, 2)}
    made = {name: recipes.named(name, **settings) for name in NAMES}
    made["layer_moe"] = replace(made["layer_moe"], classifiers=1)
    for name in ("moe_lpr", "route_first"):
        first = replace(made[name], expanded=("el",))
        parents = root.parent / "parents"
        parent = next((run for run in map(Run, parents.glob("2*")) if run.config == first.to_config()), None)
        if parent is None:
            parent = pipeline.run(first, root=parents)
        if not (root / parent.id).exists():
            shutil.copytree(parent.path, root / parent.id)
        made[f"further {name}"] = recipes.further(Run(root / parent.id), expanded=("tr",))
    return made


def train(experiment: Experiment, root: Path) -> Run:
    """Do all of a run but its measurements; one that was begun goes on."""
    run = pipeline.start(experiment, root=root)
    pipeline.train(pipeline.prepare(experiment, run))
    return run


@contextmanager
def cut(where: str):
    """Interrupt what runs inside the block once: `inside` a stage, or `between` two; `whole` leaves it alone."""
    log_metrics, mark_done, set_router = Metrics.log, Phases.mark_done, closed_form.set_router
    fitted = []

    def log(self, *args, **kwargs):
        log_metrics(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)

    def fit(*args):
        fitted.append(args)
        if len(fitted) == 2:
            raise KeyboardInterrupt
        set_router(*args)

    def mark(self, phase):
        mark_done(self, phase)
        if phase in STEPS:
            raise KeyboardInterrupt

    if where == "inside":
        with mock.patch.object(Metrics, "log", log), mock.patch.object(closed_form, "set_router", fit):
            yield
    elif where == "between":
        with mock.patch.object(Phases, "mark_done", mark):
            yield
    else:
        yield


def main(folder: Path, where: str) -> None:
    """Make all runs whole, or every run until its next cut; says which are trained."""
    root = folder / ("whole" if where == "whole" else "cut")
    root.mkdir(exist_ok=True)
    for name, experiment in experiments(folder, root).items():
        with suppress(KeyboardInterrupt), cut(where):
            print("trained:", name, "-", train(experiment, root).id, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
