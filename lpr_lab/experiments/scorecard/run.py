"""Train what is missing of a scorecard, one run after the other in this process, and go on where it was stopped.

    lpr-lab scorecard run                    everything that is missing in the small world
    lpr-lab scorecard run --only 15 -n 5     what claim 15 needs, five seeds

A run that is there with the same settings is not made again, an interrupted one goes on from its checkpoint, and one
that another command works on is left to it (see `folder`). No kernel is started, the text is read once, and what an
overview does not need (traces, generations) is left out.
"""

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from lpr_lab.errors import BusyError, LprError, MissingError
from lpr_lab.experiments import pipeline
from lpr_lab.experiments.config import Experiment
from lpr_lab.experiments.corpus import corpus_of
from lpr_lab.experiments.scorecard.folder import Folder, choosing
from lpr_lab.experiments.scorecard.plan import Card, experiment_of, jobs
from lpr_lab.progress import hidden
from lpr_lab.runs.environment import machine
from lpr_lab.runs.find import discard
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.allocations import measured_gains
from lpr_lab.runs.scorecard.parts import MIN_SEEDS
from lpr_lab.text.corpus import Corpus, main_split
from lpr_lab.text.splits import TEST_SETS
from lpr_lab.wording import counted

Job = tuple[str, int]
Say = Callable[[str], None]
_LOOK_AGAIN = 3.0
"""Seconds after which a command that has nothing to do looks whether the others are done."""


@dataclass
class Made:
    """What a call made, what was there, and what failed.

    Attributes:
        runs: by arm and seed, finished.
        new: those of them that this call made.
        failed: why a job was given up, in a sentence.
        left: what other commands work on, where they were not waited for.
    """

    runs: dict[Job, Run] = field(default_factory=dict)
    new: list[Job] = field(default_factory=list)
    failed: dict[Job, str] = field(default_factory=dict)
    left: list[Job] = field(default_factory=list)


def make_missing(
    card: Card,
    names: Iterable[str],
    seeds: int,
    root: str | Path,
    *,
    say: Say | None = None,
    dry_run: bool = False,
    texts: "Texts | None" = None,
    wait: bool = True,
) -> Made:
    """Train the runs of a card that are not there yet, and return all.

    Args:
        card: what all arms share.
        names: of arms (`Card.arms`); the arms that these go on from, or are planned by, are made too, and those that
            one goes on from are made anew where they are here without weights.
        seeds: how many of each.
        root: the folder of runs.
        say: told a line before and after every run.
        dry_run: only say what would be made.
        texts: where somebody reads the same texts beside.
        wait: for runs that other commands work on; else they are left to these.

    An arm that cannot be trained is noted, and the others are made.
    """
    say = say or _to_stderr
    making = _Making(card, root, jobs(card, names, seeds), say)
    say(making.forecast())
    if dry_run:
        return making.made
    texts, began, waits = texts or Texts(), time.monotonic(), False
    while making.todo:
        begun = making.begin_next()
        if begun is None:
            if not wait:
                making.made.left += making.todo
                break
            if making.todo and not waits:
                say(f"Waiting for {counted(len(making.todo), 'run')} that another command works on.")
            waits = bool(making.todo)
            time.sleep(_LOOK_AGAIN if waits else 0)
            continue
        (name, seed), experiment, run = begun
        made, number = making.made, making.total - len(making.todo)
        left = _left(time.monotonic() - began, len(made.new), len(making.todo) + 1)
        say(f"{number} of {making.total}: {name}, seed {seed}{left}")
        try:
            work_on(experiment, run, texts.of(experiment, dev=card.arms[name].on_dev))
        except LprError as error:
            making.give_up((name, seed), error)
            if not isinstance(error, BusyError):  # else it is another command's
                _put_away(run, error)
        else:
            made.runs[name, seed] = run
            made.new.append((name, seed))
    return making.made


