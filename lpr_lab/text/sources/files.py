"""Corpora from files: one or many, with or without languages and splits of their own."""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lpr_lab.errors import MissingError, UsageError, one_of
from lpr_lab.storage import sha256_file
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.languages import find_language, get_language, get_languages
from lpr_lab.text.sources.folders import LeftOut, list_folder
from lpr_lab.text.sources.formats import COMPRESSIONS, ENDINGS, TEXT_FORMAT, Piece, parts_of, read_paragraphs, read_rows
from lpr_lab.text.sources.rows import Labels, Record, read_records
from lpr_lab.text.splits import SPLITS, Block, assign_splits, drop_duplicates, min_characters

Paths = str | Path | Sequence[str | Path] | Mapping[str, Any]

_KINDS = f"{', '.join(ENDINGS)}, or one of them with {', '.join(COMPRESSIONS)}"
_MOST_NAMED = 8


def looks_like_path(source: str) -> bool:
    """Tell a path from the name of a data set: it exists, ends like a file that we read, or starts like a path."""
    return source.startswith(("/", ".", "~")) or bool(source and (parts_of(Path(source))[1] or Path(source).exists()))


def load_files(source: Paths, *, languages: Sequence[str] | None, text_column: str | None) -> Corpus:
    """Read files into a corpus; see `load_corpus`.

    Raises:
        MissingError: no such file.
        UsageError: an unknown ending, column or language, a record whose language is not known, or too little text.
    """
    wanted = tuple(language.code for language in get_languages(languages)) if languages is not None else None
    labels = Labels(wanted)
    records: list[Record] = []
    sources: list[dict[str, Any]] = []
    files, left_out = list_files(source)
    for path, language in files:
        records += read_file(path, known_language(path, language, wanted), text_column, labels)
        sources.append(describe_file(path, sha256_file(path)))
    name = joint_name(path for path, _ in files)
    return make_corpus(name, records, labels, sources, left_out)


def known_language(path: Path, language: str | None, wanted: Sequence[str] | None) -> str | None:
    """Return the language of a file's records that do not say theirs: as told, else the one asked for, else its name's.

    Args:
        path: of the file.
        language: that it is in by a mapping, or by its place in a folder.
        wanted: codes that were asked for; None for all.
    """
    return language or (wanted[0] if wanted is not None and len(wanted) == 1 else language_in_name(path))


def describe_file(path: Path, sha256: str) -> dict[str, str]:
    """Return a file's entry among the sources of a manifest.

    The name alone: a manifest travels with a run, and the folders of this machine mean nothing elsewhere.
    """
    return {"file": path.name, "sha256": sha256, "licence": "as the file's owner states"}


def joint_name(paths: Iterable[Path]) -> str:
    """Return what messages call a corpus of these files."""
    return ", ".join(sorted({path.name for path in paths}))


def make_corpus(
    name: str,
    records: Iterable[Record],
    labels: Labels,
    sources: Sequence[Mapping[str, Any]],
    left_out: Sequence[LeftOut] = (),
) -> Corpus:
    """Divide records into splits, drop what leaks between them, and return the corpus.

    Args:
        name: what to call it in messages.
        records: of languages that were asked for.
        labels: what the records were labelled, and which languages were asked for.
        sources: what goes into the manifest.
        left_out: files that were not read; with what else is left out, it is warned of and goes into the manifest.

    Raises:
        UsageError: no text, a wanted language without any, or too few documents to divide.
    """
    by_language: dict[str, list[Record]] = {}
    num_empty = 0
    num_null: dict[str, int] = {}
    for record in records:
        if record.is_null:
            num_null[record.language] = num_null.get(record.language, 0) + 1
        elif not record.text.strip():
            num_empty += 1
        else:
            by_language.setdefault(record.language, []).append(record)
    codes, missing = take_stock(name, {*by_language}, labels, num_empty, num_null, left_out)
    texts: dict[tuple[str, str], tuple[Document, ...]] = {}
    preparation: dict[str, Any] = {}
    for code in codes:
        documents, preparation[code] = _divide(by_language[code], code, f"{name} in {code!r}")
        for split in SPLITS:
            texts[split, code] = tuple(document for document, own in documents if own == split)
        preparation[code] |= record_counts(code, labels, num_empty, num_null)
    warn_of_left_out(name, missing)
    return Corpus(name, codes, texts, sources=tuple(sources), preparation=preparation, left_out=as_entries(missing))


