"""Documents of a split and language that lie in shards, as the sequence that a `Corpus` has of them."""

from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import Any, overload

import numpy as np

from lpr_lab.text.corpus import Document, DocumentSequence
from lpr_lab.text.shards.documents import open_shard
from lpr_lab.text.shards.index import places_of, without_lines


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
        shards: Sequence[tuple[Path, str]],
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
        if len(text) != entry["characters"]:
            text = "\n".join(without_lines(text, self._gone(entry)))
        return Document(batch.column("id")[row].as_py(), self.language, text, source)

    def __iter__(self) -> Iterator[Document]:
        return (self[index] for index in range(len(self)))

    def take(self, order: np.ndarray) -> "StoredDocuments":
        """Return the documents at some places, in that order."""
        taken = copy(self)
        taken.entries = self.entries[order]
        taken._all = self.whole()
        taken.places = np.asarray(order) if self.places is None else self.places[order]
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
        for shard, row in zip(self.entries["shard"].tolist(), self.entries["row"].tolist(), strict=True):
            yield open_shard(self.shards[shard][0]).column("id")[row].as_py()

    def describe(self) -> dict[str, Any]:
        """Return number, characters and SHA-256 as they were found when the corpus was prepared."""
        return self._description

    def _gone(self, entry: np.void) -> np.ndarray:
        """Return the numbers of the lines that were dropped from a document."""
        if self._dropped_places is None:
            self._dropped_places = places_of(self._dropped)
        place = int(entry["shard"]) << 32 | int(entry["row"])
        first, last = (np.searchsorted(self._dropped_places, np.uint64(place), side) for side in ("left", "right"))
        return self._dropped["line"][first:last]
