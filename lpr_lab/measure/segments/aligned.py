"""Segments of a corpus that several languages have: documents with the same id are taken for translations.

Torch-free. Nothing here checks that they are translations: that is for whoever reads them beside one another. Where the
records of a data set have no id of their own, the corpus numbers them, and then equal numbers say nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lpr_lab.text.corpus import Corpus
from lpr_lab.text.splits import TEST_SETS

MOST_CHARACTERS = 600
"""Of a segment in any language: of a longer one nobody reads the tokens in many languages under one another."""


@dataclass(frozen=True)
class Segment:
    """A text in several languages.

    Attributes:
        id: of its documents in the corpus.
        split: which of the corpus's text it is from.
        texts: language -> text, in the order of the languages asked for; at least two.
    """

    id: str
    split: str
    texts: Mapping[str, str]

    @property
    def key(self) -> str:
        """A short name of letters and digits, the same on every machine; ids of documents may hold anything."""
        return hashlib.sha256(f"{self.split}\0{self.id}".encode()).hexdigest()[:16]


def aligned_texts(corpus: Corpus, split: str, languages: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return document id -> language -> text of a split, in the order of the first language that has each."""
    found: dict[str, dict[str, str]] = {}
    for code in languages:
        for document in corpus.documents(split, code):
            found.setdefault(document.id, {})[code] = document.text
    return found


def aligned_segments(corpus: Corpus, languages: Sequence[str], most: int = 60) -> list[Segment]:
    """Return segments that two languages or more have: those in most languages first, of these the longest.

    Of a long segment more tokens are compared, so chance counts for less.

    Args:
        corpus: with `TEST_SETS`, or some of them: text that nothing was trained on, the first with any.
        languages: ISO 639-1 codes.
        most: how many to return.

    Returns:
        Segments of one split, each of at most `MOST_CHARACTERS` in every language; none where there are none.
    """
    for split in (name for name in TEST_SETS if name in corpus.splits):
        texts = aligned_texts(corpus, split, languages)
        found = [Segment(name, split, own) for name, own in texts.items() if len(own) > 1 and _is_readable(own)]
        if found:
            # Stable: of equal ones the order of the corpus stays.
            return sorted(found, key=lambda one: (-len(one.texts), -_shortest(one)))[:most]
    return []


def _is_readable(texts: Mapping[str, str]) -> bool:
    return all(text.strip() and len(text) <= MOST_CHARACTERS for text in texts.values())


def _shortest(segment: Segment) -> int:
    return min(len(text.encode()) for text in segment.texts.values())