class _Making:
    """What is left to make of a card, and what is there.

    Attributes:
        made: what is there, and what was given up.
        todo: jobs that are neither, in the order of the plan.
        total: how many were to be made at first.
    """

    def __init__(self, card: Card, root: str | Path, planned: Iterable[Job], say: Say) -> None:
        self._card, self._root, self._say = card, root, say
        self._folder = Folder(root, card.base)
        self.made = Made()
        planned, self._continued = tuple(planned), frozenset[Job]()
        self._find(planned)
        missing = [(name, seed) for name, seed in planned if (name, seed) not in self.made.runs]
        self._continued = frozenset((after, seed) for name, seed in missing if (after := card.arms[name].after))
        self._find(self._continued)
        self.todo = dict.fromkeys(job for job in planned if job not in self.made.runs)
        self.total = len(self.todo)

    def _find(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.made.runs.pop(job, None)
            with suppress(LprError):  # it goes on from one that is to be made
                if (run := self._finished(job, self._experiment(job))) is not None:
                    self.made.runs[job] = run

    def _finished(self, job: Job, experiment: Experiment) -> Run | None:
        """Return the run of a job; of one that another job goes on from, only where its weights are there."""
        run = self._folder.finished(experiment)
        lacks_weights = job in self._continued and run is not None and not run.paths.has_checkpoint
        return None if lacks_weights else run

    def begin_next(self) -> tuple[Job, Experiment, Run] | None:
        """Begin the first job that can be begun and return it; None where all that are left are under way, or wait.

        What another command has finished meanwhile, and what cannot be made, is taken off the list.
        """
        with choosing(self._root):
            self._folder.look()
            for job in tuple(self.todo):
                if self._comes_after(job) & self.todo.keys():
                    continue
                try:
                    experiment = self._experiment(job)
                    there = self._finished(job, experiment)
                    if there is None and self._folder.is_under_way(experiment):
                        continue
                    del self.todo[job]
                    if there is None:
                        return job, experiment, pipeline.start(experiment, root=self._root)
                    self.made.runs[job] = there
                except LprError as error:
                    self.give_up(job, error)
        return None

    def give_up(self, job: Job, error: LprError) -> None:
        """Note why a job is not made."""
        self.todo.pop(job, None)
        self.made.failed[job] = str(error)
        self._say(f"Given up: {error}")

    def forecast(self) -> str:
        """Return how much is to be made, and how long that takes at the pace of the runs of such a machine."""
        text = f"{counted(len(self.made.runs), 'run')} there, {self.total} to be made"
        here = machine().items()
        seconds = [seconds_of(run) for run in self.made.runs.values() if here <= run.documents.read("env").items()]
        seconds = [took for took in seconds if took]
        if not self.total or not seconds:
            unknown = ". How long that takes is known when the first is done on this machine."
            return text + (unknown if self.total else ".")
        mean = sum(seconds) / len(seconds)
        return (
            f"{text}: some {mean * self.total / 3600:.1f} hours, at the {mean:.0f} s that a run took on this machine."
        )

    def _comes_after(self, job: Job) -> set[Job]:
        """Return the jobs whose runs it goes on from, or is planned by."""
        name, seed = job
        arm = self._card.arms[name]
        return {(arm.after, seed)} if arm.after else {(probe, of) for probe in arm.probes for of in range(MIN_SEEDS)}

    def _experiment(self, job: Job) -> Experiment:
        """Return the experiment of a job.

        Raises:
            LprError: it cannot be, or a run that it goes on from, or is planned by, is not there.
        """
        name, seed = job
        arm, runs = self._card.arms[name], self.made.runs
        if arm.after:
            if (arm.after, seed) not in runs:
                raise MissingError(f"its parent, {arm.after} with seed {seed}, is not there")
            return experiment_of(self._card, name, seed, parent=runs[arm.after, seed])
        if arm.probes:
            own = {probe: {of: run for (other, of), run in runs.items() if other == probe} for probe in arm.probes}
            gains = measured_gains(own, arm.probes)
            if gains is None:
                raise MissingError(f"it is planned by {MIN_SEEDS} seeds of each of {', '.join(arm.probes)}")
            return experiment_of(self._card, name, seed, gains=gains)
        return experiment_of(self._card, name, seed)


class Texts:
    """Text that several runs read, loaded once; of two test sets only the one that decides, which halves measuring."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[str, ...], bool], Corpus] = {}

    def of(self, experiment: Experiment, dev: bool = False) -> Corpus:
        """Return an experiment's corpus; with dev text where that is asked for, or where there is no other."""
        key = experiment.corpus, experiment.languages, dev
        if key not in self._known:
            whole = corpus_of(experiment.to_config(), experiment.languages)
            scored = {main_split(whole, experiment.languages), *(["dev"] if dev else [])}
            unread = {*TEST_SETS} - scored
            kept = {place: texts for place, texts in whole.texts.items() if place[0] not in unread}
            self._known[key] = replace(whole, texts=kept)
        return self._known[key]


def work_on(experiment: Experiment, run: Run, corpus: Corpus | None = None) -> None:
    """Train and measure a run, without the traces and generations of one that people look at."""
    with hidden():
        context = pipeline.prepare(experiment, run, trackers=(), corpus=corpus)
        pipeline.train(context)
        pipeline.measure(context)
        pipeline.finish(context)


def _put_away(run: Run, error: LprError) -> None:
    """Leave a run that failed to be looked at and gone on with, or, where nothing was done in it, not at all."""
    run.stop("failed", error=error)
    if not run.status.done_phases:
        discard(run)


def seconds_of(run: Run) -> float:
    """Return how long a run took, over all its phases."""
    return float(sum(run.phases.seconds.values()))


def _left(seconds: float, done: int, todo: int) -> str:
    return f" ({seconds / done * todo / 60:.0f} min left)" if done else ""


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
