"""Splits without leakage: by path and without repeated text.

Help pages, web pages and message files repeat themselves across files, so that a split by file alone puts a third of
the dev text into train. Therefore text is compared block by block (a block is one line of a document, usually a
paragraph) after the split: a block of a later split goes when an earlier split has the same block, or shares `NGRAM`
words in a row with it.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import regex

from lpr_lab.errors import UsageError

SPLITS = ("train", "replay", "dev", "heldout")
"""In the order of precedence: a text that would be in two of them stays in the first. `heldout` comes from another
source and genre, where there is one."""

DEALT = SPLITS[:3]
"""What one source is divided into."""

TEST_SETS = ("heldout", "dev")
"""What models are scored on; text of another genre than they learned from says more, but few corpora have it."""

NGRAM = 13
"""Words in a row that two texts may not share; in scripts without spaces, characters."""

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
WORDS = regex.compile(r"\w+")
_DIGIT = regex.compile(r"\d")
_WORDS_AND_UNSPACED = regex.compile(rf"{_UNSPACED}|(?:(?!{_UNSPACED})\w)+")
UNSPACED_LETTER = regex.compile(_UNSPACED)
_FROM_THAI = re.compile("[\u0e00-\U0010ffff]")
_MIN_SPACED, _MIN_UNSPACED = 20, 8


class Block(NamedTuple):
    """One line of one document."""

    document: str
    split: str
    text: str


def in_order(test_sets: Iterable[str]) -> list[str]:
    """Return the names of test sets, each once, held-out text first."""
    return sorted(map(str, dict.fromkeys(test_sets)), key=lambda name: name != TEST_SETS[0])


def main_test_set(test_sets: Iterable[str]) -> str:
    """Return the one to report first: held-out text where there is any; empty where there is none.

    >>> main_test_set(["dev", "heldout"]), main_test_set(["dev"])
    ('heldout', 'dev')
    """
    return next(iter(in_order(test_sets)), "")


def assign_split(path: str) -> str:
    """Return the split of a document by its language-independent path or content: 80 % train, 15 % replay, 5 % dev.

    The same path gets the same split in every language and on every machine, so replay never shows the content of the
    training pages in another language.
    """
    return split_of_digest(hashlib.sha256(path.encode()).digest())


def split_of_digest(digest: bytes) -> str:
    """Return the split that a SHA-256 stands for."""
    bucket = int.from_bytes(digest) % 100
    return "train" if bucket < 80 else "replay" if bucket < 95 else "dev"


def is_unspaced(text: str) -> bool:
    """Tell whether a text has letters of a script without spaces between words."""
    # All of these scripts begin at Thai, and a range of characters is found many times faster than a script.
    return bool(_FROM_THAI.search(text) and UNSPACED_LETTER.search(text))


def min_characters(text: str) -> int:
    """Return how long a block must be to say something: 20 characters, or 8 in a script without spaces."""
    return _MIN_UNSPACED if is_unspaced(text) else _MIN_SPACED


def says_something(text: str) -> bool:
    """Tell whether a block has the length that `min_characters` asks for."""
    # The script is looked for only where it decides: not in most lines, which are longer than either length.
    return len(text) >= _MIN_SPACED or (len(text) >= _MIN_UNSPACED and is_unspaced(text))


def comparison_key(text: str) -> str:
    """Return a block in the form in which blocks are compared: lower-cased, with every digit read as 0."""
    return _DIGIT.sub("0", " ".join(text.lower().split()))


def words_of(text: str) -> list[str]:
    """Return the words of a text; in scripts without spaces, every character is one."""
    # The pattern that tells them apart is several times slower, and most texts do not need it.
    return (_WORDS_AND_UNSPACED if is_unspaced(text) else WORDS).findall(text)


# -- duplicates --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leakage:
    """How much of one split's characters the earlier splits give away, as fractions of its characters."""

    characters: int
    exact: float
    """In blocks that an earlier split has as well."""
    ngram: float
    """In other blocks that share `NGRAM` words in a row with an earlier split."""


def drop_duplicates(blocks: Sequence[Block], *, within_splits: bool) -> tuple[list[Block], dict[str, Any]]:
    """Drop the blocks that an earlier split has as well, or with which it shares `NGRAM` words in a row.

    Blocks are compared after lower-casing, with every digit read as 0. Blocks shorter than `min_characters` are not
    compared: a heading or a closing bracket may well be the same everywhere.

    Args:
        blocks: of one language.
        within_splits: drop repeats inside a split, too; the first one stays.

    Returns:
        The blocks kept, in the order given, and a report: characters, and leakage before and after.
    """
    table = _OverlapIndex(blocks)
    kept = table.is_short.copy()
    for number in range(len(SPLITS)):
        own = (table.split == number) & ~table.is_short
        # What was dropped from an earlier split still counts as seen: it was dropped because something holds it.
        earlier = (table.split < number) & ~table.is_short
        repeated = table.repeats(own, earlier, within=within_splits)
        kept |= own & ~repeated & ~table.share_ngram(own, earlier)
    remaining = [block for block, keep in zip(blocks, kept, strict=True) if keep]
    before = table.leakage(np.ones(len(blocks), dtype=bool))
    # Measured again on what is left, rather than taken to be 0.
    after = table.leakage(kept)
    report = {
        "characters_before": sum(len(block.text) for block in blocks),
        "characters_after": sum(len(block.text) for block in remaining),
        "leakage": {
            split: {"before": asdict(before[split]), "after": asdict(after[split]) if split in after else None}
            for split in before
        },
    }
    return remaining, report


