"""Packs documents into fixed blocks of tokens, each token with its language, document and position.

    stream     ␞ d1 d1 d1 ␞ d2 d2 ␞ d3 …          ␞ = separator token, one before every document
    positions  0  1  2  3 0  1  2 0  1 …          restart at every document and at every block
    targets   d1 d1 d1  ␞ d2 d2  ␞ d3 …           the next token of the stream; a document ends by predicting ␞

The stream is cut every `block_tokens`. The last position of a block predicts the first token of the next one, so every
token is scored exactly once, whatever the block size.

No attention crosses documents: given `position_ids` and no attention mask, transformers derives a block-diagonal mask
from the restarts (sdpa and eager attention; `use_cache=False`). So a model is called with

    model(input_ids=…, position_ids=…, use_cache=False)

and nothing else. Some models build their masks another way (OPT, BLOOM, MPT, recurrent ones) and would read across
documents without a word; `refuse_if_documents_mix` finds out on the model itself.

Shapes: N blocks, S positions in a block, B blocks in a batch.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from lpr_lab.errors import UnsupportedModelError, UsageError, did_you_mean
from lpr_lab.text.blocks import Batch, text_mask
from lpr_lab.text.languages import get_languages
from lpr_lab.text.unicode import check_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lpr_lab.model.peft import PeftModel
    from lpr_lab.text.corpus import Document

NO_TARGET = -100
"""What `torch.nn.functional.cross_entropy` ignores by default."""

_TOKENIZE_AT_ONCE = 64
"""Documents per tokenizer call: enough for its threads, few enough to stop early at `max_tokens`."""


@dataclass(frozen=True, eq=False)
class PackedBlocks:
    """N blocks of S tokens. All tensors are int64 `[N, S]` on the CPU."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    """Restart at 0 at each document start and at each block start; padding counts as one more document."""
    targets: torch.Tensor
    """The token to predict *at* this position (already shifted); `NO_TARGET` on padding."""
    language_id: torch.Tensor
    """Index into `languages`; -1 on padding."""
    document_index: torch.Tensor
    """Index into the packed documents; -1 on padding."""
    languages: tuple[str, ...]
    separator_id: int
    """`targets == separator_id` where a document's end is predicted, and nowhere else."""
    num_documents: int

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def __getitem__(self, index: int) -> Batch:
        """Return block `index` as tensors `[S]`."""
        return {name: tensor[index] for name, tensor in self._tensors().items()}

    def select(self, indices: Sequence[int] | torch.Tensor) -> Batch:
        """Return the blocks at `indices` as tensors `[B, S]`, in that order."""
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return {name: tensor[rows] for name, tensor in self._tensors().items()}

    @property
    def block_tokens(self) -> int:
        """S, the positions in a block."""
        return self.input_ids.shape[1]

    @property
    def is_text(self) -> torch.Tensor:
        """Bool [N, S]: False on separators and padding, which measurements leave out."""
        return text_mask(self._tensors(), self.separator_id)

    @property
    def num_tokens(self) -> int:
        """Tokens without padding, separators included."""
        return int((self.language_id >= 0).sum())

    @staticmethod
    def concat(parts: "Sequence[PackedBlocks]") -> "PackedBlocks":
        """Return the blocks of all parts, in order; documents are renumbered so that none share an index.

        Raises:
            UsageError: the parts differ in block length, languages or separator.
        """
        if not parts:
            raise UsageError("Nothing to concatenate: expected at least one set of packed blocks.")
        first = parts[0]
        for part in parts[1:]:
            for what in ("block_tokens", "languages", "separator_id"):
                if getattr(part, what) != getattr(first, what):
                    raise UsageError(
                        f"Packed blocks with {what} {getattr(first, what)} and {getattr(part, what)} cannot be joined; "
                        "pack them with the same tokenizer, block length and list of languages."
                    )
        starts = np.cumsum([0, *(part.num_documents for part in parts)]).tolist()
        joined = {name: torch.cat([part._tensors()[name] for part in parts]) for name in first._tensors()}
        joined["document_index"] = torch.cat(
            [
                torch.where(part.document_index >= 0, part.document_index + start, part.document_index)
                for part, start in zip(parts, starts, strict=False)
            ]
        )
        return PackedBlocks(
            **joined, languages=first.languages, separator_id=first.separator_id, num_documents=starts[-1]
        )

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "targets": self.targets,
            "language_id": self.language_id,
            "document_index": self.document_index,
        }


