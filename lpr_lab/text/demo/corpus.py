"""The `demo` corpus: LibreOffice's help to train on, a fantasy campaign to test on, made from Debian packages.

Each language is prepared once and kept in the cache as JSONL with a manifest: help pages as documents, split by page
(the same page is in the same split in every language), text left in English dropped, repeats dropped. The held-out
documents are messages of `wesnoth-*-utbs` of 40 characters or more in English: those that exist in every language that
was asked for, so that scores of different languages are about the same content.

Bengali, Hindi and Nepali, which have no such help, are trained on the messages of programs. Where a language that was
asked for is not in the campaign, all of them are tested on the messages of MediaWiki, so that they are still about the
same content. `docs/languages.md` says what each language has, and which fell out.

Licences of the text: MPL-2.0 (help), GPL-2.0-or-later (campaign and MediaWiki), those of the packages (messages). It
stays in the cache; nothing of it is in this repository.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.fetching import locked
from lpr_lab.progress import progress
from lpr_lab.storage import cache_dir, read_jsonl, staged_directory, verify
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.demo.debian import INSTEAD, Package, get_packages
from lpr_lab.text.demo.messages import (
    INTERFACE_LICENCE,
    INTERFACE_PACKAGE,
    MESSAGE_PACKAGES,
    MESSAGES_LICENCE,
    read_interface,
    read_messages,
)
from lpr_lab.text.demo.readers import (
    FICTION_LICENCE,
    FICTION_PACKAGE,
    HELP_LANGUAGES,
    HELP_LICENCE,
    Pages,
    help_package,
    read_fiction,
    read_help,
)
from lpr_lab.text.language_filter import LanguageFilter
from lpr_lab.text.languages import LANGUAGES, get_languages
from lpr_lab.text.splits import Block, assign_split, drop_duplicates, min_characters

DEMO_LANGUAGES = ("en", "es", "zh", "el", "hu", "tr")
"""Those of the profile `demo` where nobody names others."""

_PREPARATION_VERSION = 1
"""Raise it with every change to what is read, filtered or split: what was prepared before is then left aside."""

_MIN_FICTION_CHARACTERS = 40

_MIN_FICTION_MESSAGES = 500
"""A language with fewer is left out of the held-out text, rather than cutting that of all others down to its own."""

TRAINED_LANGUAGES = tuple(sorted({*HELP_LANGUAGES, *MESSAGE_PACKAGES}))
"""Those that Debian has training text in."""

MIN_TRAINING_CHARACTERS = 100_000
"""A language with fewer is refused; they would not last for a demo's training."""

_NO_HELP = ("bn", "ne")
"""Languages whose training text is messages alone."""


def load_demo(languages: Sequence[str]) -> Corpus:
    """Return the demo corpus in the given languages, fetching and preparing what is not in the cache.

    Raises:
        UsageError: a language that the demo does not have.
        MissingError: nothing cached and no apt-get, no network or no such package.
    """
    codes = [language.code for language in get_languages(languages)]
    unknown = sorted(set(codes) - set(TRAINED_LANGUAGES))
    if unknown:
        raise UsageError(
            f"The demo corpus has no text in {', '.join(unknown)}; it has {', '.join(TRAINED_LANGUAGES)}. For others, "
            f"{INSTEAD}."
        )
    packages = get_packages([*_all_training_packages(codes), FICTION_PACKAGE])
    trained = prepare_training(codes)

    documents: dict[tuple[str, str], tuple[Document, ...]] = {}
    preparation: dict[str, Any] = {}
    for code in codes:
        folder, facts = trained[code]
        name = ", ".join(training_packages(code))
        preparation[code] = {key: facts[key] for key in ("filter", "duplicates")}
        records = read_jsonl(folder / "documents.jsonl")
        for split in ("train", "replay", "dev"):
            documents[split, code] = tuple(
                Document(record["id"], code, record["text"], name) for record in records if record["split"] == split
            )
        num_characters = sum(len(document.text) for document in documents["train", code])
        if num_characters < MIN_TRAINING_CHARACTERS or not documents["dev", code]:
            raise UsageError(
                f"What Debian has of {LANGUAGES[code].name} is nearly all left in English ({num_characters} characters "
                f"of training text remain), so the demo has no text in {code!r}; {INSTEAD}."
            )
    package, licence = _add_heldout(documents, codes, packages[FICTION_PACKAGE])
    sources = [
        _describe(
            packages[name], HELP_LICENCE if name == help_package(code) else MESSAGES_LICENCE, "train, replay, dev"
        )
        for code in codes
        for name in training_packages(code)
    ]
    sources = list({source["package"]: source for source in sources}.values())
    sources.append(_describe(package, licence, "heldout"))
    return Corpus("demo", tuple(codes), documents, sources=sources, preparation=preparation)


