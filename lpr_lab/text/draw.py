"""Draws documents for a training or a measurement: in random order, as many as are needed."""

from collections.abc import Sequence

import numpy as np
import torch

from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.shards.corpus import StoredDocuments


def shuffled_documents(corpus: Corpus, split: str, language: str, seed: int) -> Sequence[Document]:
    """Return a language's documents in random order; those of a corpus in shards stay on the disk.

    Raises:
        UsageError: there are none.
    """
    documents = corpus.documents(split, language)
    if not documents:
        raise UsageError(f"The corpus {corpus.name} has no {split} text in {language!r}.")
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
    if isinstance(documents, StoredDocuments):
        return documents.take(order.numpy())
    return [documents[index] for index in order.tolist()]


def first_documents(documents: Sequence[Document], characters: int) -> Sequence[Document]:
    """Return the first of some documents, up to the one with which they have more than so many characters."""
    if isinstance(documents, StoredDocuments):
        count = int(np.searchsorted(np.cumsum(documents.characters), characters, side="right")) + 1
        return documents[:count] if count < len(documents) else documents
    total = 0
    for number, document in enumerate(documents, start=1):
        total += len(document.text)
        if total > characters:
            return documents[:number]
    return documents
