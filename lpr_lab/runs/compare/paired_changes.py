"""How two runs differ in what they gained and forgot, paired over the documents that both were scored on.

Each run's change is from its own base. Resamples of a test set depend on the set alone, so those of two runs draw the
same documents, and what makes a document hard cancels. Runs that kept no scores by document cannot be paired.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lpr_lab.errors import LprError
from lpr_lab.measure.significance import NOT_PAIRED, Difference, bootstrap_interval
from lpr_lab.runs.compare.paired_scores import Key, document_sets, paired
from lpr_lab.runs.model_ref import ModelRef, baseline_of, stages_of
from lpr_lab.runs.run import Run
from lpr_lab.storage import file_stamp

_RESAMPLES, _SEED = 1000, 0


@dataclass(frozen=True)
class Resampled:
    """The change of bits per byte in one language, in per cent, and the same in every resample of its documents.

    Attributes:
        test_set: which documents, by hash.
        ids: their ids, in order.
        change: over all of them.
        resamples: float [resamples].
    """

    test_set: str
    ids: tuple[str, ...]
    change: float
    resamples: np.ndarray


def resampled_changes(run: Run) -> dict[Key, Resampled]:
    """Return the change of a run by (language, data set); empty where no scores by document were kept."""
    stamp = tuple(file_stamp(run.path / "tables" / f"{name}.csv") for name in ("documents", "change"))
    return _resampled(run.path, stamp) if stamp[0] else {}


def resampled_of(model: ModelRef) -> dict[Key, Resampled]:
    """Return the same of a run's model at one of its stages."""
    stamp = tuple(file_stamp(model.run.path / "tables" / f"{name}.csv") for name in ("documents", "change"))
    return _resampled(model.run.path, stamp, model.stage) if stamp[0] else {}


@lru_cache(maxsize=2048)  # of some 40 kB each: a scorecard asks for those of all its runs several times
def _resampled(path: Path, stamp: tuple[tuple[int, int] | None, ...], stage: str = "") -> dict[Key, Resampled]:
    from lpr_lab.measure.forgetting import bootstrap_draws  # it brings pandas, which pages do without until then

    run = Run(path)
    try:
        if not stages_of(run):
            return {}
        found = {}
        for key in document_sets(run) or ():
            for test in paired(ModelRef(run, baseline_of(run)), ModelRef(run, stage), [key]) or []:
                draws = bootstrap_draws(test, _RESAMPLES, _SEED)
                before, after = test.nats["before"], test.nats["after"]
                resamples = 100 * (after[draws].sum(1) / before[draws].sum(1) - 1)
                found[key] = Resampled(test.fingerprint, test.ids, 100 * (after.sum() / before.sum() - 1), resamples)
    except (LprError, KeyError, ValueError):
        return {}  # the page of the run itself shows what is wrong with its tables
    return found


def difference(one: Run, other: Run, keys: Iterable[Key]) -> Difference:
    """Return by how many points the mean change of one run is above that of another, over languages and data sets.

    Args:
        one: negative is better for it.
        other: what it is compared with.
        keys: (language, data set); the mean is over all of them, and all must have been scored document by document.
    """
    mine, theirs = resampled_changes(one), resampled_changes(other)
    pairs = [(mine.get(key), theirs.get(key)) for key in keys]
    both = [(a, b) for a, b in pairs if a and b and (a.test_set, a.ids) == (b.test_set, b.ids)]
    if not pairs or len(both) < len(pairs):
        return NOT_PAIRED
    resamples = np.mean([a.resamples - b.resamples for a, b in both], axis=0)
    low, high = bootstrap_interval(resamples, min(len(a.ids) for a, _ in both))
    return Difference(float(np.mean([a.change - b.change for a, b in both])), low, high)