def take_stock(
    name: str,
    found: Collection[str],
    labels: Labels,
    num_empty: int,
    num_null: Mapping[str, int],
    left_out: Sequence[LeftOut],
) -> tuple[tuple[str, ...], list[LeftOut]]:
    """Return the languages of a corpus, and all that is left out of it.

    Args:
        name: what to call it in messages.
        found: codes of the languages that have text.
        labels: what its records were labelled, and which languages were asked for.
        num_empty: records of nothing but space.
        num_null: language -> records without a text.
        left_out: files that were not read.

    Raises:
        UsageError: no text, or a wanted language without any.
    """
    codes = tuple(labels.wanted) if labels.wanted is not None else tuple(sorted(found))
    missing = [*left_out, *_records_left_out(num_null, labels)]
    without = [code for code in codes if code not in found]
    if without or not codes:
        others = ", ".join(sorted({*found, *labels.others})) or "none"
        empty = f" ({num_empty} empty records were left out)" if num_empty else ""
        raise UsageError(
            f"{name} has no text{' in ' + ', '.join(without) if without else ''}{empty}; languages found: {others}."
            f"{_listed(missing)} Check the language codes and the text column."
        )
    return codes, missing


def record_counts(code: str, labels: Labels, num_empty: int, num_null: Mapping[str, int]) -> dict[str, Any]:
    """Return what the preparation of a language says of its records: how many were left out, and several labels."""
    counts: dict[str, Any] = {"empty_records_left_out": num_empty}
    if num_null.get(code):
        counts["null_records_left_out"] = num_null[code]
    if len(labels.taken.get(code, ())) > 1:
        counts["labels"] = dict(sorted(labels.taken[code].items()))
    return counts


def warn_of_left_out(name: str, missing: Sequence[LeftOut]) -> None:
    """Warn of what is found and not read."""
    if missing:
        warnings.warn(f"Not all of {_short(name)} is read.{_listed(missing)}", stacklevel=3)


def as_entries(missing: Sequence[LeftOut]) -> tuple[dict[str, str], ...]:
    """Return what is left out as a manifest has it."""
    return tuple({"name": one.name, "reason": one.reason} for one in missing)


def records_without_text(count: int, code: str) -> LeftOut:
    """Return how to say that records of a language have null for their text."""
    return LeftOut(f"{count} record(s) in {code!r}", "without text (null)")


def _records_left_out(num_null: Mapping[str, int], labels: Labels) -> list[LeftOut]:
    return [records_without_text(count, code) for code, count in num_null.items()] + [
        LeftOut(f"{count} record(s) in {label[:40]!r}", "a label that names no language")
        for label, count in labels.unknown.items()
    ]


def _listed(missing: Sequence[LeftOut]) -> str:
    if not missing:
        return ""
    more = f"; and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    return " Left out: " + "; ".join(f"{one.name} ({one.reason})" for one in missing[:_MOST_NAMED]) + f"{more}."


def _short(name: str) -> str:
    return name if len(name) <= 80 else name[:79] + "…"


def _divide(records: list[Record], code: str, what: str) -> tuple[list[tuple[Document, str]], dict[str, Any]]:
    """Return (document, split) for one language after dropping repeats, and the report of what was dropped."""
    different = list({record.text.strip(): record for record in reversed(records)}.values())[::-1]
    given = [record.split for record in different]
    if splits_are_given(sum(split is not None for split in given), len(given), what):
        splits = [known_split(str(split), what) for split in given]
    else:
        splits = assign_splits([record.text.strip() for record in different], what)
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
    require_splits({split for _, split in documents}, len(different), what)
    return documents, report


def splits_are_given(num_given: int, num_records: int, what: str) -> bool:
    """Tell whether records say their splits: all of them do, or none; anything between is refused."""
    if 0 < num_given < num_records:
        raise UsageError(f"{what} gives a split for some records and none for others; give it for all or for none.")
    return num_given > 0


