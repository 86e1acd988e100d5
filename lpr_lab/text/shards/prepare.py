"""Makes a corpus of shards out of files: reads them once, by several workers, and divides what they hold into splits.

What was made lies in the cache under a name that follows from the content of the files and the settings, so the same
command finds it again, and after a kill goes on with what is missing.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lpr_lab.errors import DamagedError
from lpr_lab.fetching import locked
from lpr_lab.storage import (
    MANIFEST,
    cache_dir,
    file_stamp,
    read_json_object,
    sha256_file,
    staged_directory,
    verify,
    write_json,
)
from lpr_lab.text.corpus import Corpus, describe_documents
from lpr_lab.text.languages import get_languages
from lpr_lab.text.shards.corpus import StoredDocuments
from lpr_lab.text.shards.documents import SHARD_BYTES, read_unit, shards_of
from lpr_lab.text.shards.index import divide, write_index
from lpr_lab.text.shards.pool import Task, Workers
from lpr_lab.text.sources.files import (
    Paths,
    as_entries,
    describe_file,
    joint_name,
    known_language,
    list_files,
    record_counts,
    take_stock,
    warn_of_left_out,
)
from lpr_lab.text.sources.folders import LeftOut
from lpr_lab.text.sources.formats import Piece, cut_json_lines, cut_parquet, parts_of
from lpr_lab.text.sources.rows import Labels
from lpr_lab.text.splits import SPLITS

FORM = 1
"""Of everything below a corpus's folder; a change of how text is read or divided makes all of it anew."""

LEFT_OVERS = (".staging-*", "*/.staging-*", "*/*/.staging-*", "*/*/*/.staging-*")
"""What a kill may leave anywhere in a corpus's folder."""


class Scanned(NamedTuple):
    """A file whose bytes were read once."""

    sha256: str
    pieces: list[Piece] | None
    """None for a file of which no part can be read by itself."""


def prepare_files(
    source: Paths, *, languages: Sequence[str] | None, text_column: str | None, workers: Workers
) -> Corpus:
    """Read files into shards in the cache, by some workers, and return the corpus; see `load_corpus`.

    Raises:
        UsageError, MissingError, DamagedError: as `load_corpus` does; a damaged shard of an earlier start is named.
    """
    wanted = tuple(language.code for language in get_languages(languages)) if languages is not None else None
    files, left_out = list_files(source)
    sizes = [path.stat().st_size for path, _ in files]
    scans = [Task((path, SHARD_BYTES), size) for (path, _), size in zip(files, sizes, strict=True)]
    scanned = workers.run(scan_file, scans, label="Looking through the files")
    name = joint_name(path for path, _ in files)
    known = [known_language(path, language, wanted) for path, language in files]
    seen = [[path.name, scan.sha256, code] for (path, _), scan, code in zip(files, scanned, known, strict=True)]
    folder = corpus_folder("files", [seen, wanted, text_column])
    units: list[Task] = []
    for (path, _), scan, code, size in zip(files, scanned, known, sizes, strict=True):
        for piece in [None] if scan.pieces is None else scan.pieces:
            target = folder / "documents" / f"{len(units):06}"
            arguments = (path, piece, code, wanted, text_column, name, target)
            units.append(Task(arguments, size if piece is None else piece.size))
    sources = [describe_file(path, scan.sha256) for (path, _), scan in zip(files, scanned, strict=True)]
    # Read what is missing also where the index is there: that is how a damaged part is made anew.
    if missing := [unit for unit in units if not unit.arguments[-1].is_dir()]:
        with locked(folder, f"preparing {name}", left_overs=LEFT_OVERS):
            missing = [unit for unit in units if not unit.arguments[-1].is_dir()]
            done = sum(unit.size for unit in units) - sum(unit.size for unit in missing)
            workers.run(read_unit, missing, label=f"Reading {name[:40]}", done=done)
    return open_corpus(folder, name, wanted, sources, left_out, workers)


def corpus_folder(kind: str, key: Any) -> Path:
    """Return where a corpus lies that is made of what `key` says."""
    digest = hashlib.sha256(json.dumps([FORM, SHARD_BYTES, key]).encode()).hexdigest()[:16]
    return cache_dir() / "corpora" / f"shards-{kind}-{digest}"


def scan_file(path: Path, piece_bytes: int) -> Scanned:
    """Return the SHA-256 of a file and how it is divided; remembered as long as the file is not written anew."""
    key = json.dumps([str(path.resolve()), file_stamp(path), piece_bytes])
    known = cache_dir() / "corpora" / "scans" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if known.is_file():
        found = read_json_object(known)
        pieces = found["pieces"]
        return Scanned(found["sha256"], None if pieces is None else [Piece(*piece) for piece in pieces])
    _, ending, compression = parts_of(path)
    pieces = None
    if ending == ".jsonl" and not compression:
        digest = hashlib.sha256()
        pieces = cut_json_lines(path, piece_bytes, digest.update)
        scanned = Scanned(digest.hexdigest(), pieces)
    else:
        if ending == ".parquet" and not compression:
            pieces = cut_parquet(path, piece_bytes)
        scanned = Scanned(sha256_file(path), pieces)
    known.parent.mkdir(parents=True, exist_ok=True)
    write_json(known, scanned._asdict())
    return scanned


