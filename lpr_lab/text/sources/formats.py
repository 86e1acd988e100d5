"""Rows from files: JSON Lines, JSON, CSV, TSV, Parquet and plain text, compressed or not.

Each is read to its end or refused. What is wrong is said with the file's name and the place: a line, a record, a byte
of the file as it is once decompressed.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from lpr_lab.errors import DamagedError, MissingError, UsageError, first_line
from lpr_lab.text.sources.rows import TEXT_COLUMNS

TEXT_FORMAT = ".txt"
RECORD_FORMATS: dict[str, Callable[[Path, str | None], Iterator[dict[str, Any]]]] = {
    ".jsonl": lambda path, text_column: _json_lines(path),
    ".parquet": lambda path, text_column: _parquet_rows(path),
    ".json": lambda path, text_column: _json_rows(path, text_column),
    ".csv": lambda path, text_column: _csv_rows(path, ","),
    ".tsv": lambda path, text_column: _csv_rows(path, "\t"),
}
"""How the records of each format are read, given the file and the name of the column that holds the text, if any. Of
several files of one name that differ in their ending only, the first one here is read."""
ENDINGS = (*RECORD_FORMATS, TEXT_FORMAT)

_PARQUET_ROWS = 1024
"""Rows that are Python objects at once; texts may be long."""


def _open_zstd(path: Path) -> BinaryIO:
    import pyarrow

    stream: Any = pyarrow.input_stream(str(path), compression="zstd")
    return io.BufferedReader(stream)  # which has lines, as the others do


_OPENERS: dict[str, Callable[[Path], BinaryIO]] = {
    "": lambda path: path.open("rb"),
    ".gz": lambda path: cast("BinaryIO", gzip.open(path)),
    ".bz2": lambda path: cast("BinaryIO", bz2.open(path)),
    ".xz": lambda path: cast("BinaryIO", lzma.open(path)),
    ".zst": _open_zstd,
}
COMPRESSIONS = tuple(ending for ending in _OPENERS if ending)


def parts_of(path: Path) -> tuple[str, str, str]:
    """Return stem, format and compression of a file's name; format is empty for one that is not read.

    >>> parts_of(Path("el.JSONL.gz")), parts_of(Path("el.zip"))
    (('el', '.jsonl', '.gz'), ('el.zip', '', ''))
    """
    inner, compression = (path.with_suffix(""), path.suffix.lower())
    if compression not in COMPRESSIONS:
        inner, compression = path, ""
    ending = inner.suffix.lower()
    return (inner.stem, ending, compression) if ending in (*RECORD_FORMATS, TEXT_FORMAT) else (path.name, "", "")


def read_paragraphs(path: Path) -> Iterator[str]:
    r"""Yield what stands between blank lines of a text file, as `re.split(r"\n\s*\n", content)` has it.

    Raises:
        UsageError: not text in UTF-8.
        MissingError, DamagedError: it cannot be read, or its compression breaks off.
    """
    paragraph: list[str] = []
    blank: list[str] = []
    for line in _text_lines(path):
        # Blank is what follows a line end and has one of its own; the rest of a file belongs to its last paragraph.
        if paragraph and line.endswith("\n") and not line.strip():
            blank.append(line)
            continue
        if blank:
            yield "".join(paragraph).removesuffix("\n")
            paragraph, blank = [], []
        paragraph.append(line)
    yield "".join(paragraph).removesuffix("\n") if blank else "".join(paragraph)
    if blank:
        yield ""


def _text_lines(path: Path) -> Iterator[str]:
    for _, line, offset in _lines(path):
        _refuse_null_bytes(line, path, offset)
        yield from io.StringIO(line.replace("\r\n", "\n").replace("\r", "\n"))


class Piece(NamedTuple):
    """Part of a file, of those formats of which a part can be read by itself."""

    start: int
    """First byte of JSON Lines that are not compressed, or first row group of Parquet."""
    stop: int
    """What follows the last one."""
    records_before: int = 0
    lines_before: int = 0
    size: int = 0
    """In bytes, to show how much is done."""


PIECES: dict[str, Callable[[Path, Piece], Iterator[dict[str, Any]]]] = {
    ".jsonl": lambda path, piece: _json_lines(path, piece),
    ".parquet": lambda path, piece: _parquet_rows(path, piece),
}
"""How a part of a file is read, by format."""


def read_rows(path: Path, text_column: str | None = None, piece: Piece | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of a file of one of `RECORD_FORMATS`, or of a piece of it, column -> value.

    Raises:
        UsageError: not what its ending says; the message has the line or the byte.
        MissingError, DamagedError: it cannot be read, or it breaks off.
    """
    ending = parts_of(path)[1]
    return RECORD_FORMATS[ending](path, text_column) if piece is None else PIECES[ending](path, piece)


