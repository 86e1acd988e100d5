"""Documents in shards: Arrow files that are mapped into memory, one record batch each.

A unit is what one worker reads at a time. It becomes a sealed folder with one or more shards:

    documents/00012/000.arrow        text, id: every line stripped, blank lines left out
                    000.npy          per document what dividing and comparing need to know, `FACTS`
                    MANIFEST.json    what was counted, the source, size and SHA-256 of every file
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from lpr_lab.errors import DamagedError
from lpr_lab.storage import MANIFEST, read_json_object, sha256_file, staged_directory
from lpr_lab.text.sources.files import known_split, read_file
from lpr_lab.text.sources.formats import Piece
from lpr_lab.text.sources.rows import Labels, Record
from lpr_lab.text.splits import SPLITS, split_of_digest

Item = TypeVar("Item")

SHARD_BYTES = 16_000_000
"""Of text: what a worker has in memory at once, several times over while it compares."""

_ROWS_AT_ONCE = 64
"""Documents that are Python objects at once where a shard is read from end to end; they may be long."""

FACTS = np.dtype(
    [
        ("digest", "<u8"),  # the first 8 bytes of the SHA-256 of the text, big-endian: in the order of the whole
        ("language", "<u2"),  # index into the languages of the unit
        ("dealt", "u1"),  # the split by that SHA-256, index into SPLITS
        ("given", "i1"),  # the split that the record says; -1 for none
        ("characters", "<u4"),  # of the text as it is kept
        ("lines", "<u4"),
    ]
)
"""20 bytes per document."""

SCHEMA = pa.schema([("id", pa.string()), ("text", pa.string())])


def read_unit(
    path: Path,
    piece: Piece | None,
    language: str | None,
    wanted: Sequence[str] | None,
    text_column: str | None,
    name: str,
    folder: Path,
) -> None:
    """Write the documents of a file, or of a piece of it, into `folder`; what a worker is given to do.

    Args:
        path: the file.
        piece: None for all of it.
        language: of records that do not say theirs.
        wanted: codes of the languages that are taken; None for all.
        text_column: see `load_corpus`.
        name: of the corpus, for messages.
        folder: that of the unit, which appears when it is whole.
    """
    labels = Labels(wanted)
    write_unit(read_file(path, language, text_column, labels, piece), labels, path.name, name, folder)


def write_unit(
    records: Iterable[Record], labels: Labels, source: str, name: str, folder: Path, more: dict[str, Any] | None = None
) -> None:
    """Write records into a sealed folder; empty ones and those without a text are counted and left out.

    Args:
        records: in the order to keep.
        labels: what they are labelled, counted while they are read.
        source: where they come from, for `Document.source`.
        name: of the corpus, for messages.
        folder: that of the unit, which appears when it is whole.
        more: for the manifest; looked at when all records were read.
    """
    facts: dict[str, Any] = {"schema_version": 1, "source": source}
    num_null: Counter[str] = Counter()
    num_empty = 0
    with staged_directory(folder, sealed=facts) as stage:
        writer = _Writer(stage, name)
        for record in records:
            if record.is_null:
                num_null[record.language] += 1
            elif not record.text.strip():
                num_empty += 1
            else:
                writer.add(record)
        writer.close()
        facts |= (more or {}) | {
            "languages": writer.languages,
            "num_documents": writer.num_documents,
            "text_bytes": writer.text_bytes,
            "empty": num_empty,
            "null": dict(num_null),
            "taken": {code: dict(counts) for code, counts in labels.taken.items()},
            "others": dict(labels.others),
            "unknown": dict(labels.unknown),
        }


class _Writer:
    """Collects documents and writes a shard whenever there are `SHARD_BYTES` of them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.languages: list[str] = []
        self.num_documents = 0
        self.text_bytes: list[int] = []
        self._folder, self._name = folder, name
        self._begin()

    def _begin(self) -> None:
        self._ids: list[str] = []
        # As Arrow has them, so that they are in memory once: bytes one after another, and where each text ends.
        self._texts = bytearray()
        self._ends = array("i", [0])
        self._facts: list[tuple[int, ...]] = []

    def add(self, record: Record) -> None:
        """Add one document that has text."""
        digest = hashlib.sha256(record.text.strip().encode()).digest()
        if record.language not in self.languages:
            self.languages.append(record.language)
        given = -1
        if record.split is not None:
            given = SPLITS.index(known_split(record.split, f"{self._name} in {record.language!r}"))
        lines = [line for line in map(str.strip, record.text.splitlines()) if line]
        text = "\n".join(lines)
        self._ids.append(record.id)
        self._texts += text.encode()
        self._ends.append(len(self._texts))
        dealt = SPLITS.index(split_of_digest(digest))
        language = self.languages.index(record.language)
        self._facts.append((int.from_bytes(digest[:8]), language, dealt, given, len(text), len(lines)))
        if len(self._texts) >= SHARD_BYTES:
            self.close()

    def close(self) -> None:
        """Write what was collected."""
        if not self._ids:
            return
        stem = f"{len(self.text_bytes):03}"
        buffers = (pa.py_buffer(self._ends), pa.py_buffer(self._texts))
        texts = pa.StringArray.from_buffers(len(self._ids), *buffers)
        batch = pa.record_batch([pa.array(self._ids, pa.string()), texts], SCHEMA)
        with pa.OSFile(str(self._folder / f"{stem}.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_batch(batch)
        np.save(self._folder / f"{stem}.npy", np.array(self._facts, dtype=FACTS), allow_pickle=False)
        self.num_documents += len(self._ids)
        self.text_bytes.append(len(self._texts))
        self._begin()


def shards_of(folder: Path) -> list[Path]:
    """Return the shards of a folder of documents in the order of the records that they hold."""
    return sorted(folder.glob("[0-9]*/[0-9]*.arrow"))


@lru_cache(maxsize=2)
def open_shard(shard: Path) -> pa.RecordBatch:
    """Return the documents of a shard, mapped into memory: what is not read takes none.

    Few are open at a time: whoever reads all of a corpus would be counted as holding all of it. The bytes of a shard
    are compared with the manifest of its unit the first time that it is opened by a process.

    Raises:
        DamagedError: missing, cut short or altered; the message names it.
    """
    check_shard(shard)
    return pa.ipc.open_file(pa.memory_map(str(shard))).get_batch(0)


def read_rows(shard: Path, rows: np.ndarray, columns: Sequence[str] = ("text",)) -> Iterator[tuple[str, ...]]:
    """Yield some columns of some documents of a shard, in the order of `rows`.

    Raises:
        DamagedError: see `open_shard`.
    """
    batch = open_shard(shard)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        few = batch.select(columns).take(pa.array(rows[start : start + _ROWS_AT_ONCE]))
        yield from zip(*(few.column(name).to_pylist() for name in columns), strict=True)


@cache
def check_shard(shard: Path) -> None:
    """Compare a shard with the manifest of its unit, once.

    Raises:
        DamagedError: it is not what was written; the message names it.
    """
    expected = read_json_object(shard.parent / MANIFEST)["files"].get(shard.name)
    again = f"Delete {shard.parent} and run the same command again: only that part is made anew."
    if expected is None or not shard.is_file():
        raise DamagedError(f"The text shard {shard} is missing. {again}")
    if shard.stat().st_size != expected["size"] or sha256_file(shard) != expected["sha256"]:
        raise DamagedError(f"The text shard {shard} is damaged: its bytes are not the ones that were written. {again}")


def open_facts(shard: Path) -> np.ndarray:
    """Return what is known of each document of a shard, `FACTS`, mapped into memory."""
    return np.load(shard.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)


def in_batches(items: Iterable[Item], characters: int, text_of: Callable[[Item], str]) -> Iterator[list[Item]]:
    """Yield the items in lists whose texts have so many characters or little more; the last may have fewer.

    >>> list(in_batches(["one", "two", "three"], 6, str))
    [['one', 'two'], ['three']]
    """
    batch: list[Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len(text_of(item))
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
