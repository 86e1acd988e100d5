"""Finds lines of later splits that earlier splits have as well, among more lines than fit into memory.

The rule is that of `splits.drop_duplicates`: a line goes when an earlier split has the same line, or shares `NGRAM`
words in a row with it. A line and every 13 words of it become hashes of 8 bytes. Each shard writes its own, sorted;
then ranges of hashes are joined, one range of all shards at a time, so that memory is bounded whatever the corpus.
With 64 bits, two different things of the ten thousand million of a terabyte have the same hash about three times.

    compared/el/00012-000/keys-0.npy          hashes of lines of split 0, uint64, sorted, each once
                          keys-asked.npy      hashes of lines of later splits, sorted
                          keys-owner.npy      whose they are: index into lines.npy
                          grams-….npy         the same of 13 words in a row
                          lines.npy           lines of later splits, `LINES`
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lpr_lab.storage import staged_directory
from lpr_lab.text.shards.documents import in_batches, read_rows
from lpr_lab.text.splits import SPLITS, comparison_key, roll_hashes, says_something, words_of

LINES = np.dtype([("row", "<u4"), ("line", "<u4"), ("characters", "<u4"), ("split", "u1")])
"""A line that is compared: its document's row in the shard, its number in the document, its split."""

KINDS = ("keys", "grams")

_CHARACTERS_AT_ONCE = 500_000
_MOST_WORDS = 100_000
_BYTES_AT_ONCE = 8_000_000
"""Of hashes of later splits that are joined at a time; four times as much beside them."""


class _Line(NamedTuple):
    row: int
    line: int
    text: str
    split: int


def compare_shard(shard: Path, rows: np.ndarray, splits: np.ndarray, folder: Path) -> None:
    """Write the hashes of a shard's lines into `folder`; what a worker is given to do.

    Args:
        shard: of documents.
        rows: those of one language that are kept, ascending.
        splits: the split of each, index into `SPLITS`.
        folder: which appears when it is whole.
    """
    numbers_of_words = _WordNumbers()
    lines: list[tuple[int, int, int, int]] = []
    found: dict[str, list[list[np.ndarray]]] = {kind: [[] for _ in SPLITS] for kind in KINDS}
    asked: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {kind: [] for kind in KINDS}
    for chunk in in_batches(_lines(shard, rows, splits), _CHARACTERS_AT_ONCE, lambda line: line.text):
        split_of = np.array([line.split for line in chunk], dtype=np.uint8)
        # Lines of the first split are seen by others only, so they need no number.
        numbers = len(lines) + np.cumsum(split_of > 0) - 1
        lines += [(one.row, one.line, len(one.text), one.split) for one in chunk if one.split]
        keys, grams, owner = _hashes([comparison_key(line.text) for line in chunk], numbers_of_words)
        for kind, hashes, of in (("keys", keys, np.arange(len(chunk))), ("grams", grams, owner)):
            for split in range(len(SPLITS) - 1):  # nothing comes after the last
                found[kind][split].append(hashes[split_of[of] == split])
            later = split_of[of] > 0
            asked[kind].append((hashes[later], numbers[of[later]].astype(np.uint32)))
    with staged_directory(folder) as stage:
        np.save(stage / "lines.npy", np.array(lines, dtype=LINES))
        for kind in KINDS:
            for split in range(len(SPLITS) - 1):
                np.save(stage / f"{kind}-{split}.npy", _each_once(found[kind].pop(0)))
            hashes = np.concatenate([_NO_HASHES, *(part for part, _ in asked[kind])])
            owners = np.concatenate([np.zeros(0, np.uint32), *(part for _, part in asked.pop(kind))])
            order = np.argsort(hashes, kind="stable")
            np.save(stage / f"{kind}-asked.npy", hashes[order])
            np.save(stage / f"{kind}-owner.npy", owners[order])


_NO_HASHES = np.zeros(0, dtype=np.uint64)