# -- bytes and characters ----------------------------------------------------------------------------------------------


@contextmanager
def _bytes_of(path: Path) -> Iterator[BinaryIO]:
    """Open a file for its decompressed bytes; what is wrong with it is said with its name."""
    compression = parts_of(path)[2]
    damage: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError)
    if compression:
        damage = (*damage, OSError)  # what gzip, bz2 and pyarrow raise for bytes that are not theirs
    try:
        with _OPENERS[compression](path) as file:
            yield file
    except FileNotFoundError as error:
        raise MissingError(f"There is no file {path}.") from error
    except PermissionError as error:
        raise MissingError(f"{path} may not be read; change its permissions.") from error
    except damage as error:
        raise DamagedError(
            f"{path.name} breaks off or is not {compression.removeprefix('.')} ({error}); make or fetch it again."
        ) from error


def _lines(path: Path, piece: Piece | None = None) -> Iterator[tuple[int, str, int]]:
    """Yield (number, line with its end, byte at which it begins) of a text file in UTF-8."""
    offset, stop, before = (piece.start, piece.stop, piece.lines_before) if piece else (0, math.inf, 0)
    with _bytes_of(path) as file:
        if piece:
            file.seek(piece.start)
        for number, line in enumerate(file, start=1 + before):
            if offset >= stop:
                return
            text = _decode(line, path, offset, number)
            yield number, text.removeprefix("\ufeff") if number == 1 else text, offset
            offset += len(line)


