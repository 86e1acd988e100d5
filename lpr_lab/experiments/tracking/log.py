"""Logs the metrics of a training stage to trackers, through Accelerate's tracking API, without holding up the training.

Each tracker lives in a thread of its own, behind a queue: one that raises, hangs or cannot keep up is reported once in
the run's log, and training goes on. The run directory stays the source of truth. A tracker keeps its files there too,
under `tracking/`, and reaches for the network only where its own environment variables say so.

A stage is one run of a tracker. Beside its files stands what it was handed, written before it is handed on: a stage
that resumes goes on in the same run of the tracker, and no step is there twice.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty, Full, Queue
from typing import Any

from lpr_lab.experiments.tracking.trackers import OPENERS, id_of
from lpr_lab.model.parallel.processes import join_processes
from lpr_lab.progress import remark
from lpr_lab.runs.files import PRINTED_TO
from lpr_lab.runs.formats import dotted
from lpr_lab.runs.run import Run
from lpr_lab.storage import read_json, write_json

CLOSE_SECONDS = 30.0
"""How long the end of a stage waits for what its trackers still have to write, all together."""
MOST_WAITING = 10_000
"""Steps that may wait for one tracker."""

Log = Callable[[Mapping[str, float]], None]


@contextmanager
def tracking(run: Run, stage: str, names: Sequence[str]) -> Iterator[Log]:
    """Yield a function that queues the metrics of one step for the trackers named, and returns at once.

    Args:
        run: whose numbers they are; its settings are handed on first.
        stage: the training stage; a run of the tracker is named after both.
        names: from `trackers.selected`.
    """
    if names:
        join_processes()  # Accelerate's trackers ask which process this is
    threads = [_TrackerThread(name, run, stage) for name in names]

    def log(metrics: Mapping[str, float]) -> None:
        for thread in threads:
            thread.put(metrics)

    try:
        yield log
    finally:
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.close()
        for thread in threads:
            thread.wait_until(deadline)


class _TrackerThread:
    """One tracker of one stage: queues steps at any pace and writes them in a thread of its own."""

    def __init__(self, name: str, run: Run, stage: str):
        self._name, self._run, self._stage = name, run, stage
        self._folder = run.paths.tracking
        self._handed = self._folder / f"{name}.{stage}.json"
        self._queue: Queue[dict[str, float] | None] = Queue(MOST_WAITING)
        self._doing = "starting"
        self._is_given_up = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"lpr-lab-{name}", daemon=True)

    def put(self, metrics: Mapping[str, float]) -> None:
        """Take the numbers of one step; the thread starts with the first, when the training's processes are set up."""
        if self._is_given_up:
            return
        if not self._thread.is_alive():
            self._thread.start()
        try:
            self._queue.put_nowait(dict(metrics))
        except Full:
            self._give_up(f"does not keep up: {MOST_WAITING:,} steps wait for it")

    def close(self) -> None:
        """Say that nothing more will come."""
        if self._thread.is_alive() and not self._is_given_up:
            self._queue.put_nowait(None) if not self._queue.full() else self._give_up("does not keep up")

    def wait_until(self, deadline: float) -> None:
        """Wait until the deadline for it to write what is queued."""
        if self._thread.is_alive() and not self._is_given_up:
            self._thread.join(max(deadline - time.monotonic(), 0.0))
            if self._thread.is_alive():
                self._give_up(f"did not end within {CLOSE_SECONDS:.0f} s ({self._doing})")

    def _work(self) -> None:
        try:
            state = read_json(self._handed) if self._handed.exists() else {}
            self._folder.mkdir(exist_ok=True)
            tracker = OPENERS[self._name](self._run, self._stage, self._folder, state)
            tracker.start()
            if not state:
                tracker.store_init_configuration({"run": self._run.id, "stage": self._stage} | _flat(self._run.config))
            state = {"step": 0, **state, "id": id_of(tracker)}
            while steps := self._next_steps():
                self._doing = "logging"
                new = [metrics for metrics in steps if metrics is not None and metrics["step"] > state["step"]]
                if new and not self._is_given_up:
                    state["step"] = int(new[-1]["step"])
                    write_json(self._handed, state)
                for metrics in new:
                    if self._is_given_up:
                        return
                    tracker.log({key: metrics[key] for key in metrics if key != "step"}, step=int(metrics["step"]))
                if steps[-1] is None:
                    break
            self._doing = "finishing"
            tracker.finish()
        except BaseException as error:  # whatever a tracker does, also a SystemExit, stays in here
            self._give_up(f"failed while {self._doing} ({type(error).__name__}: {error})")

    def _next_steps(self) -> list[dict[str, float] | None]:
        """Wait for a step and return all there are by then; the last is None when nothing more will come."""
        steps = [self._queue.get()]
        while steps[-1] is not None:
            try:
                steps.append(self._queue.get_nowait())
            except Empty:
                break
        return steps

    def _give_up(self, reason: str) -> None:
        with self._guard:
            if self._is_given_up:
                return
            try:
                # First: who sees it given up does not wait for it, and the stage, or the process, may be over then.
                say(self._run, f"The tracker {self._name} {reason}. Training goes on without it.")
            finally:
                self._is_given_up = True


def say(run: Run, text: str) -> None:
    """Write a remark where progress goes, and keep it in the run's log."""
    remark(text)
    if os.environ.get(PRINTED_TO) != str(run.paths.log):
        run.paths.log.parent.mkdir(exist_ok=True)
        with run.paths.log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as trackers take them: dotted names, and lists as text."""
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        for name, value in dotted(settings)
    }