def open_corpus(
    folder: Path,
    name: str,
    wanted: Sequence[str] | None,
    sources: Sequence[Mapping[str, Any]],
    left_out: Sequence[LeftOut],
    workers: Workers,
) -> Corpus:
    """Return the corpus whose documents lie in a folder, after dividing them where that is not done yet."""
    index = folder / "index"
    if not index.is_dir():
        with locked(folder, f"preparing {name}", left_overs=LEFT_OVERS):
            if not index.is_dir():
                _make_index(folder, name, wanted, left_out, workers)
    try:
        facts = verify(index)
    except DamagedError as error:
        raise DamagedError(f"{error} Delete {index} and run the same command again to make it anew.") from None
    shards = [(folder / "documents" / shard, facts["sources"][shard[:6]]) for shard in facts["shards"]]
    texts = {
        (split, code): StoredDocuments(folder, code, split, shards, description, num_proc=workers.num_proc)
        for code, splits in facts["texts"].items()
        for split, description in splits.items()
    }
    missing = [*left_out, *(LeftOut(one["name"], one["reason"]) for one in facts["left_out"])]
    warn_of_left_out(name, missing)
    return Corpus(
        name,
        tuple(facts["languages"]),
        texts,
        sources=tuple(sources),
        preparation=facts["preparation"],
        left_out=as_entries(missing),
    )


def _make_index(
    folder: Path, name: str, wanted: Sequence[str] | None, left_out: Sequence[LeftOut], workers: Workers
) -> None:
    shards = shards_of(folder / "documents")
    units = {path.parent.name: read_json_object(path) for path in sorted((folder / "documents").glob(f"*/{MANIFEST}"))}
    labels, num_empty, num_null = _counted(units, wanted)
    unit_languages = {unit: facts["languages"] for unit, facts in units.items()}
    found = {code for languages in unit_languages.values() for code in languages}
    codes, missing = take_stock(name, found, labels, num_empty, num_null, left_out)
    facts: dict[str, Any] = {
        "schema_version": 1,
        "languages": list(codes),
        "left_out": as_entries(missing[len(left_out) :]),
    }
    facts["shards"] = [shard.relative_to(folder / "documents").as_posix() for shard in shards]
    facts["sources"] = {unit: own["source"] for unit, own in units.items()}
    preparation: dict[str, Any] = {}
    compared = folder / "compared"
    with staged_directory(folder / "index", sealed=facts) as stage:
        for code in codes:
            what = f"{name} in {code!r}"
            divided = divide(shards, unit_languages, code, what)
            preparation[code] = write_index(shards, divided, code, what, compared, stage, workers)
            preparation[code] |= record_counts(code, labels, num_empty, num_null)
        facts |= {"preparation": preparation, "texts": _describe(stage, codes, shards, facts["sources"], workers)}
    shutil.rmtree(compared, ignore_errors=True)


def _counted(units: Mapping[str, Any], wanted: Sequence[str] | None) -> tuple[Labels, int, dict[str, int]]:
    """Add up what was counted in every unit: labels, empty records, records without text by language."""
    labels = Labels(wanted)
    num_null: Counter[str] = Counter()
    for facts in units.values():
        num_null.update(facts["null"])
        labels.others.update(facts["others"])
        labels.unknown.update(facts["unknown"])
        for code, counts in facts["taken"].items():
            labels.taken.setdefault(code, Counter()).update(counts)
    return labels, sum(facts["empty"] for facts in units.values()), dict(num_null)


def _describe(
    stage: Path, codes: Sequence[str], shards: Sequence[Path], sources: Mapping[str, str], workers: Workers
) -> dict[str, Any]:
    """Return language -> split -> size and SHA-256 of the content, which is read once more for it."""
    named = [(shard, sources[shard.parent.name]) for shard in shards]
    tasks = []
    for code in codes:
        for split in SPLITS:
            documents = StoredDocuments(stage, code, split, named, {}, index=stage)
            if len(documents):
                tasks.append(Task((stage, code, split, named), int(documents.characters.sum())))
    found = workers.run(describe_split, tasks, label="Describing the splits", unit="char")
    texts: dict[str, Any] = {code: {} for code in codes}
    for task, description in zip(tasks, found, strict=True):
        _, code, split, _ = task.arguments
        texts[code][split] = description
    return texts


def describe_split(index: Path, code: str, split: str, shards: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """Return size and SHA-256 of the content of a split; what a worker is given to do.

    Args:
        index: the folder of the index.
        code: of the language.
        split: one of `SPLITS`.
        shards: of all documents of the corpus, each with the name of its source.
    """
    return describe_documents(StoredDocuments(index, code, split, shards, {}, index=index))
