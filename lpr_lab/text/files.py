"""Corpora from files: JSONL, TXT and Parquet, one or many, with or without languages and splits of their own."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from lpr_lab.errors import MissingError, UsageError, did_you_mean
from lpr_lab.storage import sha256_file
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.languages import get_language, get_languages
from lpr_lab.text.splits import SPLITS, Block, deal_splits, drop_duplicates, min_characters

ENDINGS = (".jsonl", ".txt", ".parquet")
TEXT_COLUMNS = ("text", "content", "document", "raw_content", "sentence")
LANGUAGE_COLUMNS = ("language", "lang")

Paths = str | Path | Sequence[str | Path] | Mapping[str, Any]


class Record(NamedTuple):
    """One text as it was found."""

    text: str
    language: str | None
    id: str
    split: str | None
    source: str


def looks_like_path(source: str) -> bool:
    """Tell a path from the name of a data set: it exists, ends like a file that we read, or starts like a path."""
    return (
        source.startswith(("/", ".", "~")) or source.lower().endswith(ENDINGS) or bool(source and Path(source).exists())
    )


def load_files(source: Paths, *, languages: Sequence[str] | None, text_column: str | None) -> Corpus:
    """Read files into a corpus; see `load_corpus`.

    Raises:
        MissingError: no such file.
        UsageError: an unknown ending, column or language, a record whose language is not known, or too little text.
    """
    wanted = tuple(language.code for language in get_languages(languages)) if languages is not None else None
    records: list[Record] = []
    sources: list[dict[str, Any]] = []
    for path, language in _list_files(source):
        known = language or (wanted[0] if wanted is not None and len(wanted) == 1 else language_in_name(path))
        records += _read(path, known, text_column)
        # The name alone: a manifest travels with a run, and the folders of this machine mean nothing elsewhere.
        sources.append({"file": path.name, "sha256": sha256_file(path), "licence": "as the file's owner states"})
    name = ", ".join(sorted({entry["file"] for entry in sources}))
    return make_corpus(name, records, wanted, sources)


def make_corpus(
    name: str, records: Iterable[Record], wanted: Sequence[str] | None, sources: Sequence[Mapping[str, Any]]
) -> Corpus:
    """Divide records into splits, drop what leaks between them, and return the corpus.

    Args:
        name: what to call it in messages.
        records: each with a known language code.
        wanted: ISO 639-1 codes to keep; None keeps all that occur.
        sources: what goes into the manifest.

    Raises:
        UsageError: no text, a wanted language without any, or too few documents to divide.
    """
    by_language: dict[str, list[Record]] = {}
    num_empty = 0
    for record in records:
        code = get_language(record.language or "").code
        if wanted is not None and code not in wanted:
            continue
        if not record.text.strip():
            num_empty += 1
            continue
        by_language.setdefault(code, []).append(record)
    codes = tuple(wanted) if wanted is not None else tuple(sorted(by_language))
    without = [code for code in codes if code not in by_language]
    if without or not codes:
        found = ", ".join(sorted(by_language)) or "none"
        empty = f" ({num_empty} empty records were left out)" if num_empty else ""
        raise UsageError(
            f"{name} has no text{' in ' + ', '.join(without) if without else ''}{empty}; languages found: {found}. "
            "Check the language codes and the text column."
        )
    texts: dict[tuple[str, str], tuple[Document, ...]] = {}
    preparation: dict[str, Any] = {}
    for code in codes:
        documents, preparation[code] = _divide(by_language[code], code, f"{name} in {code!r}")
        for split in SPLITS:
            texts[split, code] = tuple(document for document, own in documents if own == split)
        preparation[code]["empty_records_left_out"] = num_empty
    return Corpus(name, codes, texts, sources=tuple(sources), preparation=preparation)


def _divide(records: list[Record], code: str, what: str) -> tuple[list[tuple[Document, str]], dict[str, Any]]:
    """Return (document, split) for one language after dropping repeats, and the report of what was dropped."""
    different = list({record.text.strip(): record for record in reversed(records)}.values())[::-1]
    given = [record.split for record in different]
    if all(split is not None for split in given):
        splits = [_known_split(str(split), what) for split in given]
    elif any(split is not None for split in given):
        raise UsageError(f"{what} gives a split for some records and none for others; give it for all or for none.")
    else:
        splits = deal_splits([record.text.strip() for record in different], what)
    blocks = [
        Block(str(number), split, line.strip())
        for number, (record, split) in enumerate(zip(different, splits, strict=True))
        for line in record.text.splitlines()
        if line.strip()
    ]
    kept, duplicates = drop_duplicates(blocks, within_splits=False)
    report = {"duplicates": duplicates, "repeated_documents_left_out": len(records) - len(different)}
    lines: dict[int, list[str]] = {}
    for block in kept:
        lines.setdefault(int(block.document), []).append(block.text)
    documents = []
    for number, texts in lines.items():
        record, whole = different[number], different[number].text.splitlines()
        # What is left of a document whose paragraphs were all known must not count as one: it is only headings.
        if len(texts) < sum(bool(line.strip()) for line in whole) and all(len(t) < min_characters(t) for t in texts):
            continue
        documents.append((Document(record.id, code, "\n".join(texts), record.source), splits[number]))
    found = {split for _, split in documents}
    for split in ("train", "dev"):
        if split not in found:
            raise UsageError(
                f"{what} has no {split} text left after repeats were dropped ({len(different)} different documents "
                "were given); give more text, or texts that differ more."
            )
    return documents, report


def _known_split(split: str, what: str) -> str:
    if split not in SPLITS:
        raise UsageError(
            f"{what} has a record with split {split!r}; expected one of {', '.join(SPLITS)}."
            + did_you_mean(split, SPLITS)
        )
    return split


# -- reading -----------------------------------------------------------------------------------------------------------


def _list_files(source: Paths) -> Iterator[tuple[Path, str | None]]:
    """Yield (file, language or None) for whatever `load_corpus` was given."""
    if isinstance(source, Mapping):
        for language, paths in source.items():
            code = get_language(language).code
            for path, _ in _list_files(paths):
                yield path, code
    elif isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        if path.is_dir():
            files = sorted(found for found in path.rglob("*") if found.suffix.lower() in ENDINGS and found.is_file())
            if not files:
                raise MissingError(f"The folder {path} has no {', '.join(ENDINGS)} files; name the files themselves.")
            yield from ((found, language_in_name(found, path)) for found in files)
        elif path.is_file():
            yield path, None
        else:
            raise MissingError(f"There is no file {path}; expected a {', '.join(ENDINGS)} file or a folder of them.")
    else:
        if not source:
            raise UsageError("No file was given; expected at least one path.")
        for one in source:
            yield from _list_files(one)


def language_in_name(path: Path, folder: Path | None = None) -> str | None:
    """Return the language that a file is named by: `el.txt`, `news.ell_Grek.jsonl`, or any name in a folder `el/`.

    Folders count below `folder` only. None where the name says nothing. A record's own language counts before this, and
    so does the one language that was asked for of a file named by itself: `my.txt` need not be Burmese.

    >>> language_in_name(Path("my_texts/news.el.txt")), language_in_name(Path("my_texts/news.txt"))
    ('el', None)
    """
    inside = path.relative_to(folder).parent.parts if folder is not None else ()
    for name in (path.stem, path.stem.rpartition(".")[2], *reversed(inside)):
        with suppress(UsageError):
            return get_language(name).code
    return None


def _read(path: Path, language: str | None, text_column: str | None) -> Iterator[Record]:
    ending = path.suffix.lower()
    if ending == ".txt":
        if language is None:
            raise UsageError(
                f"{path.name} does not say which language it is in; name it by its language, such as 'el.txt', give a "
                f"mapping such as {{'el': '{path.name}'}}, or one language in languages=[...]."
            )
        with _utf8(path) as file:
            content = file.read()
        for number, text in enumerate(re.split(r"\n\s*\n", content), start=1):
            yield Record(text, language, f"{path.stem}-{number}", None, path.name)
    elif ending == ".jsonl":
        yield from _read_rows(_json_rows(path), path.name, path.stem, language, text_column)
    elif ending == ".parquet":
        yield from _read_rows(_parquet_rows(path), path.name, path.stem, language, text_column)
    else:
        raise UsageError(f"{path.name} is of a kind that cannot be read; expected {', '.join(ENDINGS)}.")


@contextmanager
def _utf8(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path.name} is not UTF-8 text (byte {error.start}); convert it, for example with iconv."
        ) from error


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with _utf8(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UsageError(
                    f"{path.name} has no JSON object at line {number}; expected one per line, such as "
                    '{"text": "...", "language": "el"}.'
                )
            yield row


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise UsageError(f"{path.name} is not a readable Parquet file ({error}).") from error


def _read_rows(
    rows: Iterator[dict[str, Any]], source: str, stem: str, language: str | None, text_column: str | None
) -> Iterator[Record]:
    """Turn rows into records; the language of a row counts before that of the file."""
    for number, row in enumerate(rows, start=1):
        column = find_text_column(row, text_column, source)
        own = next((row[name] for name in LANGUAGE_COLUMNS if row.get(name)), language)
        if own is None:
            raise UsageError(
                f"Record {number} of {source} does not say which language it is in; add a 'language' to each record, "
                f"name the file by its language, or give a mapping such as {{'el': '{source}'}}."
            )
        yield Record(str(row[column] or ""), str(own), str(row.get("id", f"{stem}-{number}")), row.get("split"), source)


def find_text_column(row: Mapping[str, Any], given: str | None, source: str) -> str:
    """Return the name of the column that holds the text.

    Raises:
        UsageError: the named column, or any of the usual ones, is not there.
    """
    if given is not None:
        if given not in row:
            raise UsageError(f"{source} has no column {given!r}; it has {', '.join(row)}.{did_you_mean(given, row)}")
        return given
    for name in TEXT_COLUMNS:
        if isinstance(row.get(name), str):
            return name
    raise UsageError(
        f"{source} has no column called {', '.join(TEXT_COLUMNS)}; it has {', '.join(row)}. Name it with "
        "text_column=..."
    )