def _all_training_packages(codes: Sequence[str]) -> list[str]:
    """Return the packages of several languages, and those by which what was left in English is found."""
    names = dict.fromkeys(name for code in codes for name in training_packages(code))
    if not set(codes) <= set(_NO_HELP):
        names[help_package("en")] = None
    return list(names)


def training_packages(code: str) -> tuple[str, ...]:
    """Return the packages that the training text of a language is read from."""
    own = () if code in _NO_HELP else (help_package(code),)
    return (*own, *MESSAGE_PACKAGES.get(code, ()))


def _add_heldout(
    documents: dict[tuple[str, str], tuple[Document, ...]], codes: Sequence[str], fiction: Package
) -> tuple[Package, str]:
    """Add the messages that all languages have; return the package that they come from, and its licence."""
    package, licence, (folder, facts) = fiction, FICTION_LICENCE, prepare_fiction()
    if not set(codes) <= set(facts["languages"]):
        found = prepare_interface()
        if set(codes) <= set(found[1]["languages"]):
            package, licence = get_packages([INTERFACE_PACKAGE])[INTERFACE_PACKAGE], INTERFACE_LICENCE
            folder, facts = found
    translated = {code: _read_messages(folder / f"{code}.jsonl") for code in codes if code in facts["languages"]}
    common = set.intersection(*map(set, translated.values())) if translated else set()
    for code, messages in translated.items():
        documents["heldout", code] = tuple(
            Document(key, code, text, facts["package"]) for key, text in messages.items() if key in common
        )
    return package, licence


def _describe(package: Package, licence: str, used_for: str) -> dict[str, str]:
    return {
        "package": package.name,
        "version": package.version,
        "sha256": package.sha256,
        "licence": licence,
        "used_for": used_for,
    }


def _read_messages(path: Path) -> dict[str, str]:
    return {record["id"]: record["text"] for record in read_jsonl(path)}


# -- prepared folders --------------------------------------------------------------------------------------------------


def _prepared(name: str, packages: Sequence[Package]) -> Path:
    """Return the folder of one prepared text; another version of a package or of this code is another folder."""
    key = json.dumps([_PREPARATION_VERSION, *((package.name, package.sha256) for package in packages)])
    return cache_dir() / "corpora" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _facts(folder: Path) -> dict[str, Any]:
    try:
        return verify(folder)
    except DamagedError as error:
        raise DamagedError(f"{error} Delete {folder} and run the same command again; it is then made anew.") from None


def prepare_training(codes: Sequence[str]) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return the folder of each language's training text and its manifest, fetched and prepared where not cached."""
    packages = get_packages(_all_training_packages(codes))
    folders = {}
    for code in codes:
        own = [packages[name] for name in training_packages(code)]
        english = [] if code in _NO_HELP else [packages[help_package("en")]]
        folders[code] = _prepared(f"{'messages' if code in MESSAGE_PACKAGES else 'help'}-{code}", [*own, *english])
    if any(not folder.is_dir() for folder in folders.values()):
        with locked(cache_dir() / "corpora", "preparing the demo corpus"):
            missing = [code for code, folder in folders.items() if not folder.is_dir()]
            with progress(len(missing), "Preparing training text", unit="language") as bar:
                by_help = [code for code in missing if help_package(code) in training_packages(code)]
                english = read_help(packages[help_package("en")]) if by_help else {}
                for code in missing:
                    bar.set_postfix_str(LANGUAGES[code].name)
                    _write_training(code, *_read_training(code, packages, english), folders[code])
                    bar.update(1)
    return {code: (folder, _facts(folder)) for code, folder in folders.items()}


