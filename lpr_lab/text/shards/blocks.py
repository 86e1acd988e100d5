"""Packed blocks that are cut out of tokens on the disk when they are asked for: the twin of `packing.PackedBlocks`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lpr_lab.errors import UsageError
from lpr_lab.text.blocks import Batch, Blocks, text_mask
from lpr_lab.text.corpus import Document
from lpr_lab.text.languages import get_languages
from lpr_lab.text.packing import NO_TARGET, pack, separator_token_id
from lpr_lab.text.shards.corpus import StoredDocuments
from lpr_lab.text.shards.pool import Workers
from lpr_lab.text.shards.tokens import TokenStream, open_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKED_IN_MEMORY = 16_000_000
"""Characters up to which documents are packed in memory; some 200 MB of blocks."""


def pack_documents(
    documents: Sequence[Document], tokenizer: "PreTrainedTokenizerBase", block_tokens: int, *, languages: Sequence[str]
) -> Blocks:
    """Pack documents of one language: in memory, or, where they lie in shards and are many, out of tokens on the disk.

    Args:
        documents: in the order to pack them.
        tokenizer: see `pack`.
        block_tokens: S.
        languages: ISO 639-1 codes; `language_id` is the index in this list.

    Raises:
        UsageError: see `pack`.
        DamagedError: a shard is not what was written; it is named.
    """
    if not isinstance(documents, StoredDocuments) or documents.characters.sum() <= PACKED_IN_MEMORY:
        return pack(list(documents), tokenizer, block_tokens, languages=languages)
    if block_tokens < 2:
        raise UsageError(f"block_tokens={block_tokens} is too short; expected at least 2, usually 128 or more.")
    codes = tuple(language.code for language in get_languages(languages))
    separator_id = separator_token_id(tokenizer)
    with Workers(documents.num_proc) as workers:
        stream = open_tokens(documents.whole(), tokenizer, separator_id, workers)
    places = np.arange(len(documents)) if documents.places is None else documents.places
    options = {"languages": codes, "language": documents.language, "separator_id": separator_id}
    return MappedBlocks(stream, places, block_tokens, **options)


class MappedBlocks:
    """N blocks of S tokens, as `pack` would make them of the same documents; each is made when it is read.

    In memory are 16 bytes per document: which one comes when, and where it ends.

    Attributes:
        languages: codes; `language_id` is an index into them.
        separator_id: the token before every document.
        block_tokens: S, the positions in a block.
        num_documents: how many are packed.
    """

    def __init__(
        self,
        stream: TokenStream,
        order: np.ndarray,
        block_tokens: int,
        *,
        languages: tuple[str, ...],
        language: str,
        separator_id: int,
    ) -> None:
        """Pack documents of a stream.

        Args:
            stream: tokens of a split and language.
            order: which of its documents, in the order to pack them.
            block_tokens: S.
            languages: codes.
            language: that of the stream, one of them.
            separator_id: the token before every document.
        """
        self.languages, self.separator_id, self.block_tokens = languages, separator_id, block_tokens
        self.num_documents = len(order)
        self._stream, self._order = stream, order
        self._ends = np.cumsum(stream.lengths[order], dtype=np.int64)
        self._language_id = languages.index(language)

    def __len__(self) -> int:
        return -(-self.num_tokens // self.block_tokens)

    def __getitem__(self, index: int) -> Batch:
        """Return block `index` as tensors `[S]`."""
        return {name: torch.from_numpy(values) for name, values in self._block(range(len(self))[index]).items()}

    def select(self, indices: Sequence[int] | torch.Tensor) -> Batch:
        """Return the blocks at `indices` as tensors `[B, S]`, in that order."""
        rows = [self[int(index)] for index in indices]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    @property
    def is_text(self) -> torch.Tensor:
        """Bool [N, S]: False on separators and padding. Reads every block: use that of a batch where there are many."""
        return torch.stack([text_mask(self[index], self.separator_id) for index in range(len(self))])

    @property
    def num_tokens(self) -> int:
        """Tokens without padding, separators included."""
        return int(self._ends[-1])

    def _block(self, index: int) -> dict[str, np.ndarray]:
        size = self.block_tokens
        first, stop = index * size, min((index + 1) * size, self.num_tokens)
        # One token more than the block has: its last position predicts the first token of the next block.
        tokens = np.full(size + 1, self.separator_id, dtype=np.int64)
        document_index = np.full(size, -1, dtype=np.int64)
        position_ids = np.arange(size)
        document, place = int(np.searchsorted(self._ends, first, side="right")), first
        while place <= first + size and document < self.num_documents:
            which, end = int(self._order[document]), int(self._ends[document])
            begins = end - int(self._stream.lengths[which])
            count = min(end, first + size + 1) - place
            own = slice(place - first, place - first + count)
            tokens[own] = self._stream.read(int(self._stream.starts[which]) + place - begins, count)
            document_index[own] = document
            # A token's position counts from whichever is nearer: the start of its document or the start of its block.
            position_ids[own] = np.arange(len(position_ids[own]))
            place, document = end, document + 1
        position_ids[stop - first :] = np.arange(size - (stop - first))  # padding counts as one more document
        is_padding = document_index < 0
        return {
            "input_ids": tokens[:-1].copy(),
            "position_ids": position_ids,
            "targets": np.where(is_padding, NO_TARGET, tokens[1:]),
            "language_id": np.where(is_padding, -1, self._language_id),
            "document_index": document_index,
        }