class _OverlapIndex:
    """Blocks in the form in which they are compared; all masks are bool `[blocks]`."""

    def __init__(self, blocks: Sequence[Block]):
        keys = [comparison_key(block.text) for block in blocks]
        numbers: dict[str, int] = {}
        self.key = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
        self.split = np.array([SPLITS.index(block.split) for block in blocks], dtype=np.int64)
        self.characters = np.array([len(block.text) for block in blocks], dtype=np.int64)
        self.is_short = np.array([len(block.text) < min_characters(block.text) for block in blocks], dtype=bool)
        self.grams, self.gram_block = _hash_ngrams(keys)

    def repeats(self, own: np.ndarray, earlier: np.ndarray, *, within: bool) -> np.ndarray:
        """Return which of `own` are equal to an earlier block (or, `within`, to one before it in `own`)."""
        found = own & np.isin(self.key, self.key[earlier])
        if within:
            places = np.flatnonzero(own)
            first = np.zeros_like(own)
            first[places[np.unique(self.key[places], return_index=True)[1]]] = True
            found |= own & ~first
        return found

    def share_ngram(self, own: np.ndarray, earlier: np.ndarray) -> np.ndarray:
        """Return which of `own` share `NGRAM` words in a row with an earlier block."""
        mine = own[self.gram_block]
        shared = np.isin(self.grams[mine], self.grams[earlier[self.gram_block]])
        found = np.zeros_like(own)
        found[self.gram_block[mine][shared]] = True
        return found

    def leakage(self, present: np.ndarray) -> dict[str, Leakage]:
        """Measure what the splits before each split give away of it, among the blocks present; short ones aside."""
        found: dict[str, Leakage] = {}
        for number in range(1, len(SPLITS)):
            own = present & (self.split == number) & ~self.is_short
            earlier = present & (self.split < number) & ~self.is_short
            total = int(self.characters[own].sum())
            if total:
                exact = self.repeats(own, earlier, within=False)
                ngram = self.share_ngram(own & ~exact, earlier)
                given_away = [float(self.characters[mask].sum() / total) for mask in (exact, ngram)]
                found[SPLITS[number]] = Leakage(total, *given_away)
        return found


def _hash_ngrams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hash (uint64) of every `NGRAM` words in a row, and the number of the text that each belongs to.

    Arrays rather than sets: a corpus from the hub has tens of millions of them.
    """
    numbers: dict[str, int] = {}
    words: list[np.ndarray] = []
    for text in texts:
        found = words_of(text)
        words.append(np.array([numbers.setdefault(word, len(numbers) + 1) for word in found], dtype=np.uint64))
    lengths = np.array([len(found) for found in words], dtype=np.int64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    if len(owner) < NGRAM:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    # A polynomial in a fixed odd base, modulo 2^64 by overflow; the words' numbers are spread over all bits first.
    spread = np.concatenate(words) * np.uint64(0x9E3779B97F4A7C15)
    spread ^= spread >> np.uint64(29)
    return roll_hashes(spread, owner)


def roll_hashes(words: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hash (uint64) of every `NGRAM` words in a row of one text, and the text that each belongs to.

    Args:
        words: a number for each word of the texts, one after another, uint64 with all bits in use.
        owner: the text of each word.
    """
    windows = max(len(owner) - NGRAM + 1, 0)
    hashes = np.zeros(windows, dtype=np.uint64)
    for place in range(NGRAM):
        hashes *= np.uint64(0xD6E8FEB86659FD93)
        hashes += words[place : place + windows]
    inside = owner[:windows] == owner[NGRAM - 1 :]
    return hashes[inside], owner[:windows][inside]


# -- documents that come without a split -------------------------------------------------------------------------------


def assign_splits(documents: Sequence[str], what: str) -> list[str]:
    """Return a split for each document of one language by the hash of its content, no split left empty.

    By value, as `assign_split`; where that leaves a split empty, as in a very small corpus, by rank of the hash.

    Raises:
        UsageError: fewer documents than splits.
    """
    require_enough(len(set(documents)), what)
    by_value = [assign_split(text) for text in documents]
    if set(by_value) == set(DEALT):
        return by_value
    ranked = sorted(set(documents), key=lambda text: hashlib.sha256(text.encode()).digest())
    rank = dict(zip(ranked, splits_by_rank(len(ranked)), strict=True))
    return [rank[text] for text in documents]


def require_enough(num_different: int, what: str) -> None:
    """Refuse to divide fewer documents than there are splits."""
    if num_different < len(DEALT):
        raise UsageError(
            f"{what} has {num_different} different document(s), which cannot be divided into {', '.join(DEALT)}; "
            f"give at least {len(DEALT)}, and some hundreds for a result that means something."
        )


def splits_by_rank(count: int) -> list[str]:
    """Return the splits of so many different documents in the order of the hashes of their content."""
    num_dev, num_replay = max(1, round(0.05 * count)), max(1, round(0.15 * count))
    return ["dev"] * num_dev + ["replay"] * num_replay + ["train"] * (count - num_dev - num_replay)
