"""A corpus: documents with a language, in named splits, with a manifest.

    train     expansion (stage 1) learns from it
    replay    original languages, shown again in review (stage 2)
    dev       the same source as train, for early stopping and a first look
    heldout   another source and genre, where there is one: the main table

`load.load_corpus` makes one from the embedded `demo` profile, from files, or from a data set on the hub.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lpr_lab.errors import UsageError, one_of
from lpr_lab.text.languages import language_codes
from lpr_lab.text.splits import SPLITS, TEST_SETS


@dataclass(frozen=True)
class Document:
    """One text: a help page, a message, a record of a data set."""

    id: str
    """Unique within its language; translations of each other share it."""
    language: str
    """ISO 639-1."""
    text: str
    source: str
    """Where it came from: a package, a file or a data set."""


class DocumentSequence(Sequence[Document], ABC):
    """Documents that are not all in memory at once."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return number, characters and SHA-256 of the content."""

    @abstractmethod
    def ids(self) -> Iterator[str]:
        """Yield the id of every document, in order."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents by split and language."""

    name: str
    languages: tuple[str, ...]
    """ISO 639-1 codes, in the order asked for."""
    texts: Mapping[tuple[str, str], Sequence[Document]]
    """(split, language) -> documents: a tuple, or a sequence that reads them from the disk one at a time."""
    sources: Sequence[Mapping[str, Any]] = field(default=(), kw_only=True)
    """What it was made from: package or file, version, sha256, licence."""
    preparation: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    """Language -> what was dropped and why, leakage before and after."""
    left_out: Sequence[Mapping[str, str]] = field(default=(), kw_only=True)
    """Files and records that were found and not read: name, reason."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits that have at least one document, in the order of `SPLITS`."""
        return tuple(split for split in SPLITS if any(self.texts.get((split, code)) for code in self.languages))

    def documents(self, split: str, language: str | None = None) -> Sequence[Document]:
        """Return the documents of a split, of one language (by any of its labels) or of all, language by language.

        A language without text in that split gives none (the held-out campaign is not translated into every language).
        Those of all languages together are read into memory.

        Raises:
            UsageError: a split or language that this corpus does not have.
        """
        one_of(f"corpus {self.name}: split", split, self.splits)
        if language is not None and language not in self.languages:
            (language,) = language_codes([language])
        if language is not None and language not in self.languages:
            raise UsageError(
                f"The corpus {self.name!r} has no language {language!r}; it has {', '.join(self.languages)}. "
                "Name it in load_corpus(languages=...)."
            )
        if language is not None:
            return self.texts.get((split, language), ())
        return tuple(document for code in self.languages for document in self.texts.get((split, code), ()))

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What this corpus is, JSON-able: sources, and per language and split the size and SHA-256 of the content."""
        return {
            "schema_version": 1,
            "name": self.name,
            "languages": list(self.languages),
            "sources": [dict(source) for source in self.sources],
            "texts": {
                code: {split: _described(self.texts[split, code]) for split in SPLITS if self.texts.get((split, code))}
                for code in self.languages
            },
            "preparation": dict(self.preparation),
            # Only where there is something: the manifest of a corpus that is read whole stays what it was.
            **({"left_out": [dict(one) for one in self.left_out]} if self.left_out else {}),
        }

    def fingerprint(self) -> str:
        """Return 64 hex digits that are equal for equal content: the same texts in the same splits and languages."""
        texts = self.manifest["texts"]
        content = {f"{code}/{split}": texts[code][split]["sha256"] for code in texts for split in texts[code]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def describe_documents(documents: Iterable[Document]) -> dict[str, Any]:
    """Return number, characters and SHA-256 of the content of some documents, as a manifest has them."""
    digest = hashlib.sha256()
    encode = json.JSONEncoder().encode  # what `json.dumps` of the pair writes, in a quarter of the time
    num_documents = characters = 0
    for document in documents:
        digest.update(f"[{encode(document.id)}, {encode(document.text)}]".encode())
        num_documents += 1
        characters += len(document.text)
    return {"n_documents": num_documents, "characters": characters, "sha256": digest.hexdigest()}


def _described(documents: Sequence[Document]) -> dict[str, Any]:
    return documents.describe() if isinstance(documents, DocumentSequence) else describe_documents(documents)


def ordered_by_id(documents: Sequence[Document], key: Callable[[str], Any]) -> Iterator[Document]:
    """Yield documents in the order of a key of their ids; of those on the disk only what is taken is read."""
    names = documents.ids() if isinstance(documents, DocumentSequence) else (document.id for document in documents)
    keys = [key(name) for name in names]
    return (documents[place] for place in sorted(range(len(keys)), key=keys.__getitem__))


def comparable_splits(corpus: Corpus, splits: Sequence[str], languages: Sequence[str]) -> list[str]:
    """Return those of some splits in which every one of the languages has text; where there is none, all that it has.

    Held-out text that exists in the original languages only would be a test set on which nothing was learned.
    """
    there = [split for split in splits if split in corpus.splits]
    whole = [split for split in there if all(corpus.documents(split, code) for code in languages)]
    return whole or there


def main_split(corpus: Corpus, languages: Sequence[str]) -> str:
    """Return the split that says most of models in these languages: held-out text, or dev text where that is not whole.

    Raises:
        UsageError: the corpus has neither.
    """
    found = comparable_splits(corpus, TEST_SETS, languages)
    if not found:
        raise UsageError(f"The corpus {corpus.name} has neither held-out nor dev text; it has {corpus.splits}.")
    return found[0]
