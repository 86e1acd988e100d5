"""Gain and forgetting: the paired change of bits per byte between two models, with bootstrap intervals.

    forgetting = bpb(expanded) - bpb(base)   on original languages,   positive is worse
    gain       = bpb(base) - bpb(expanded)   on expanded languages,   positive is better
    change     = bpb(expanded) / bpb(base) - 1, in percent, for both; negative is better

Intervals are 95 % intervals of a paired bootstrap over documents: both models are resampled together, so what makes a
document hard cancels. A change whose interval contains 0 is called `no clear difference` (`measure.significance`).

Raw text can flatter: an instruct model that meets raw text gets better at it in any language, which hides forgetting
(docs/log.md). A claim about forgetting needs a control; the difference alone does not make it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lpr_lab.measure.significance import bootstrap_interval, change_verdict, resample

COLUMNS = [
    "language",
    "role",
    "dataset",
    "before",
    "after",
    "change_percent",
    "ci_low",
    "ci_high",
    "n_documents",
    "verdict",
    "test_set",
]

DOCUMENT_COLUMNS = ["language", "role", "dataset", "test_set", "document", "bytes", "model", "bits_per_byte"]
_HASH_DIGITS = 16
"""Of a test set's fingerprint, as tables show it."""


@dataclass(frozen=True)
class ScoredDocuments:
    """One language's documents of one split, and what each model needed for each of them.

    Attributes:
        language: ISO 639-1 code.
        role: `original` or `expanded`.
        dataset: name of the split.
        fingerprint: SHA-256 over ids and texts; scores with different fingerprints are not comparable.
        num_bytes: UTF-8 bytes per document, int [documents].
        nats: model name -> negative log-likelihood per document in nats, float [documents].
        ids: the documents' ids, as many as there are documents, or none.
    """

    language: str
    role: str
    dataset: str
    fingerprint: str
    num_bytes: np.ndarray
    nats: dict[str, np.ndarray]
    ids: tuple[str, ...] = ()

    def bits_per_byte(self, model: str) -> float:
        """Return this model's bits per byte over all documents."""
        return float(self.nats[model].sum() / (np.log(2) * self.num_bytes.sum()))


def change_rows(
    sets: Sequence[ScoredDocuments], draws: Sequence[np.ndarray], before: str = "base", after: str = "expanded"
) -> pd.DataFrame:
    """Return one row per test set: bits per byte before and after, change in percent, interval and verdict.

    Args:
        sets: scored under both models.
        draws: per set, document indices of each bootstrap resample, int [resamples, documents].
        before: name of one model.
        after: name of the other.
    """
    rows = []
    for test, draw in zip(sets, draws, strict=True):
        bits_before, bits_after = test.bits_per_byte(before), test.bits_per_byte(after)
        ratios = test.nats[after][draw].sum(1) / test.nats[before][draw].sum(1)
        low, high = bootstrap_interval(100 * (ratios - 1), len(test.num_bytes))
        rows.append(
            [
                test.language,
                test.role,
                test.dataset,
                bits_before,
                bits_after,
                100 * (bits_after / bits_before - 1),
                low,
                high,
                len(test.num_bytes),
                change_verdict({"role": test.role, "ci_low": low, "ci_high": high}, from_base=before == "base"),
                test.fingerprint[:_HASH_DIGITS],
            ]
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def bootstrap_draws(test: ScoredDocuments, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Return document indices of each bootstrap resample, int [resamples, documents]; see `significance.resample`."""
    return resample(test.fingerprint, len(test.num_bytes), resamples, seed)


def document_rows(sets: Iterable[ScoredDocuments]) -> pd.DataFrame:
    """Return one row per document and model: its id, its size, its bits per byte; never its text."""
    rows = []
    for test in sets:
        ids = test.ids or tuple(f"document {number}" for number in range(1, len(test.num_bytes) + 1))
        for model, nats in test.nats.items():
            bits = nats / (np.log(2) * test.num_bytes)
            for document, size, value in zip(ids, test.num_bytes, bits, strict=True):
                of_set = [test.language, test.role, test.dataset, test.fingerprint[:_HASH_DIGITS]]
                rows.append([*of_set, document, int(size), model, float(value)])
    return pd.DataFrame(rows, columns=DOCUMENT_COLUMNS)


def scored_documents(rows: pd.DataFrame) -> list[ScoredDocuments]:
    """Return the test sets that `document_rows` wrote; any two models of a set can then be compared, paired.

    Args:
        rows: documents stand in the same order under every model.
    """
    sets = []
    for key, part in rows.groupby(["language", "role", "dataset", "test_set"], sort=False):
        language, role, dataset, fingerprint = (str(value) for value in key)
        by_model = {str(model): group for model, group in part.groupby("model", sort=False)}
        first = next(iter(by_model.values()))
        sizes = first["bytes"].to_numpy()
        nats = {model: group["bits_per_byte"].to_numpy() * np.log(2) * sizes for model, group in by_model.items()}
        ids = tuple(str(name) for name in first["document"])
        sets.append(ScoredDocuments(language, role, dataset, fingerprint, sizes, nats, ids))
    return sets
