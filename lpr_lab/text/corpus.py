"""Text as the rest of the project sees it: documents with a language, in named splits, with a manifest.

    train     expansion (stage 1) learns from it
    replay    original languages, shown again in review (stage 2)
    dev       the same source as train, for early stopping and a first look
    heldout   another source and genre, where there is one: the main table

`load_corpus` makes one from the embedded `demo` profile, from files, or from a data set on the hub.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lpr_lab.errors import UsageError, did_you_mean
from lpr_lab.text.languages import language_codes
from lpr_lab.text.splits import SPLITS

JOINT = " + "
"""Between the sources of a corpus that is made from several."""

DEMO_LANGUAGES = ("en", "es", "zh", "el", "hu", "tr")


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


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents by split and language."""

    name: str
    languages: tuple[str, ...]
    """ISO 639-1 codes, in the order asked for."""
    texts: Mapping[tuple[str, str], tuple[Document, ...]]
    """(split, language) -> documents."""
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

    def documents(self, split: str, language: str | None = None) -> tuple[Document, ...]:
        """Return the documents of a split, of one language (by any of its labels) or of all, language by language.

        A language without text in that split gives none (the held-out campaign is not translated into every language).

        Raises:
            UsageError: a split or language that this corpus does not have.
        """
        if split not in self.splits:
            raise UsageError(
                f"The corpus {self.name!r} has no split {split!r}; it has {', '.join(self.splits)}."
                + did_you_mean(split, self.splits)
            )
        if language is not None and language not in self.languages:
            (language,) = language_codes([language])
        if language is not None and language not in self.languages:
            raise UsageError(
                f"The corpus {self.name!r} has no language {language!r}; it has {', '.join(self.languages)}. "
                "Name it in load_corpus(languages=...)."
            )
        chosen = self.languages if language is None else (language,)
        return tuple(document for code in chosen for document in self.texts.get((split, code), ()))

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What this corpus is, JSON-able: sources, and per language and split the size and SHA-256 of the content."""
        return {
            "schema_version": 1,
            "name": self.name,
            "languages": list(self.languages),
            "sources": [dict(source) for source in self.sources],
            "texts": {
                code: {split: _describe(self.texts[split, code]) for split in SPLITS if self.texts.get((split, code))}
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


def _describe(documents: Sequence[Document]) -> dict[str, Any]:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(json.dumps([document.id, document.text]).encode())
    return {
        "n_documents": len(documents),
        "characters": sum(len(document.text) for document in documents),
        "sha256": digest.hexdigest(),
    }


def comparable_splits(corpus: Corpus, splits: Sequence[str], languages: Sequence[str]) -> list[str]:
    """Return those of some splits in which every one of the languages has text; where there is none, all that it has.

    Held-out text that exists in the original languages only would be a test set on which nothing was learned.
    """
    there = [split for split in splits if split in corpus.splits]
    whole = [split for split in there if all(corpus.documents(split, code) for code in languages)]
    return whole or there


def load_corpus(
    source: str | Path | Sequence[str | Path] | Mapping[str, Any] = "demo",
    *,
    languages: Sequence[str] | None = None,
    text_column: str | None = None,
    configs: Mapping[str, str] | None = None,
    hub_split: str = "train",
    max_documents: int = 20_000,
) -> Corpus:
    """Load text in the given languages.

    Args:
        source: `"demo"`; or a JSONL, JSON, CSV, TSV, TXT or Parquet file, also compressed (.gz, .bz2, .xz, .zst), a
            folder of them, or a list of either; or a mapping from language to such paths; or the name of a data set on
            the hub; or several of these as one text, such as `"my_texts + demo"`: a language is taken from the first
            that has it.
        languages: ISO 639 or FLORES codes, or tags such as `pt-BR`. None takes the six demo languages, or those found
            in the files.
        text_column: the column that holds the text; None looks for the usual names.
        configs: hub only: language to configuration, such as `{"el": "ell_Grek"}`; None looks for the language's code.
        hub_split: hub only: which split of the data set to stream.
        max_documents: hub only: how many documents to take per language.

    Records have `text`, and may have `language` (or `lang`), `id` and `split` (train, replay, dev, heldout). A text
    that is null is left out and counted; a number or a structure in its place is refused. A TXT file has one document
    per paragraph, paragraphs being divided by blank lines. A file named by a language, `el.txt` or `el/news.txt`, is
    in that language where its records do not say otherwise. Where no split is
    given, documents are dealt to train, replay and dev by the hash of their content, and what dev and replay share
    with train is dropped. What is found and not read (`left_out` of the corpus) is warned of, with the reason.

    Raises:
        UsageError: an unknown language, no text, or too few documents to divide.
        MissingError: a source that is not there or cannot be reached.
        DamagedError: a file that breaks off.

    >>> corpus = load_corpus("demo", languages=["en", "el"])  # doctest: +SKIP
    >>> corpus.documents("dev", "el")[0].language  # doctest: +SKIP
    'el'
    """
    if isinstance(source, str) and JOINT in source and not Path(source).expanduser().exists():
        parts = [part.strip() for part in source.split(JOINT)]
        hub = {"configs": configs, "hub_split": hub_split, "max_documents": max_documents}
        return _joined(parts, languages, text_column=text_column, **hub)
    if isinstance(source, str) and source == "demo":
        from lpr_lab.text.demo.corpus import load_demo

        return load_demo(languages if languages is not None else DEMO_LANGUAGES)
    from lpr_lab.text.sources.files import load_files, looks_like_path

    if not isinstance(source, str) or looks_like_path(source):
        return load_files(source, languages=languages, text_column=text_column)
    from lpr_lab.text.sources.hub import load_hub

    return load_hub(
        source,
        languages=languages,
        text_column=text_column,
        configs=configs or {},
        hub_split=hub_split,
        max_documents=max_documents,
    )


def _joined(parts: Sequence[str], languages: Sequence[str] | None, **options: Any) -> Corpus:
    """Take each language from the first source that has it; the hub is asked for whatever is missing by then."""
    from lpr_lab.text.demo.readers import HELP_LANGUAGES
    from lpr_lab.text.languages import get_languages
    from lpr_lab.text.sources.files import looks_like_path

    name = JOINT.join(parts)
    if not languages:
        raise UsageError(f"Which languages to take from {name}? Give languages=['el', ...].")
    wanted = [language.code for language in get_languages(languages)]
    taken: dict[str, Corpus] = {}
    for part in parts:
        missing = [code for code in wanted if code not in taken]
        if part == "demo":
            missing = [code for code in missing if code in HELP_LANGUAGES]
        elif looks_like_path(part):
            found = load_corpus(part, **options)
            taken |= {code: found for code in missing if code in found.languages}
            continue
        if missing:
            taken |= dict.fromkeys(missing, load_corpus(part, languages=missing, **options))
    if without := [code for code in wanted if code not in taken]:
        raise UsageError(f"{name} has no text in {', '.join(without)}. Name another source that does.")
    corpora = list({id(corpus): corpus for corpus in taken.values()}.values())
    return Corpus(
        name,
        tuple(wanted),
        {
            (split, code): documents
            for code in wanted
            for (split, own), documents in taken[code].texts.items()
            if own == code
        },
        sources=[source for corpus in corpora for source in corpus.sources],
        preparation={code: taken[code].preparation.get(code, {}) for code in wanted},
        left_out=[one for corpus in corpora for one in corpus.left_out],
    )