def require_splits(found: Collection[str], num_different: int, what: str) -> None:
    """Refuse a language that has no text to learn from, or none to check with."""
    for split in ("train", "dev"):
        if split not in found:
            raise UsageError(
                f"{what} has no {split} text left after repeats were dropped ({num_different} different documents "
                "were given); give more text, or texts that differ more."
            )


def known_split(split: str, what: str) -> str:
    """Return the split that a record says it is in, if there is one of that name."""
    one_of(f"{what} has a record whose split", split, SPLITS)
    return split


# -- reading -----------------------------------------------------------------------------------------------------------


def list_files(source: Paths) -> tuple[list[tuple[Path, str | None]], list[LeftOut]]:
    """Return (file, language or None) for whatever `load_corpus` was given, and what is not read of its folders."""
    files: list[tuple[Path, str | None]] = []
    left_out: list[LeftOut] = []
    if isinstance(source, Mapping):
        for language, paths in source.items():
            code = get_language(language).code
            below, without = list_files(paths)
            files += [(path, code) for path, _ in below]
            left_out += without
    elif isinstance(source, str | Path):
        return _list_path(Path(source).expanduser())
    elif isinstance(source, Sequence) and not isinstance(source, bytes):
        if not source:
            raise UsageError("No file was given; expected at least one path.")
        for one in source:
            below, without = list_files(one)
            files += below
            left_out += without
    else:
        raise UsageError(
            f"A corpus cannot be made from a {type(source).__name__}; expected a path, a list of paths, or a mapping "
            "from language to paths. Write what is in memory to a file first, such as with .to_parquet('el.parquet')."
        )
    return files, left_out


def _list_path(path: Path) -> tuple[list[tuple[Path, str | None]], list[LeftOut]]:
    if path.is_dir():
        files, left_out = list_folder(path)
        if not files:
            raise MissingError(
                f"The folder {path} has no {', '.join(ENDINGS)} files.{_listed(left_out)} Name the files themselves."
            )
        return [(found, language_in_name(found, path)) for found in files], left_out
    if path.is_file():
        return [(path, None)], []
    raise MissingError(f"There is no file {path}; expected {_KINDS}, or a folder of them.")


def language_in_name(path: Path, folder: Path | None = None) -> str | None:
    """Return the language that a file is named by: `el.txt`, `news.ell_Grek.jsonl`, or any name in a folder `el/`.

    Folders count below `folder` only. None where the name says nothing: three letters alone do not, because `may.txt`
    need not be Malay. A record's own language counts before this, and so does the one language that was asked for of a
    file named by itself: `my.txt` need not be Burmese.

    >>> language_in_name(Path("my_texts/news.el.txt.gz")), language_in_name(Path("my_texts/news.txt"))
    ('el', None)
    """
    inside = path.relative_to(folder).parent.parts if folder is not None else ()
    stem = parts_of(path)[0]
    for name in (stem, stem.rpartition(".")[2], *reversed(inside)):
        found = find_language(name) if len(name) != 3 else None
        if found is not None:
            return found.code
    return None


def read_file(
    path: Path, language: str | None, text_column: str | None, labels: Labels, piece: Piece | None = None
) -> Iterator[Record]:
    """Yield the records of a file, or of a piece of it, in the languages that are taken; see `load_corpus`."""
    stem, ending, _ = parts_of(path)
    if not ending:
        raise UsageError(f"{path.name} is of a kind that cannot be read; expected {_KINDS}.")
    if ending == TEXT_FORMAT:
        if language is None:
            raise UsageError(
                f"{path.name} does not say which language it is in; name it by its language, such as 'el.txt', give a "
                f"mapping such as {{'el': '{path.name}'}}, or one language in languages=[...]."
            )
        for number, text in enumerate(read_paragraphs(path), start=1):
            code = labels.code(language, path.name)
            if code is not None:
                yield Record(text, code, f"{stem}-{number}", None, path.name)
    else:
        rows, before = read_rows(path, text_column, piece), piece.records_before if piece else 0
        yield from read_records(rows, path.name, stem, language, text_column, labels, before)
