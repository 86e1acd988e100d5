"""What is kept of what was read: the strongest tokens of each expert, what leaving one out costs, who behaves alike.

Letters: t text tokens of one language, T of all of them, C experts of all layers together.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lpr_lab.measure.contexts.expert_contexts import BITS, CONTEXT_COLUMNS, EFFECT_COLUMNS, WEIGHT
from lpr_lab.measure.contexts.reading import Place, Text
from lpr_lab.measure.documents import fingerprint_of
from lpr_lab.measure.significance import bootstrap_interval, resample

NUM_NEIGHBOURS = 5


def context_rows(
    text: Text,
    places: Sequence[Place],
    weights: np.ndarray,
    bits: np.ndarray,
    change: Mapping[Place, np.ndarray],
    k: int,
) -> pd.DataFrame:
    """Return the contexts of every expert in one language, without stage, dataset and bytes.

    Args:
        text: what was read.
        places: which expert each column of `weights` is, C.
        weights: [t, C].
        bits: of each token with the model as it is, [t].
        change: of each expert that was left out, how many bits more each token costs then, [t].
        k: how many tokens of each list.
    """
    owner, position, token_ids = text.owner, text.position, text.token_ids
    rows = []
    for column, place in enumerate(places):
        mine = weights[:, column]
        lists = {WEIGHT: mine} | ({BITS: abs(change[place])} if place in change else {})
        for by, values in lists.items():
            for rank, token in enumerate(strongest(values, owner, k), 1):
                moved = float(change[place][token]) if place in change else np.nan
                at = [text.documents[owner[token]].id, int(position[token]), int(token_ids[token])]
                numbers = [float(f"{value:.6g}") for value in (mine[token], bits[token], moved)]
                rows.append([text.language, *place, by, rank, *at, *numbers])
    names = [name for name in CONTEXT_COLUMNS if name not in ("stage", "dataset", "bytes")]
    return pd.DataFrame(rows, columns=names)


def effect_rows(text: Text, change: Mapping[Place, np.ndarray], resamples: int = 1000) -> pd.DataFrame:
    """Return what a token of one language costs without each expert that was left out, with an interval over documents.

    Args:
        text: what was read.
        change: see `context_rows`.
        resamples: of documents.
    """
    size = len(text.documents)
    tokens = np.bincount(text.owner, minlength=size)
    draws = resample(fingerprint_of(text.documents), size, resamples, seed=0)
    rows = []
    for place, moved in change.items():
        sums = np.bincount(text.owner, moved, minlength=size)
        low, high = bootstrap_interval(sums[draws].sum(1) / tokens[draws].sum(1), size)
        numbers = [float(f"{value:.6g}") for value in (sums.sum() / tokens.sum(), low, high)]
        rows.append([text.language, *place, *numbers, size, int(tokens.sum())])
    return pd.DataFrame(rows, columns=EFFECT_COLUMNS[2:])


def strongest(values: np.ndarray, owner: np.ndarray, k: int) -> list[int]:
    """Return the tokens of the greatest values, one of each document, the greatest first; what is 0 is left out.

    Args:
        values: [t], not negative.
        owner: the document of each token, [t].
        k: how many at most.

    >>> strongest(np.array([0.2, 0.9, 0.8, 0.0]), np.array([0, 0, 1, 2]), k=3)
    [1, 2]
    """
    order = np.argsort(-values, kind="stable")
    order = order[values[order] > 0]
    _, first = np.unique(owner[order], return_index=True)
    return [int(token) for token in order[np.sort(first)[:k]]]


def neighbours(weights: np.ndarray, places: Sequence[Place], k: int = NUM_NEIGHBOURS) -> list[list[object]]:
    """Return rows of layer, expert, rank, other layer, other expert, correlation and n_tokens, the closest first.

    An expert whose weight never changes has no correlation, so it has no neighbour and is none.

    Args:
        weights: of all experts on all text tokens, [T, C].
        places: which expert each column is, C.
        k: how many neighbours of each.
    """
    moves = weights.std(axis=0) > 0
    known = np.flatnonzero(moves)
    if len(known) < 2:
        return []
    alike = np.atleast_2d(np.corrcoef(weights[:, known].astype(np.float64), rowvar=False))
    np.fill_diagonal(alike, -np.inf)
    rows: list[list[object]] = []
    for row, column in enumerate(known.tolist()):
        closest = known[np.argsort(-alike[row], kind="stable")[: min(k, len(known) - 1)]].tolist()
        of_others = dict(zip(known.tolist(), alike[row].tolist(), strict=True))
        for rank, other in enumerate(closest, 1):
            near = float(f"{of_others[other]:.6g}")
            rows.append([*places[column], rank, *places[other], near, len(weights)])
    return rows
