"""Which documents are in which split, and which of their lines were dropped; of one language of a corpus in shards.

    index/el-train.npy           documents in the order of the source, `ENTRY`
          el-train-dropped.npy   lines that an earlier split has as well, `DROPPED`, sorted

The rules are those of `sources.files.make_corpus`, which tests hold this against: repeated documents go, the first one
stays; splits by content or as records say; repeated lines go; what is left of a document must not be headings only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lpr_lab.text.shards.compare import KINDS, compare_shard, join_range, num_ranges
from lpr_lab.text.shards.documents import open_facts, read_rows
from lpr_lab.text.shards.pool import Task, Workers
from lpr_lab.text.sources.files import require_splits, splits_are_given
from lpr_lab.text.splits import DEALT, SPLITS, Leakage, require_enough, says_something, splits_by_rank

ENTRY = np.dtype([("shard", "<u4"), ("row", "<u4"), ("characters", "<u4")])
"""A document: its shard, its row in it, its length. 12 bytes."""

DROPPED = np.dtype([("shard", "<u4"), ("row", "<u4"), ("line", "<u4")])


class Divided(NamedTuple):
    """The different documents of one language, in the order of the source."""

    entries: np.ndarray
    """`ENTRY`"""
    split: np.ndarray
    """Index into `SPLITS`."""
    num_lines: int
    """Of all these documents together."""
    num_repeated: int
    """Documents that were left out because an earlier one is the same."""


def divide(shards: Sequence[Path], unit_languages: Mapping[str, Sequence[str]], code: str, what: str) -> Divided:
    """Choose the different documents of a language and give each its split. Takes some 70 bytes per document.

    Args:
        shards: of all languages.
        unit_languages: name of a unit -> the languages in it.
        code: of the language.
        what: what messages call it.

    Raises:
        UsageError: some records say their split and others do not, or too few documents to divide.
    """
    parts, entries = [], []
    for number, shard in enumerate(shards):
        languages = unit_languages[shard.parent.name]
        if code not in languages:
            continue
        facts = open_facts(shard)
        rows = np.flatnonzero(facts["language"] == languages.index(code))
        entry = np.empty(len(rows), dtype=ENTRY)
        entry["shard"], entry["row"], entry["characters"] = number, rows, facts["characters"][rows]
        parts.append(facts[rows])
        entries.append(entry)
    facts, entries = np.concatenate(parts), np.concatenate(entries)
    # The first of several stays, in the place of the last: the order that documents in memory have always had.
    first, last = (np.unique(facts["digest"][::step], return_index=True)[1] for step in (1, -1))
    first = first[np.argsort(-last)]
    num_repeated = len(facts) - len(first)
    facts, entries = facts[first], entries[first]
    if splits_are_given(int((facts["given"] >= 0).sum()), len(facts), what):
        split = facts["given"].astype(np.uint8)
    else:
        require_enough(len(facts), what)
        split = np.array(facts["dealt"])
        if len(np.unique(split)) < len(DEALT):
            split[np.argsort(facts["digest"])] = [SPLITS.index(name) for name in splits_by_rank(len(facts))]
    return Divided(entries, split, int(facts["lines"].sum(dtype=np.int64)), num_repeated)


def write_index(
    shards: Sequence[Path], divided: Divided, code: str, what: str, compared: Path, stage: Path, workers: Workers
) -> dict[str, Any]:
    """Compare the splits of a language and write what is left into `stage`; returns the report of what was dropped.

    Args:
        shards: of all languages.
        divided: its documents.
        code: of the language.
        what: what messages call it.
        compared: folder for hashes, which can be deleted afterwards and is used again after a kill.
        stage: the folder that becomes the index.
        workers: who compares.

    Raises:
        UsageError: no text left to learn from or to check with.
    """
    folders = _compare(shards, divided, code, compared, workers)
    hits = _join(folders, code, workers)
    report, dropped = _report(folders, divided, hits)
    entries = divided.entries.copy()
    starts = np.flatnonzero(np.diff(dropped["shard"].astype(np.int64), prepend=-1, append=-1))
    own = [dropped[start:stop] for start, stop in pairwise(starts)]
    tasks = [Task((shards[lines["shard"][0]], lines), len(lines)) for lines in own]
    settled = workers.run(settle_shard, tasks, label=f"Dropping repeats, {code}", unit="line")
    if settled:
        places = places_of(entries)
        order = np.argsort(places)
        changed = order[np.searchsorted(places, np.unique(places_of(dropped)), sorter=order)]
        entries["characters"][changed] = np.concatenate(settled)
    is_kept = entries["characters"] > 0
    require_splits({SPLITS[number] for number in np.unique(divided.split[is_kept])}, len(entries), what)
    for number, split in enumerate(SPLITS):
        kept = entries[is_kept & (divided.split == number)]
        np.save(stage / f"{code}-{split}.npy", kept)
        np.save(stage / f"{code}-{split}-dropped.npy", dropped[np.isin(places_of(dropped), places_of(kept))])
    return {"duplicates": report, "repeated_documents_left_out": divided.num_repeated}


def places_of(documents: np.ndarray) -> np.ndarray:
    """Return one number for each document: its shard, then its row in it."""
    return documents["shard"].astype(np.uint64) << np.uint64(32) | documents["row"].astype(np.uint64)


def _compare(shards: Sequence[Path], divided: Divided, code: str, compared: Path, workers: Workers) -> list[Path]:
    """Write the hashes of every shard that has text of this language, where a start before this one has not."""
    numbers = np.unique(divided.entries["shard"]).tolist()
    folders, tasks, done = [], [], 0
    for number in numbers:
        shard, own = shards[number], divided.entries["shard"] == number
        folder = compared / code / f"{number:06}"
        folders.append(folder)
        size = int(divided.entries["characters"][own].sum(dtype=np.int64))
        if folder.is_dir():
            done += size
        else:
            tasks.append(Task((shard, divided.entries["row"][own], divided.split[own], folder), size))
    workers.run(compare_shard, tasks, label=f"Comparing splits, {code}", done=done, unit="char")
    return folders


def _join(folders: Sequence[Path], code: str, workers: Workers) -> dict[str, np.ndarray]:
    """Return the lines of later splits that an earlier one has as well, by kind, as `join_range` does."""
    count = num_ranges(folders)
    tasks = [Task((folders, kind, number, count), 1) for kind in KINDS for number in range(count)]
    found = workers.run(join_range, tasks, label=f"Joining splits, {code}", unit="range")
    return {
        kind: np.unique(np.concatenate([np.zeros(0, np.uint64), *found[number * count : (number + 1) * count]]))
        for number, kind in enumerate(KINDS)
    }


def _report(
    folders: Sequence[Path], divided: Divided, hits: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], np.ndarray]:
    """Return what `splits.drop_duplicates` reports, and the lines that go, `DROPPED`."""
    characters = {kind: np.zeros(len(SPLITS), dtype=np.int64) for kind in (*KINDS, "all")}
    dropped = []
    for number, folder in enumerate(folders):
        lines = np.load(folder / "lines.npy", mmap_mode="r", allow_pickle=False)
        exact, shared = (_of_shard(hits[kind], number, len(lines)) for kind in KINDS)
        for kind, which in (("keys", exact), ("grams", shared & ~exact), ("all", np.ones_like(exact))):
            counts = np.bincount(lines["split"][which], lines["characters"][which], len(SPLITS))
            characters[kind] += counts.astype(np.int64)
        gone = lines[exact | shared]
        part = np.empty(len(gone), dtype=DROPPED)
        part["shard"], part["row"], part["line"] = int(folder.name), gone["row"], gone["line"]
        dropped.append(part)
    before = int(divided.entries["characters"].sum(dtype=np.int64)) - divided.num_lines + len(divided.entries)
    given_away = characters["keys"] + characters["grams"]
    leakage = {}
    for number, split in enumerate(SPLITS):
        total, left = int(characters["all"][number]), int(characters["all"][number] - given_away[number])
        if number and total:
            shares = [float(characters[kind][number] / total) for kind in KINDS]
            # What is left has nothing in common even with what was dropped from earlier splits.
            after = asdict(Leakage(left, 0.0, 0.0)) if left else None
            leakage[split] = {"before": asdict(Leakage(total, *shares)), "after": after}
    report = {
        "characters_before": before,
        "characters_after": before - int(given_away.sum()),
        "leakage": leakage,
    }
    found = np.concatenate(dropped)
    return report, found[np.lexsort((found["line"], found["row"], found["shard"]))]


def _of_shard(hits: np.ndarray, number: int, num_lines: int) -> np.ndarray:
    first, last = np.searchsorted(hits, np.array([number << 32, (number + 1) << 32], dtype=np.uint64))
    found = np.zeros(num_lines, dtype=bool)
    found[hits[first:last] & np.uint64(2**32 - 1)] = True
    return found


def settle_shard(shard: Path, dropped: np.ndarray) -> np.ndarray:
    """Return how long the documents are from which lines were dropped, in the order of rows; 0 for one that goes.

    Args:
        shard: of documents.
        dropped: its `DROPPED`, sorted.
    """
    rows = np.unique(dropped["row"])
    starts = np.searchsorted(dropped["row"], [*rows.tolist(), 2**32])
    sizes = np.zeros(len(rows), dtype=np.int64)
    for number, (text,) in enumerate(read_rows(shard, rows)):
        gone = dropped["line"][starts[number] : starts[number + 1]]
        kept = without_lines(text, gone)
        # What is left of a document whose paragraphs were all known must not count as one: it is only headings.
        if any(map(says_something, kept)):
            sizes[number] = len("\n".join(kept))
    return sizes


def without_lines(text: str, gone: np.ndarray) -> list[str]:
    """Return the lines of a text but for those of some numbers."""
    numbers = set(gone.tolist())
    return [line for number, line in enumerate(text.split("\n")) if number not in numbers]
