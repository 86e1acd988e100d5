"""What slices of the test sets cost a model, document by document, and the paired change of each between two models.

A slice of a test set (`slices.rules`) is a smaller test set: the nats and bytes of its tokens alone, by document. So
its bits per byte, its change and its interval are those of `forgetting`, resampled over the documents that have any of
its tokens. What a slice adds to the change of its language is in points, which stays sensible where the whole change
is near zero, as a share of it would not.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lpr_lab.measure.forgetting import (
    DOCUMENT_COLUMNS,
    ScoredDocuments,
    bootstrap_draws,
    change_rows,
    document_rows,
    scored_documents,
)
from lpr_lab.measure.slices.rules import ALL, BY_NAME, TokenizedText, slices_of
from lpr_lab.text.languages import Language

SCORE_COLUMNS = ["slice", "tokens", *DOCUMENT_COLUMNS]
CHANGE_COLUMNS = [
    *("language", "role", "dataset", "slice", "n_tokens", "n_documents", "before", "after"),
    *("change_percent", "ci_low", "ci_high", "points", "verdict"),
]


def slice_scores(
    test: ScoredDocuments,
    documents: Sequence[TokenizedText],
    nats: Mapping[str, np.ndarray],
    language: Language,
) -> pd.DataFrame:
    """Return one row per slice, document and model, with `SCORE_COLUMNS`; documents without tokens of it are left out.

    Args:
        test: the set as a whole.
        documents: its documents as tokens, in its order.
        nats: model name -> nats of every token, documents one after the other, float [tokens].
        language: of the set.
    """
    lengths = [len(document.ids) for document in documents]
    owner = np.repeat(np.arange(len(documents)), lengths)
    size = np.concatenate([document.num_bytes for document in documents])
    ids = np.array(test.ids, dtype=object)
    parts = []
    for name, marks in slices_of(documents, language).items():
        mark = np.concatenate(marks)
        counts = np.bincount(owner[mark], minlength=len(documents))
        has_any = counts > 0
        if not has_any.any():
            continue
        # A set as a whole keeps its own size, without the bytes that a tokenizer loses.
        num_bytes = test.num_bytes if name == ALL else _summed(owner[mark], size[mark], len(documents)).astype(int)
        of_slice = ScoredDocuments(
            *(test.language, test.role, test.dataset, test.fingerprint, np.maximum(num_bytes[has_any], 1)),
            {model: _summed(owner[mark], values[mark], len(documents))[has_any] for model, values in nats.items()},
            tuple(ids[has_any]),
        )
        rows = document_rows([of_slice])
        parts.append(rows.assign(slice=name, tokens=np.tile(counts[has_any], len(nats))))
    return pd.concat(parts, ignore_index=True)[SCORE_COLUMNS]


def slice_changes(
    scores: pd.DataFrame, before: str, after: str, *, bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the paired change of every slice between two models, with `CHANGE_COLUMNS`.

    Args:
        scores: from `slice_scores`, of any number of test sets.
        before: name of one model.
        after: name of the other.
        bootstrap: resamples of documents.
        seed: of the resampling.

    Returns:
        n_tokens and n_documents of the slice; before and after, its bits per byte; change_percent with its 95 %
        interval; points, what it adds to the change of its language and data set in per cent (those of `all` are the
        change itself); verdict. Slices without a token are not there.
    """
    rows = []
    for _, of_set in scores.groupby(["language", "dataset"], sort=False):
        whole = None
        for name in BY_NAME:
            part = of_set[of_set["slice"] == name]
            for test in scored_documents(part):
                if not {before, after} <= set(test.nats):
                    continue
                change = change_rows([test], [bootstrap_draws(test, bootstrap, seed)], before, after).iloc[0]
                old, new = (float(test.nats[model].sum()) for model in (before, after))
                whole = old if name == ALL else whole
                tokens = part[part["model"] == before]["tokens"].sum()
                points = 100 * (new - old) / whole if whole else float("nan")
                rows.append({**change, "slice": name, "n_tokens": int(tokens), "points": points})
    return pd.DataFrame(rows, columns=CHANGE_COLUMNS)


def joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return tables of scores as one; an empty one where there are none."""
    kept = list(tables)
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=SCORE_COLUMNS)


def _summed(owner: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(owner, values, minlength=count)