def _decode(data: bytes, path: Path, offset: int, line: int | None = None) -> str:
    if offset == 0 and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UsageError(f"{path.name} is UTF-16, not UTF-8; convert it, for example with iconv -f UTF-16 -t UTF-8.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start}" + (f", line {line}" if line is not None else "")
        raise UsageError(f"{path.name} is not UTF-8 text ({place}); convert it, for example with iconv.") from error


def _refuse_null_bytes(text: str, path: Path, offset: int) -> None:
    place = text.find("\0")
    if place >= 0:
        raise UsageError(
            f"{path.name} is not text: byte {offset + len(text[:place].encode())} is NUL. If it is UTF-16, convert it, "
            "for example with iconv -f UTF-16LE -t UTF-8."
        )


# -- formats -----------------------------------------------------------------------------------------------------------


def _json_lines(path: Path, piece: Piece | None = None) -> Iterator[dict[str, Any]]:
    for number, line, _ in _lines(path, piece):
        for part in _records_in(line):
            yield _object(part, path, number)


def _records_in(line: str) -> list[str]:
    return [part for part in line.rstrip("\r\n").split("\r") if part.strip()]


def cut_json_lines(path: Path, piece_bytes: int, each: Callable[[bytes], object]) -> list[Piece]:
    """Divide a file of JSON Lines that is not compressed into pieces of at least so many bytes; the last has the rest.

    Args:
        path: the file.
        piece_bytes: how much to read by itself.
        each: shown every line, on the way.
    """
    pieces: list[Piece] = []
    start = offset = lines = records = lines_before = records_before = 0
    with _bytes_of(path) as file:
        for line in file:
            each(line)
            offset, lines = offset + len(line), lines + 1
            if line[:1] == b"{" and b"\r" not in line[:-2]:
                records += 1  # without decoding, what nearly every line is
            else:
                text = line.decode("utf-8", "replace")
                records += len(_records_in(text.removeprefix("\ufeff") if lines == 1 else text))
            if offset - start >= piece_bytes:
                pieces.append(Piece(start, offset, records_before, lines_before, offset - start))
                start, records_before, lines_before = offset, records, lines
    return [*pieces, Piece(start, offset, records_before, lines_before, offset - start)] if offset > start else pieces


def cut_parquet(path: Path, piece_bytes: int) -> list[Piece]:
    """Divide a Parquet file into pieces of whole row groups, of at least so many bytes before compression."""
    import pyarrow.parquet

    with _bytes_of(path) as file:
        metadata = pyarrow.parquet.read_metadata(file)
    pieces: list[Piece] = []
    start = records = records_before = size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size, records = size + group.total_byte_size, records + group.num_rows
        if size >= piece_bytes or number == metadata.num_row_groups - 1:
            pieces.append(Piece(start, number + 1, records_before, 0, size))
            start, records_before, size = number + 1, records, 0
    return pieces


def _object(text: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise UsageError(
            f"{path.name} has no JSON object at line {number}; expected one per line, such as "
            '{"text": "...", "language": "el"}.'
        )
    return row


def _json_rows(path: Path, text_column: str | None) -> Iterator[dict[str, Any]]:
    """Yield the objects of an array, of the one list in an object (`{"data": […]}`), or one per line."""
    with _bytes_of(path) as file:
        content = _decode(file.read(), path, 0).removeprefix("\ufeff")
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and content.lstrip().startswith("{"):
            yield from _json_lines(path)
            return
        raise UsageError(
            f"{path.name} is not JSON ({error.msg}, line {error.lineno}, column {error.colno}); write it anew."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is not JSON that can be read ({error}).") from error
    rows = _rows_in(value, text_column)
    if rows is None:
        raise UsageError(
            f"{path.name} has no list of records; expected a JSON array of objects, or an object with one such list, "
            'such as {"data": [{"text": "...", "language": "el"}]}.'
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UsageError(f"Record {number} of {path.name} is no JSON object but {type(row).__name__}.")
        yield row


def _rows_in(value: Any, text_column: str | None) -> list[Any] | None:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return None
    if any(name in value for name in (TEXT_COLUMNS if text_column is None else (text_column,))):
        return [value]
    lists = [part for part in value.values() if isinstance(part, list) and any(isinstance(row, dict) for row in part)]
    return lists[0] if len(lists) == 1 else None


def _csv_rows(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    def lines() -> Iterator[str]:
        for _, line, offset in _lines(path):
            _refuse_null_bytes(line, path, offset)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(sys.maxsize)  # a document may be longer than the 131,072 characters allowed else
    try:
        header = [name.strip() for name in next(reader, [])]
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise UsageError(f"{path.name} has the column {twice[0]!r} more than once; name each column once.")
        for number, cells in enumerate((row for row in reader if row), start=1):
            if len(cells) != len(header):
                raise UsageError(
                    f"Record {number} of {path.name} (line {reader.line_num}) has {len(cells)} of {len(header)} columns"
                    f"; put quotation marks around values with {delimiter!r}, line ends or quotation marks in them."
                )
            yield dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise UsageError(
            f"{path.name} cannot be read at line {reader.line_num} ({error}); put quotation marks around values with "
            f"{delimiter!r}, line ends or quotation marks in them, and write these twice."
        ) from error
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(path: Path, piece: Piece | None = None) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    with _bytes_of(path) as file:
        # Parquet is read from its end, so what is compressed once more is unpacked first.
        source: Any = io.BytesIO(file.read()) if parts_of(path)[2] else file
        try:
            table = pyarrow.parquet.ParquetFile(source)
        except (pyarrow.ArrowException, OSError) as error:
            raise UsageError(f"{path.name} is not a readable Parquet file ({first_line(error)}).") from error
        groups = list(range(piece.start, piece.stop)) if piece else None
        done = piece.records_before if piece else 0
        try:
            for batch in table.iter_batches(_PARQUET_ROWS, row_groups=groups):
                rows = batch.to_pylist()
                yield from rows
                done += len(rows)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedError(
                f"{path.name} is damaged after record {done} of {table.metadata.num_rows} ({first_line(error)}); "
                "make or fetch it again."
            ) from error
