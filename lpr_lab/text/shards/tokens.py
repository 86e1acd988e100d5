"""Tokens of a split and language in shards, one stream of numbers each: what packed blocks are cut from.

    tokens/<tokenizer>/el-train/000012/tokens.bin    [separator, tokens…] of one document after another, 2 or 4 bytes
                                       lengths.npy   of each document, separator included, uint32
                                       MANIFEST.json

Documents are in the order in which the shard of text holds them; the order of a training is chosen when blocks are
read, so another seed, block length or budget needs no new tokens.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from lpr_lab.errors import DamagedError, LprError
from lpr_lab.fetching import locked
from lpr_lab.progress import progress
from lpr_lab.storage import staged_directory, verify, write_text
from lpr_lab.text.shards.corpus import StoredDocuments
from lpr_lab.text.shards.documents import in_batches
from lpr_lab.text.shards.index import places_of
from lpr_lab.text.shards.pool import Task, Workers
from lpr_lab.text.shards.prepare import LEFT_OVERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHARACTERS_AT_ONCE = 250_000
_MAPPED = 8
"""Shards of tokens that are mapped at a time: whoever reads all of them would be counted as holding all of them."""
_COMPARED = 16
"""Documents that are tokenised both ways before any work starts."""


class TokenStream:
    """All tokens of a split and language, a few shards mapped at a time; 12 bytes per document are held beside them.

    Attributes:
        starts: where each document begins in the stream, int64, in the order of the corpus.
        lengths: how many tokens each has, its separator included.
    """

    def __init__(self, folders: Sequence[Path], dtype: str, order: np.ndarray) -> None:
        """Open the shards of a stream, whose documents have the places `order` in the corpus."""
        lengths = np.concatenate([np.load(folder / "lengths.npy", allow_pickle=False) for folder in folders])
        self._files, self._dtype = [folder / "tokens.bin" for folder in folders], np.dtype(dtype)
        self._ends = np.cumsum([file.stat().st_size // self._dtype.itemsize for file in self._files])
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        self.starts, self.lengths = np.empty_like(starts), np.empty_like(lengths)
        self.starts[order], self.lengths[order] = starts, lengths

    def read(self, start: int, count: int) -> np.ndarray:
        """Return tokens of one document, int64."""
        shard = int(np.searchsorted(self._ends, start, side="right"))
        begin = start - (int(self._ends[shard - 1]) if shard else 0)
        return _map(self._files[shard], self._dtype)[begin : begin + count].astype(np.int64)


@lru_cache(maxsize=_MAPPED)
def _map(file: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(file, dtype, "r")


def open_tokens(
    documents: StoredDocuments, tokenizer: "PreTrainedTokenizerBase", separator_id: int, workers: Workers
) -> TokenStream:
    """Return the tokens of all documents of a split and language, tokenised by some workers where they are not yet.

    Args:
        documents: of one split and language, in their own order.
        tokenizer: adds no special tokens, and reads special-token text as plain text.
        separator_id: put before every document.
        workers: who tokenises.

    Raises:
        DamagedError: a shard of tokens that is not what was written; it is named.
        LprError: the tokenizer gives other tokens alone than inside transformers.
    """
    dtype = "<u2" if len(tokenizer) <= 2**16 else "<u4"
    whole, is_fast = _whole_state(tokenizer)
    key = hashlib.sha256(json.dumps([whole, separator_id, dtype]).encode()).hexdigest()[:16]
    root = documents.folder / "tokens" / key
    folder = root / f"{documents.language}-{documents.split}"
    order = np.argsort(places_of(documents.entries))
    rows = documents.entries[order]
    starts = np.flatnonzero(np.diff(rows["shard"].astype(np.int64), prepend=-1, append=-1))
    folders, tasks, done = [], [], 0
    for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        own = folder / f"{int(rows['shard'][start]):06}"
        folders.append(own)
        size = int(rows["characters"][start:stop].sum(dtype=np.int64))
        if own.is_dir():
            done += size
        else:
            tasks.append(
                Task((documents.alone(order[start:stop]), root / "tokenizer.json", separator_id, dtype, own), size)
            )
    if tasks:
        with locked(documents.folder, f"tokenising {documents.language}", left_overs=LEFT_OVERS):
            tasks = [task for task in tasks if not task.arguments[-1].is_dir()]
            _tokenise(documents, tokenizer, whole if is_fast else None, root, tasks, done, workers)
    _verify_all(folders)
    return TokenStream(folders, dtype, order)


def _whole_state(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, bool]:
    """Return what decides about a tokenizer's tokens as text, and whether a worker can make the tokenizer of it."""
    inner: Any = getattr(tokenizer, "backend_tokenizer", None)
    if tokenizer.is_fast:
        backend = Tokenizer.from_str(inner.to_str())
        backend.no_truncation()
        backend.no_padding()
        return backend.to_str(), True
    return json.dumps([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), repr(tokenizer)]), False


