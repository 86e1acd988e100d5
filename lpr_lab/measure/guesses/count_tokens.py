"""Counts which tokens the text of each language uses, for `token_languages`."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from lpr_lab.measure.guesses.token_languages import TokenLanguages
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.draw import first_documents
from lpr_lab.text.languages import get_languages

COUNTED_TOKENS = 50_000
"""Of every language."""
_CHARACTERS_PER_TOKEN = 5
"""Of text that is tokenized, to have about as many tokens as are counted."""


def count_token_languages(
    tokenizer: Any, corpus: Corpus | None, languages: Iterable[str], *, tokens: int = COUNTED_TOKENS
) -> TokenLanguages:
    """Count which tokens the text of each language uses: of training where there is any, else of the other splits.

    Args:
        tokenizer: the model's.
        corpus: with text in some of the languages; None for scripts alone.
        languages: codes.
        tokens: most that are counted of each language.

    Raises:
        UsageError: an unknown language, or one that the corpus does not have.
    """
    codes = tuple(language.code for language in get_languages(languages))
    if corpus is None:
        return TokenLanguages(codes)
    found = [_ids(tokenizer, corpus, code, tokens) for code in codes]
    uses: dict[int, list[int]] = {}
    for place, ids in enumerate(found):
        for token_id, count in zip(*np.unique(ids, return_counts=True), strict=True):
            uses.setdefault(int(token_id), [0] * len(codes))[place] = int(count)
    return TokenLanguages(codes, tuple(map(len, found)), uses)


def _ids(tokenizer: Any, corpus: Corpus, language: str, tokens: int) -> np.ndarray:
    """Return the first ids, int [at most `tokens`], of the first split in which a language has text."""
    for split in corpus.splits:
        documents = first_documents(corpus.documents(split, language), tokens * _CHARACTERS_PER_TOKEN)
        if documents:
            rows = tokenizer([document.text for document in documents], add_special_tokens=False)["input_ids"]
            return np.concatenate([np.array(row, np.int64) for row in rows])[:tokens]
    return np.zeros(0, np.int64)
