"""The documents of packed blocks as the tokens that were scored, for the rules of slices."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lpr_lab.errors import UsageError
from lpr_lab.measure.slices.rules import TokenizedText
from lpr_lab.text.corpus import Document
from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.packing import NO_TARGET, PackedBlocks


def is_scored(blocks: PackedBlocks) -> torch.Tensor:
    """Return at which positions a token of a text is predicted, which separators are not, bool [N, S]."""
    return (blocks.targets != NO_TARGET) & (blocks.targets != blocks.separator_id)


def owners_of(blocks: PackedBlocks) -> np.ndarray:
    """Return the document of every scored token, in the order of the stream, int [tokens]."""
    return blocks.document_index[is_scored(blocks)].numpy()


def tokenized(
    documents: Sequence[Document], blocks: PackedBlocks, tokenizer: PreTrainedTokenizerBase
) -> list[TokenizedText] | None:
    """Return each document as its scored tokens; None, with a warning, where tokens cannot be put back into the text.

    Args:
        documents: what was packed.
        blocks: from `pack`.
        tokenizer: the same.
    """
    ids, owner = blocks.targets[is_scored(blocks)].numpy(), owners_of(blocks)
    texts = []
    for number, document in enumerate(documents):
        own = ids[owner == number].tolist()
        try:
            pieces = token_bytes(tokenizer, own, document.text)
        except UsageError:
            warnings.warn(
                f"The tokens of document {document.id!r} cannot be put back into its text, so nothing is said of "
                f"slices of {document.language} in this test set.",
                stacklevel=3,
            )
            return None
        texts.append(TokenizedText(document.text, own, pieces))
    return texts
