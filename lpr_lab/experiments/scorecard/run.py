"""Train what is missing of a scorecard, one run after the other in this process, and go on where it was stopped.

    lpr-lab scorecard run                    everything that is missing in the small world
    lpr-lab scorecard run --only 15 -n 5     what claim 15 needs, five seeds

A run that is there with the same settings is not made again, an interrupted one goes on from its checkpoint. No kernel
is started, the text is read once, and what an overview does not need (traces, generations) is left out.
"""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lpr_lab.errors import LprError
from lpr_lab.experiments import pipeline
from lpr_lab.experiments.config import Experiment, completed
from lpr_lab.experiments.corpus import corpus_of
from lpr_lab.experiments.scorecard.build import base_of, finished_of, on_one_base
from lpr_lab.experiments.scorecard.plan import Card, experiment_of, jobs
from lpr_lab.model.bases.fingerprint import base_fingerprint
from lpr_lab.model.bases.load import load_base
from lpr_lab.progress import hidden
from lpr_lab.runs.environment import machine
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.allocations import measured_gains
from lpr_lab.runs.scorecard.find import finished_by_key, key_of
from lpr_lab.runs.scorecard.parts import MIN_SEEDS
from lpr_lab.text.corpus import Corpus

Job = tuple[str, int]
Say = Callable[[str], None]


@dataclass
class Made:
    """What a call made, what was there, and what failed.

    Attributes:
        runs: by arm and seed, finished.
        new: those of them that this call made.
        failed: why a job was given up, in a sentence.
    """

    runs: dict[Job, Run] = field(default_factory=dict)
    new: list[Job] = field(default_factory=list)
    failed: dict[Job, str] = field(default_factory=dict)


def make_missing(
    card: Card,
    names: Iterable[str],
    seeds: int,
    root: str | Path,
    *,
    say: Say | None = None,
    dry_run: bool = False,
    texts: "Texts | None" = None,
) -> Made:
    """Train the runs of a card that are not there yet, and return all.

    Args:
        card: what all arms share.
        names: of arms (`Card.arms`); the arms that these go on from, or are planned by, are made too.
        seeds: how many of each.
        root: the folder of runs.
        say: told a line before and after every run.
        dry_run: only say what would be made.
        texts: where somebody reads the same texts beside.

    An arm that cannot be trained is noted, and the others are made.
    """
    say = say or _to_stderr
    there = finished_by_key(_on_this_base(card.base, list_runs(root)), completed)
    made, texts = Made(), texts or Texts()
    todo = []
    for job in jobs(card, names, seeds):
        needed, why = _needed(card, job, made)
        run = None if why else there.get(key_of(_plain(experiment_of(card, *job, **needed))))
        if run is None:
            todo.append(job)
        else:
            made.runs[job] = run
    say(_forecast(made, todo))
    if dry_run:
        return made
    began = time.monotonic()
    for number, job in enumerate(todo):
        name, seed = job
        say(f"{number + 1} of {len(todo)}: {name}, seed {seed}{_left(time.monotonic() - began, number, len(todo))}")
        needed, why = _needed(card, job, made)
        if "parent" in needed and not needed["parent"].paths.has_checkpoint:
            why = f"its parent, {card.arms[name].after} with seed {seed}, is here without weights"
        if why:
            made.failed[job] = why
            continue
        try:
            experiment = experiment_of(card, name, seed, **needed)
            made.runs[job] = one_run(experiment, root, texts.of(experiment, dev=card.arms[name].on_dev))
            made.new.append(job)
        except LprError as error:
            made.failed[job] = str(error)
            say(f"Given up: {error}")
    return made


def _on_this_base(name: str, runs: list[Run]) -> list[Run]:
    """Return the runs without those that started from another base of that name, as one made on another machine."""
    if not any(base_of(run) for run in finished_of(name, runs)):
        return runs
    with hidden():
        model, _ = load_base(name)
    return on_one_base(finished_of(name, runs), base_fingerprint(model, torch.bfloat16))


class Texts:
    """Text that several runs read, loaded once; of two test sets only that of another genre, which halves measuring."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[str, ...], bool], Corpus] = {}

    def of(self, experiment: Experiment, dev: bool = False) -> Corpus:
        """Return an experiment's corpus; with dev text where that is asked for, or where there is no other."""
        key = experiment.corpus, experiment.languages, dev
        if key not in self._known:
            whole = corpus_of(experiment.to_config(), experiment.languages)
            kept = {place: texts for place, texts in whole.texts.items() if dev or place[0] != "dev"}
            self._known[key] = replace(whole, texts=kept) if "heldout" in whole.splits else whole
        return self._known[key]


def one_run(experiment: Experiment, root: str | Path, corpus: Corpus | None = None) -> Run:
    """Return a run that was trained and measured, without the traces and generations of one that people look at."""
    run = pipeline.start(experiment, root=root)
    with hidden():
        context = pipeline.prepare(experiment, run, trackers=(), corpus=corpus)
        pipeline.train(context)
        pipeline.measure(context)
        pipeline.finish(context)
    return run


def seconds_of(run: Run) -> float:
    """Return how long a run took, over all its phases."""
    return float(sum(run.phases.seconds.values()))


def _needed(card: Card, job: Job, made: Made) -> tuple[dict[str, Any], str]:
    """Return what `experiment_of` wants beside arm and seed, and empty words; or nothing, and which run is missing."""
    name, seed = job
    arm = card.arms[name]
    if arm.after:
        parent = made.runs.get((arm.after, seed))
        missing = f"its parent, {arm.after} with seed {seed}, is not there"
        return ({}, missing) if parent is None else ({"parent": parent}, "")
    if arm.probes:
        own = {probe: {of: run for (other, of), run in made.runs.items() if other == probe} for probe in arm.probes}
        gains = measured_gains(own, arm.probes)
        missing = f"it is planned by {MIN_SEEDS} seeds of each of {', '.join(arm.probes)}"
        return ({}, missing) if gains is None else ({"gains": gains}, "")
    return {}, ""


def _plain(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment's settings as a run that was written and read again has them."""
    return completed(experiment.to_config())


def _forecast(made: Made, todo: list[Job]) -> str:
    text = f"{len(made.runs)} runs are there, {len(todo)} are to be made"
    here = machine().items()
    seconds = [seconds_of(run) for run in made.runs.values() if here <= run.documents.read("env").items()]
    seconds = [took for took in seconds if took]
    if not todo or not seconds:
        return text + (". How long that takes is known when the first is done on this machine." if todo else ".")
    mean = sum(seconds) / len(seconds)
    return f"{text}: some {mean * len(todo) / 3600:.1f} hours, at the {mean:.0f} s that a run took on this machine."


def _left(seconds: float, done: int, total: int) -> str:
    return f" ({seconds / done * (total - done) / 60:.0f} min left)" if done else ""


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
