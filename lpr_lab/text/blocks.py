"""What every reader of packed text takes: blocks of tokens, wherever they lie.

Shapes: N blocks, S positions in a block, B blocks in a batch.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

Batch = dict[str, torch.Tensor]
"""Some blocks, by name of the field: those of `packing.PackedBlocks`."""


class Blocks(Protocol):
    """N blocks of S tokens, in memory (`packing.PackedBlocks`) or on the disk (`shards.blocks.MappedBlocks`)."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes; `language_id` is an index into them."""
        ...

    @property
    def separator_id(self) -> int:
        """The token before every document."""
        ...

    @property
    def num_documents(self) -> int:
        """How many documents are packed."""
        ...

    @property
    def num_tokens(self) -> int:
        """Tokens without padding, separators included."""
        ...

    @property
    def block_tokens(self) -> int:
        """S."""
        ...

    @property
    def is_text(self) -> torch.Tensor:
        """Bool [N, S]."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch:
        """Return one block, tensors `[S]`."""
        ...

    def select(self, indices: Sequence[int] | torch.Tensor) -> Batch:
        """Return some blocks, tensors `[B, S]`."""
        ...


def text_mask(batch: Batch, separator_id: int) -> torch.Tensor:
    """Return where a batch has text: bool of its shape, False on separators and padding."""
    return (batch["language_id"] >= 0) & (batch["input_ids"] != separator_id)