def _each_once(parts: list[np.ndarray]) -> np.ndarray:
    """Return the different ones of some hashes, sorted: `np.unique` in a fraction of its time and memory."""
    hashes = np.concatenate([_NO_HASHES, *parts])
    parts.clear()
    hashes.sort()
    return hashes[np.append(True, hashes[1:] != hashes[:-1])] if len(hashes) else hashes


def _lines(shard: Path, rows: np.ndarray, splits: np.ndarray) -> Iterator[_Line]:
    """Yield the lines that are long enough to be compared."""
    for row, split, (whole,) in zip(rows.tolist(), splits.tolist(), read_rows(shard, rows), strict=True):
        for number, text in enumerate(whole.split("\n")):
            if says_something(text):
                yield _Line(row, number, text, split)


class _WordNumbers(dict[str, int]):
    """The hash of every word; those that came first, which are those that come most, are kept."""

    def __missing__(self, word: str) -> int:
        number = int.from_bytes(_digest(word), "little")
        if len(self) < _MOST_WORDS:
            self[word] = number
        return number


def _hashes(keys: Sequence[str], numbers: _WordNumbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the hash of each line, those of all its 13 words in a row, and the lines of the latter."""
    whole = np.frombuffer(b"".join(map(_digest, keys)), dtype="<u8")
    words = [words_of(key) for key in keys]
    lengths = [len(found) for found in words]
    flat = np.fromiter(map(numbers.__getitem__, chain.from_iterable(words)), dtype=np.uint64, count=sum(lengths))
    return whole, *roll_hashes(flat, np.repeat(np.arange(len(keys), dtype=np.int32), lengths))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def num_ranges(folders: Sequence[Path]) -> int:
    """Return into how many ranges of hashes to divide the join, so that each takes little memory."""
    total = sum((folder / f"{kind}-asked.npy").stat().st_size for folder in folders for kind in KINDS)
    return max(1, -(-total // _BYTES_AT_ONCE))


def join_range(folders: Sequence[Path], kind: str, number: int, count: int) -> np.ndarray:
    """Return the lines of later splits that have a hash in common with an earlier split, for one range of hashes.

    Args:
        folders: what `compare_shard` wrote, by shard.
        kind: of `KINDS`.
        number: of the range, from 0.
        count: of all ranges.

    Returns:
        One uint64 per line, ascending: index into `folders` << 32 | index into the `LINES` of that folder.
    """
    first, last = (np.uint64(min((place << 64) // count, 2**64 - 1)) for place in (number, number + 1))
    is_last = number == count - 1

    def within(path: Path) -> tuple[np.ndarray, slice]:
        hashes = np.load(path, mmap_mode="r", allow_pickle=False)
        stop = len(hashes) if is_last else int(np.searchsorted(hashes, last))
        part = slice(int(np.searchsorted(hashes, first)), stop)
        return np.array(hashes[part]), part

    asked: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for shard, folder in enumerate(folders):
        hashes, part = within(folder / f"{kind}-asked.npy")
        owner = np.array(np.load(folder / f"{kind}-owner.npy", mmap_mode="r", allow_pickle=False)[part])
        hits = np.uint64(shard << 32) | owner.astype(np.uint64)
        split = np.load(folder / "lines.npy", mmap_mode="r", allow_pickle=False)["split"][owner]
        asked.append((hashes, hits, split))
    hashes, hits, split = (np.concatenate(parts) for parts in zip(*asked, strict=True))
    different, which = np.unique(hashes, return_inverse=True)
    earliest = np.full(len(different), len(SPLITS), dtype=np.uint8)
    # What earlier splits have is four times as much and more: it is looked up shard by shard, and never held.
    for earlier in reversed(range(len(SPLITS) - 1)):
        for folder in folders:
            earliest[_places(within(folder / f"{kind}-{earlier}.npy")[0], different)] = earlier
    return np.unique(hits[earliest[which] < split])


def _places(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return the places in a sorted array of those values that it has."""
    if not len(among):
        return np.zeros(0, dtype=np.intp)
    places = np.minimum(np.searchsorted(among, values), len(among) - 1)
    return places[among[places] == values]