def model_inputs(batch: Batch, device: torch.device | None = None) -> dict[str, torch.Tensor | bool]:
    """Return what a model is called with to read packed blocks, on a device if one is given."""
    ids, positions = batch["input_ids"].to(device), batch["position_ids"].to(device)
    return {"input_ids": ids, "position_ids": positions, "use_cache": False}


def separator_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the token put before every document: the one that the model's pretraining documents began with.

    That is `<|endoftext|>` where the vocabulary has it (an instruct model's end token ends a chat turn instead), else
    the beginning token where the tokenizer itself puts it before a text, else the end token, else the beginning token.
    It matters: Gemma 3 270M needs 1.18 bits per byte on English fiction after its `<bos>`, and 1.87 after its `<eos>`.

    Raises:
        UsageError: the tokenizer has none of them.
    """
    known = tokenizer.get_vocab()
    begins = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    first = tokenizer.bos_token if begins else tokenizer.eos_token
    for token in ("<|endoftext|>", first, tokenizer.bos_token):
        if token in known:
            return known[token]
    raise UsageError(
        f"The tokenizer {tokenizer.name_or_path!r} has no <|endoftext|>, end or beginning token to divide documents "
        "with; set tokenizer.eos_token first."
    )


def pack(
    documents: "Sequence[Document]",
    tokenizer: "PreTrainedTokenizerBase",
    block_tokens: int,
    *,
    languages: Sequence[str],
    max_tokens: int | None = None,
    drop_last: bool = False,
) -> PackedBlocks:
    """Cut documents into blocks of `block_tokens` tokens, in the order given.

    Args:
        documents: what to pack; shuffle before, if at all.
        tokenizer: adds no special tokens here, and special-token text inside a document is read as plain text.
        block_tokens: S, at least 2.
        languages: ISO 639-1 codes; `language_id` is the index in this list.
        max_tokens: stop before the first document that would exceed this many tokens (separators counted).
        drop_last: leave out a last block that would need padding.

    Raises:
        UsageError: no document, an empty one or one with half of a character, a language outside `languages`, or
            `max_tokens` below the first document.
    """
    codes = tuple(language.code for language in get_languages(languages))
    if block_tokens < 2:
        raise UsageError(f"block_tokens={block_tokens} is too short; expected at least 2, usually 128 or more.")
    separator_id = separator_token_id(tokenizer)
    pieces = _tokenize(documents, tokenizer, codes, separator_id, max_tokens)

    lengths = np.array([len(piece) for piece in pieces])
    stream = np.concatenate([*pieces, [separator_id]]).astype(np.int64)
    num_tokens = int(lengths.sum())
    document_of = np.repeat(np.arange(len(pieces)), lengths)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(num_tokens)
    # A token's position counts from whichever is nearer: the start of its document or the start of its block.
    positions = place - np.maximum(starts[document_of], place - place % block_tokens)
    language_of = np.array([codes.index(documents[i].language) for i in range(len(pieces))])[document_of]

    num_blocks = num_tokens // block_tokens if drop_last else -(-num_tokens // block_tokens)
    size = num_blocks * block_tokens
    if size == 0:
        raise UsageError(
            f"The documents have {num_tokens} tokens, less than one block of {block_tokens}; "
            "use a smaller block, more text, or drop_last=False."
        )
    padding = max(size - num_tokens, 0)

    def blocks(values: np.ndarray, fill: int | np.ndarray) -> torch.Tensor:
        tail = np.full(padding, fill) if np.isscalar(fill) else fill
        padded = np.concatenate([values[:size], tail]).astype(np.int64)
        return torch.from_numpy(padded.reshape(num_blocks, block_tokens))

    return PackedBlocks(
        input_ids=blocks(stream[:num_tokens], separator_id),
        position_ids=blocks(positions, np.arange(padding)),
        targets=blocks(stream[1:], NO_TARGET),
        language_id=blocks(language_of, -1),
        document_index=blocks(document_of, -1),
        languages=codes,
        separator_id=separator_id,
        num_documents=len(pieces),
    )


@contextmanager
def in_mode(model: torch.nn.Module, *, training: bool) -> Iterator[None]:
    """Have all of a model in training or evaluation mode inside the block, and each part in its own mode after it."""
    before = {part: part.training for part in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


@torch.no_grad()
def refuse_if_documents_mix(model: "PreTrainedModel | PeftModel") -> None:
    """Check on the model itself that position restarts keep packed documents apart: two passes of two dozen tokens.

    Takes a causal LM, or its decoder alone, whose states say the same without the product with the vocabulary. Two rows
    are looked at, because flash attention takes notice of restarts in a single one only.

    Raises:
        UnsupportedModelError: changing the first document changed the model's output for the second.
    """
    num_tokens, device = int(model.config.vocab_size), model.device
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]] * 2, device=device)
    first = (torch.arange(24, device=device).view(2, 12) * 7 + 1) % num_tokens
    second = first.clone()
    second[:, :6] = (first[:, :6] + 3) % num_tokens
    try:
        with in_mode(model, training=False):  # dropout would change every output
            outputs = [model(input_ids=ids, position_ids=positions, use_cache=False)[0] for ids in (first, second)]
    except TypeError as error:
        raise UnsupportedModelError(
            f"{model.config.model_type} takes no position_ids, so packed documents cannot be kept apart in it; choose "
            "a model with positions of its own, such as Llama, Qwen or GPT-NeoX."
        ) from error
    # Not exactly 0 where tokens share a computation, as in a mixture of experts; a real leak is far above rounding.
    rounding = 16 * torch.finfo(outputs[0].dtype).eps * outputs[0].abs().max()
    if (outputs[0] - outputs[1])[:, 6:].abs().max() > rounding:
        raise UnsupportedModelError(
            f"{model.config.model_type} attends across packed documents (with {model.config._attn_implementation} it "
            "takes no notice of position restarts), so languages would mix. Load it with attn_implementation='sdpa', "
            "or choose a model whose attention follows position_ids, such as Llama, Qwen or GPT-NeoX."
        )


def _tokenize(
    documents: "Sequence[Document]",
    tokenizer: "PreTrainedTokenizerBase",
    codes: tuple[str, ...],
    separator_id: int,
    max_tokens: int | None,
) -> list[np.ndarray]:
    """Return `[separator, tokens…]` per document, whole documents only, at most `max_tokens` in all."""
    if not documents:
        raise UsageError("There are no documents to pack; expected at least one.")
    for document in documents:
        if document.language not in codes:
            raise UsageError(
                f"Document {document.id!r} is in {document.language!r}, which is not among the languages {list(codes)}."
                + did_you_mean(document.language, codes)
            )
        if not check_text(document.text, f"Document {document.id!r}").strip():
            raise UsageError(f"Document {document.id!r} is empty; leave out documents without text.")
    pieces: list[np.ndarray] = []
    left = float("inf") if max_tokens is None else max_tokens
    for start in range(0, len(documents), _TOKENIZE_AT_ONCE):
        texts = [document.text for document in documents[start : start + _TOKENIZE_AT_ONCE]]
        # verbose=False: a document longer than the model's context is no problem here, it is cut into blocks.
        encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        for ids in encoded:
            if len(ids) + 1 > left:
                if not pieces:
                    raise UsageError(
                        f"max_tokens={max_tokens} is less than the first document, {documents[0].id!r}, "
                        f"which has {len(ids) + 1} tokens; raise it or put a shorter document first."
                    )
                return pieces
            left -= len(ids) + 1
            pieces.append(np.array([separator_id, *ids]))
    return pieces