def _tokenise(
    documents: StoredDocuments,
    tokenizer: "PreTrainedTokenizerBase",
    state: str | None,
    root: Path,
    tasks: Sequence[Task],
    done: int,
    workers: Workers,
) -> None:
    label = f"Tokenising {documents.language}, {documents.split}"
    root.mkdir(parents=True, exist_ok=True)
    if state is None:  # a tokenizer in Python: it stays in this process
        with Workers(1) as alone:
            mine = [Task((task.arguments[0], tokenizer, *task.arguments[2:]), task.size) for task in tasks]
            alone.run(tokenise_documents, mine, label=label, done=done, unit="char")
        return
    write_text(root / "tokenizer.json", state)
    sample = [documents[index].text for index in range(min(_COMPARED, len(documents)))]
    inside = tokenizer(sample, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    if [list(ids) for ids in _encode(_open_tokenizer(root / "tokenizer.json"), sample)] != [
        list(ids) for ids in inside
    ]:
        raise LprError(
            f"The tokenizer {tokenizer.name_or_path!r} gives other tokens by its own file than inside transformers, so "
            "it cannot be given to workers. Load the corpus with streaming=False."
        )
    workers.run(tokenise_documents, tasks, label=label, done=done, unit="char")


def tokenise_documents(documents: StoredDocuments, tokenizer: Any, separator_id: int, dtype: str, folder: Path) -> None:
    """Write the tokens of some documents into a sealed folder; what a worker is given to do.

    Args:
        documents: of one shard.
        tokenizer: the path of its file, or one of transformers.
        separator_id: put before every document.
        dtype: of the tokens.
        folder: which appears when it is whole.
    """
    opened = _open_tokenizer(tokenizer) if isinstance(tokenizer, Path) else tokenizer
    lengths: list[int] = []
    with staged_directory(folder, sealed={"schema_version": 1, "dtype": dtype}) as stage:
        with (stage / "tokens.bin").open("wb") as file:
            for texts in in_batches(documents.texts(), _CHARACTERS_AT_ONCE, str):
                for ids in _encode(opened, texts):
                    tokens = np.empty(len(ids) + 1, dtype)
                    tokens[0], tokens[1:] = separator_id, ids
                    tokens.tofile(file)
                    lengths.append(len(tokens))
        np.save(stage / "lengths.npy", np.array(lengths, dtype=np.uint32), allow_pickle=False)


def _encode(tokenizer: Any, texts: Sequence[str]) -> Iterator[Sequence[int]]:
    if isinstance(tokenizer, Tokenizer):
        return (encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))
    return iter(tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"])


@lru_cache(maxsize=1)
def _open_tokenizer(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # text that looks like a special token is text
    return tokenizer


def _verify_all(folders: Sequence[Path]) -> None:
    """Compare every shard with its manifest; reading runs ahead in threads."""
    sizes = [(folder / "tokens.bin").stat().st_size if (folder / "tokens.bin").is_file() else 0 for folder in folders]
    with ThreadPoolExecutor(4) as pool, progress(sum(sizes), "Checking tokens", "B") as bar:
        for folder, size, found in zip(folders, sizes, pool.map(_damage, folders), strict=True):
            bar.update(size)
            if found is not None:
                raise DamagedError(
                    f"{found} Delete {folder} and run the same command again: only that part is tokenised anew."
                )


def _damage(folder: Path) -> DamagedError | None:
    try:
        verify(folder)
    except DamagedError as error:
        return error
    return None
