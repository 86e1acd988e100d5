"""A phase of a run as each of several processes works on it, with what it needs loaded from the run directory."""

from collections.abc import Callable
from pathlib import Path

from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.corpus import corpus_of
from lpr_lab.experiments.load import model_to_train, starting_model
from lpr_lab.experiments.measuring import logits_of, measure_run, probe_of
from lpr_lab.experiments.steps import RunContext
from lpr_lab.experiments.tracking.trackers import selected as selected_trackers
from lpr_lab.experiments.training import train_steps
from lpr_lab.method.baselines.files import restore_trained
from lpr_lab.model.parallel.sharing import together
from lpr_lab.runs.run import Run


def _measure(context: RunContext) -> None:
    restore_trained(context.model, context.run.paths.checkpoint)
    measure_run(context)


PHASES: dict[str, Callable[[RunContext], None]] = {"train": train_steps, "measure": _measure}
"""What several processes can do together."""


def work(phase: str, path: Path, *, writes: bool = False) -> None:
    """Work on a phase of a run that was prepared before, together with the other ranks.

    Args:
        phase: of `PHASES`.
        path: of the run, which another process holds.
        writes: whether this is the rank that writes into it.
    """
    run = Run(path)
    run.join(writes=writes)
    experiment = Experiment.from_config(run.config)
    with together():
        corpus = corpus_of(run.config, experiment.languages)
        parent, model, tokenizer = starting_model(experiment, run)
        probe = probe_of(tokenizer)
        base_logits, parent_logits = logits_of(model, probe, None), logits_of(model, probe, "")
        made = model_to_train(experiment, run, model, tokenizer, corpus)
        of_parent = (None, None) if parent is None else (parent, parent_logits)
        context = RunContext(experiment, run, made, tokenizer, corpus, base_logits, *of_parent)
        context.trackers, context.writes = selected_trackers(), writes
        PHASES[phase](context)