def _read_training(code: str, packages: dict[str, Package], english: Pages) -> tuple[Pages, Pages]:
    """Return the pages of a language, and the English that they translate."""
    if code == "en":
        return english, english
    own = {} if code in _NO_HELP else read_help(packages[help_package(code)])
    if code not in MESSAGE_PACKAGES:
        return own, english
    messages, sources = read_messages([packages[name] for name in MESSAGE_PACKAGES[code]], code)
    return own | messages, english | sources


def _write_training(code: str, pages: Pages, english: Pages, folder: Path) -> None:
    kept, dropped = filter_pages(code, pages, english)
    blocks, duplicates = drop_duplicates(kept, within_splits=True)
    documents: dict[str, list[str]] = {}
    for block in blocks:
        documents.setdefault(block.document, []).append(block.text)
    lines = [{"id": path, "split": assign_split(path), "text": "\n".join(texts)} for path, texts in documents.items()]
    facts = {"schema_version": 1, "language": code, "filter": dropped, "duplicates": duplicates}
    with staged_directory(folder, sealed=facts) as stage:
        _write_jsonl(stage / "documents.jsonl", lines)


def filter_pages(code: str, pages: Pages, english: Pages) -> tuple[list[Block], dict[str, int]]:
    """Return the blocks of help pages that are in their language, and characters kept and dropped by reason."""
    candidates = [
        (path, key, text)
        for path, paragraphs in pages.items()
        for key, text in paragraphs.items()
        if len(text) >= min_characters(text)
    ]
    source = {(path, key): text for path, paragraphs in english.items() for key, text in paragraphs.items()}
    judge = LanguageFilter(code, (text for _, _, text in candidates), (t for t in source.values() if len(t) >= 20))
    characters: Counter[str] = Counter()
    kept = []
    for path, key, text in candidates:
        reason = judge.reason_to_drop(text, source.get((path, key)))
        characters[reason or "kept"] += len(text)
        if reason is None:
            kept.append(Block(path, assign_split(path), text))
    return kept, dict(sorted(characters.items()))


def prepare_fiction() -> tuple[Path, dict[str, Any]]:
    """Return the folder of the campaign's messages and its manifest, fetched and prepared where it is not cached."""
    package = get_packages([FICTION_PACKAGE])[FICTION_PACKAGE]
    folder = _prepared("fiction", [package])
    if not folder.is_dir():
        with locked(folder.parent, "preparing the demo corpus"):
            if not folder.is_dir():
                _write_heldout(read_fiction(package, list(LANGUAGES)), package, folder)
    return folder, _facts(folder)


def prepare_interface() -> tuple[Path, dict[str, Any]]:
    """Return the folder of MediaWiki's messages and its manifest, fetched and prepared where it is not cached."""
    package = get_packages([INTERFACE_PACKAGE])[INTERFACE_PACKAGE]
    folder = _prepared("interface", [package])
    if not folder.is_dir():
        with locked(folder.parent, "preparing the demo corpus"):
            if not folder.is_dir():
                _write_heldout(read_interface(package, TRAINED_LANGUAGES), package, folder)
    return folder, _facts(folder)


def _write_heldout(messages: Pages, package: Package, folder: Path) -> None:
    english = messages["en"]
    long_enough = [key for key, text in english.items() if len(text) >= _MIN_FICTION_CHARACTERS]
    kept: dict[str, list[dict[str, str]]] = {}
    for code, texts in messages.items():
        if len(texts) < _MIN_FICTION_MESSAGES:
            continue
        judge = LanguageFilter(code, texts.values(), english.values())
        kept[code] = [
            {"id": key, "text": texts[key]}
            for key in long_enough
            if key in texts and not judge.reason_to_drop(texts[key], english[key])
        ]
    enough = sorted(code for code, records in kept.items() if len(records) >= _MIN_FICTION_MESSAGES)
    facts = {"schema_version": 1, "package": package.name, "languages": enough}
    with staged_directory(folder, sealed=facts) as stage:
        for code in enough:
            _write_jsonl(stage / f"{code}.jsonl", kept[code])


def _write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
