"""A phase of a run as each of several processes works on it, with what it needs loaded from the run directory."""

from collections.abc import Callable
from pathlib import Path

import torch

from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.load import expanded_model, starting_model
from lpr_lab.experiments.steps import RunContext
from lpr_lab.experiments.tracking.trackers import selected as selected_trackers
from lpr_lab.experiments.training import train_steps
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.runs.run import Run
from lpr_lab.text.load import load_corpus

PHASES: dict[str, Callable[[RunContext], None]] = {"train": train_steps}
"""What several processes can do together."""


def work(phase: str, path: Path, *, writes: bool = False) -> None:
    """Work on a phase of a run that was prepared before, together with the other ranks.

    Args:
        phase: of `PHASES`.
        path: of the run, which another process holds.
        writes: whether this is the rank that writes into it.
    """
    join_processes()
    run = Run(path)
    run.join(writes=writes)
    experiment = Experiment.from_config(run.config)
    corpus = load_corpus(experiment.corpus, languages=list(experiment.languages))
    parent, model, tokenizer = starting_model(experiment, run)
    expanded = expanded_model(experiment, run, model, tokenizer, corpus)
    context = RunContext(experiment, run, expanded, tokenizer, corpus, torch.empty(0), parent)
    context.trackers, context.writes = selected_trackers(), writes
    PHASES[phase](context)
