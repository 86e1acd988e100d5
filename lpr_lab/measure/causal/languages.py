"""Which layers carry a language: the change in bits per token of held-out text with one layer switched.

A causal map of every document, summed over its tokens. The number of a language is the sum over its documents by the
number of their tokens; its 95 % interval comes from resampling documents.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.measure.causal.causal_map import CausalMap
from lpr_lab.measure.causal.compute import BATCH_TOKENS, causal_steps
from lpr_lab.measure.documents import choose_tests, fingerprint_of
from lpr_lab.measure.significance import bootstrap_interval, resample
from lpr_lab.model.peft import PeftModel
from lpr_lab.progress import progress
from lpr_lab.text.corpus import Corpus, main_split

COLUMNS = "language role dataset layer expert change_bits ci_low ci_high n_documents n_tokens".split()


def causal_by_language(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    roles: Mapping[str, str],
    *,
    splits: Sequence[str] = (),
    tokens_per_language: int = 256,
    max_document_tokens: int = 48,
    stage: str | None = None,
    experts: Collection[int] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> pd.DataFrame:
    """Return by language, layer and expert what a token costs more when that layer alone is switched, in bits.

    Args:
        model: an expanded model.
        tokenizer: the base model's.
        corpus: where the documents are from.
        roles: language code -> `original` or `expanded`.
        splits: test sets; those without text in one of the languages are left out. Where none is named, held-out text,
            or dev text where that is not there in every language.
        tokens_per_language: documents up to this many tokens, in an order fixed by their ids.
        max_document_tokens: of each document its beginning, so that there are several.
        stage: of the model; None: the one in use.
        experts: see `causal_map`.
        bootstrap: resamples for the intervals.
        seed: of the resampling.
        batch_tokens: see `causal_map`.

    Returns:
        Columns language, role, dataset, layer, expert, change_bits (per token; above 0: the text gets dearer), ci_low,
        ci_high, n_documents, n_tokens.

    Raises:
        UsageError: a number below 1, or no documents in one of the languages.
    """
    if min(tokens_per_language, max_document_tokens, bootstrap) < 1:
        raise UsageError(
            f"tokens_per_language = {tokens_per_language}, max_document_tokens = {max_document_tokens}, bootstrap = "
            f"{bootstrap}; expected at least 1 of each."
        )
    splits = splits or [main_split(corpus, list(roles))]
    tests = choose_tests(corpus, splits, list(roles), tokens_per_language, max_document_tokens, tokenizer)
    options = {"stage": stage, "experts": experts, "batch_tokens": batch_tokens}
    rows = []
    with progress(sum(len(documents) for *_, documents in tests), "Switching layers", "document") as bar:
        for split, language, documents in tests:
            maps = []
            for document in documents:
                *_, last = causal_steps(model, tokenizer, document.text, language, **options)
                maps.append(last.result)
                bar.update(1)
            draws = resample(fingerprint_of(documents), len(documents), bootstrap, seed)
            rows += [[language, roles[language], split, *row] for row in _rows(maps, draws)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(maps: Sequence[CausalMap], draws: np.ndarray) -> list[list[int | float]]:
    """Return layer, expert, change in bits per token, interval, documents and tokens, for each layer and expert."""
    totals = np.stack([one.change[:, :, 1:].sum(axis=2) for one in maps])
    tokens = np.array([one.num_tokens - 1 for one in maps])
    rows = []
    for row, layer in enumerate(maps[0].layers.tolist()):
        for expert in maps[0].experts:
            change = totals[:, row, expert]
            if np.isnan(change).any():  # a layer without this expert
                continue
            low, high = bootstrap_interval(change[draws].sum(1) / tokens[draws].sum(1), len(maps))
            numbers = [float(change.sum() / tokens.sum()), low, high]
            rows.append([layer, expert, *numbers, len(maps), int(tokens.sum())])
    return rows
