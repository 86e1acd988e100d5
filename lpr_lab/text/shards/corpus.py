"""Documents of a split and language that lie in shards, as the sequence that a `Corpus` has of them."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, overload

import numpy as np

from lpr_lab.text.corpus import Document, DocumentSequence
from lpr_lab.text.shards.documents import open_shard, read_rows
from lpr_lab.text.shards.index import places_of, without_lines

_AT_ONCE = 1024
_shard_of = itemgetter("shard")


class StoredDocuments(DocumentSequence):
    """Documents that are read from the disk one at a time, each when it is asked for.

    In memory are 12 bytes of index per document, mapped from the disk too unless they were put into another order.

    Attributes:
        folder: of the corpus.
        language: their code.
        split: their split.
        entries: which documents, `index.ENTRY`.
        places: of each among all documents of the split, int64; None for all of them in their order.
    """

    def __init__(
        self,
        folder: Path,
        language: str,
        split: str,
        shards: Sequence[tuple[Path, str]] | Mapping[int, tuple[Path, str]],
        description: dict[str, Any],
        *,
        num_proc: int = 1,
        index: Path | None = None,
    ) -> None:
        """Open the documents of a split.

        Args:
            folder: of the corpus.
            language: code.
            split: one that the index has.
            shards: of all documents of the corpus, each with the name of its source.
            description: size and SHA-256 of the content.
            num_proc: how many processes tokenise them.
            index: where the index lies, if not yet in the corpus's folder.
        """
        index = index or folder / "index"
        self.folder, self.language, self.split, self.num_proc = folder, language, split, num_proc
        self.entries = np.load(index / f"{language}-{split}.npy", mmap_mode="r", allow_pickle=False)
        self.places: np.ndarray | None = None
        self._all = self
        self._dropped = np.load(index / f"{language}-{split}-dropped.npy", mmap_mode="r", allow_pickle=False)
        self._dropped_places: np.ndarray | None = None
        self.shards = shards
        self._description = description

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredDocuments": ...
    def __getitem__(self, index: int | slice) -> "Document | StoredDocuments":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        entry = self.entries[index]
        shard, source = self.shards[int(entry["shard"])]
        row = int(entry["row"])
        batch = open_shard(shard)
        text = batch.column("text")[row].as_py()
        return Document(batch.column("id")[row].as_py(), self.language, self._left_of(text, entry), source)

    def __iter__(self) -> Iterator[Document]:
        for entry, (name, text) in self._read(("id", "text")):
            source = self.shards[int(entry["shard"])][1]
            yield Document(name, self.language, self._left_of(text, entry), source)

    def texts(self) -> Iterator[str]:
        """Yield the text of every document, in order."""
        return (self._left_of(text, entry) for entry, (text,) in self._read(("text",)))

    def take(self, order: np.ndarray) -> "StoredDocuments":
        """Return the documents at some places, in that order."""
        taken = copy(self)
        taken.entries = self.entries[order]
        taken._all = self.whole()
        taken.places = np.asarray(order) if self.places is None else self.places[order]
        return taken

    def alone(self, order: np.ndarray) -> "StoredDocuments":
        """Return the documents at some places, all of one shard, with nothing of the others: to send to a worker."""
        taken = copy(self)
        taken.entries = np.array(self.entries[order])
        taken._all, taken.places, taken._dropped_places = taken, None, None
        number = int(taken.entries["shard"][0])
        first, last = (bisect_left(self._dropped, shard, key=_shard_of) for shard in (number, number + 1))
        taken._dropped, taken.shards = np.array(self._dropped[first:last]), {number: self.shards[number]}
        return taken

    def whole(self) -> "StoredDocuments":
        """Return all documents of the split, in the order of the corpus."""
        return self if self.places is None else self._all

    @property
    def characters(self) -> np.ndarray:
        """The length of every document, int64."""
        return self.entries["characters"].astype(np.int64)

    def ids(self) -> Iterator[str]:
        """Yield the id of every document, without its text."""
        return (name for _, (name,) in self._read(("id",)))

    def describe(self) -> dict[str, Any]:
        """Return number, characters and SHA-256 as they were found when the corpus was prepared."""
        return self._description

    def _read(self, columns: Sequence[str]) -> Iterator[tuple[np.void, tuple[str, ...]]]:
        """Yield the entry and some columns of every document; those of one shard that follow each other at once."""
        for begin in range(0, len(self), _AT_ONCE):
            few = self.entries[begin : begin + _AT_ONCE]
            starts = np.flatnonzero(np.diff(few["shard"].astype(np.int64), prepend=-1, append=-1))
            for start, stop in pairwise(starts.tolist()):
                shard = self.shards[int(few["shard"][start])][0]
                yield from zip(few[start:stop], read_rows(shard, few["row"][start:stop], columns), strict=True)

    def _left_of(self, text: str, entry: np.void) -> str:
        """Return a text without the lines that were dropped from it."""
        return text if len(text) == entry["characters"] else "\n".join(without_lines(text, self._gone(entry)))

    def _gone(self, entry: np.void) -> np.ndarray:
        """Return the numbers of the lines that were dropped from a document."""
        if self._dropped_places is None:
            self._dropped_places = places_of(self._dropped)
        place = int(entry["shard"]) << 32 | int(entry["row"])
        first, last = (np.searchsorted(self._dropped_places, np.uint64(place), side) for side in ("left", "right"))
        return self._dropped["line"][first:last]
