"""The folder in which a scorecard is made, as the commands that make it see it: which run is there, which under way.

Several commands may make one scorecard beside each other: whoever is free takes the next run that is neither there nor
under way. One at a time chooses, so no two take the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock

from lpr_lab.errors import LprError
from lpr_lab.experiments.config import Experiment, completed
from lpr_lab.experiments.scorecard.build import base_of
from lpr_lab.model.bases.fingerprint import base_fingerprint
from lpr_lab.model.bases.load import load_base
from lpr_lab.progress import hidden
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run
from lpr_lab.runs.scorecard.find import Key, finished_settings, key_of


@contextmanager
def choosing(root: str | Path) -> Iterator[None]:
    """Be the only command that chooses what to make in a folder, for the duration; waits for the others."""
    Path(root).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(root) / ".scorecard.lock", thread_local=False, fallback_to_soft=False):
        yield


class _Settled(NamedTuple):
    """What is kept of a finished run: it changes no more."""

    run: Run
    key: Key
    fingerprint: str


class Folder:
    """The runs of one base in a folder, by their settings.

    A run counts that started from the base of that name on this machine, or did not record from which.
    """

    def __init__(self, root: str | Path, base: str) -> None:
        self._root, self._base = root, base
        self._settled: dict[str, _Settled | None] = {}
        self._finished: dict[Key, Run] = {}
        self._under_way: set[Key] = set()
        self._own_fingerprint = ""
        self.look()

    def look(self) -> None:
        """Take in what has changed in the folder.

        Raises:
            LprError: a run says from which base it started, and the base of that name is not here.
        """
        finished: list[_Settled] = []
        self._finished, self._under_way = {}, set()
        for run in list_runs(self._root):
            try:
                if run.id not in self._settled and run.problem is None and run.status.is_live:
                    self._under_way.add(key_of(completed(run.config)))
                elif (found := self._found(run)) is not None:
                    finished.append(found)
            except LprError:  # it cannot be read, or is no run of an experiment
                continue
        for found in finished:
            if found.fingerprint in ("", self._fingerprint(found)):
                newer = self._finished.get(found.key)
                if newer is None or (found.run.paths.has_checkpoint and not newer.paths.has_checkpoint):
                    self._finished[found.key] = found.run

    def finished(self, experiment: Experiment) -> Run | None:
        """Return the newest finished run with these settings: of those with weights, where any has them."""
        return self._finished.get(_key(experiment))

    def is_under_way(self, experiment: Experiment) -> bool:
        """Return whether a process works on a run with these settings."""
        return _key(experiment) in self._under_way

    def _found(self, run: Run) -> _Settled | None:
        if run.id not in self._settled:
            settings = finished_settings(run)
            if settings is None:  # which may change
                return None
            is_own = settings.get("base") == self._base
            self._settled[run.id] = _Settled(run, key_of(completed(settings)), base_of(run)) if is_own else None
        return self._settled[run.id]

    def _fingerprint(self, found: _Settled) -> str:
        """Return the fingerprint of the base that is here; it is loaded where a run has one to compare it with."""
        if found.fingerprint and not self._own_fingerprint:
            with hidden():
                model, _ = load_base(self._base)
            self._own_fingerprint = base_fingerprint(model, torch.bfloat16)
        return self._own_fingerprint


def _key(experiment: Experiment) -> Key:
    """Return an experiment's settings as those of a run that was written and read again."""
    return key_of(completed(experiment.to_config()))
