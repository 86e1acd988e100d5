"""Reads and checks one record of a data set: its text, language, id and split.

Data sets are written by many hands. A text may be missing, a number, bytes, or a structure; read as they are, such
values become training text (`"{'en': …}"`, `"None"`) that nobody sees again. Here a missing text is counted and left
out, and whatever else is no text is refused with the number of its record and the name of its column.
"""

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lpr_lab.errors import UsageError, did_you_mean
from lpr_lab.text.languages import find_by_name, find_language, get_language
from lpr_lab.text.unicode import find_lone_surrogate

TEXT_COLUMNS = ("text", "content", "document", "raw_content", "sentence")
LANGUAGE_COLUMNS = ("language", "lang")

Row = Mapping[str, Any]

_LONGEST_SHOWN = 40
_MOST_NAMES = 12


class Record(NamedTuple):
    """One text as it was found."""

    text: str
    language: str
    """Code of a language that was asked for."""
    id: str
    split: str | None
    source: str
    is_null: bool = False
    """It has no text at all (null, NaN); such records are counted and left out."""


class Labels:
    """The languages that records say they are in: which are taken, and what else there was.

    Attributes:
        taken: code -> label -> records that were taken by it.
        others: code of a language that was not asked for -> records.
        unknown: label that names no language -> records that were left out for it.
    """

    def __init__(self, wanted: Sequence[str] | None):
        """Take the languages of these codes; None takes all."""
        self.wanted = wanted
        self.taken: dict[str, Counter[str]] = {}
        self.others: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self._codes: dict[str, str | None] = {}

    def code(self, label: str, where: str) -> str | None:
        """Return the code of a record's language, or None if it is not asked for.

        Raises:
            UsageError: a label that names no language, where all languages are taken, or where it may mean one of
                those that were asked for (`Greek`).
        """
        if label not in self._codes:
            self._codes[label] = self._find(label, where)
        code = self._codes[label]
        if code is None:
            self.unknown[label] += 1
        elif self.wanted is not None and code not in self.wanted:
            self.others[code] += 1
            return None
        else:
            self.taken.setdefault(code, Counter())[label] += 1
        return code

    def _find(self, label: str, where: str) -> str | None:
        found = find_language(label)
        if found is not None:
            return found.code
        meant = find_by_name(label)
        if self.wanted is None or (meant is not None and meant.code in self.wanted):
            try:
                get_language(label)
            except UsageError as error:
                raise UsageError(f"{where} says it is in {label[:_LONGEST_SHOWN]!r}. {error}") from None
        return None


def read_records(
    rows: Iterable[Row],
    source: str,
    stem: str,
    language: str | None,
    text_column: str | None,
    labels: Labels,
    records_before: int = 0,
) -> Iterator[Record]:
    """Turn rows into records; the language of a row counts before that of its file.

    Args:
        rows: column name -> value.
        source: what messages call the file.
        stem: what ids begin with where rows have none.
        language: code of the file's language, if known.
        text_column: where the text is; None looks for the usual names.
        labels: which languages are taken; a row in another one is not looked at further.
        records_before: what the first row follows in its file.

    Raises:
        UsageError: no such column, a value of the wrong kind, or no language.
    """
    column = text_column
    for number, row in enumerate(rows, start=1 + records_before):
        where = f"Record {number} of {source}"
        label = language_of(row, where) or language
        if label is None:
            raise UsageError(
                f"{where} does not say which language it is in; add a 'language' to each record, name the file by its "
                f"language, or give a mapping such as {{'el': '{source}'}}."
            )
        code = labels.code(label, where)
        if code is None:
            continue
        text, column = _text_and_column(row, text_column, column, source, where)
        name, split = id_of(row, where) or f"{stem}-{number}", _first(row, ("split",), where)
        yield Record(text or "", code, name, split, source, is_null=text is None)


def _usual_column(row: Row, source: str) -> str:
    """Return the first of the usual columns that holds text, else the first that holds anything, else the first."""
    there = [name for name in TEXT_COLUMNS if name in row]
    if not there:
        divided = [sign for sign in (";", "\t", "|") if len(row) == 1 and sign in next(iter(row))]
        hint = f" Its columns seem to be divided by {divided[0]!r}; divide them by commas." if divided else ""
        raise UsageError(
            f"{source} has no column called {', '.join(TEXT_COLUMNS)}; it has {_names(row)}. Name it with "
            f"text_column=...{hint}"
        )
    full = [name for name in there if not is_missing(row[name])]
    return next((name for name in full if isinstance(row[name], str)), (full or there)[0])


def read_text(row: Row, text_column: str | None, source: str, where: str) -> str | None:
    """Return a record's text, None where it has none.

    Raises:
        UsageError: no such column, or something that is no text.
    """
    return _text_and_column(row, text_column, text_column, source, where)[0]


def _text_and_column(
    row: Row, given: str | None, last: str | None, source: str, where: str
) -> tuple[str | None, str | None]:
    """Return a record's text and its column: the one given, else the last record's, else a usual one that has text."""
    column = given or last
    if column is None or (given is None and is_missing(row.get(column))):
        column = _usual_column(row, source)
    if column not in row:
        raise UsageError(f"{where} has no column {column!r}; it has {_names(row)}.{did_you_mean(column, row)}")
    value = row[column]
    return None if is_missing(value) else _checked(value, column, where), column


def id_of(row: Row, where: str) -> str | None:
    """Return a record's id, None where it has none; a whole number is one.

    Raises:
        UsageError: something that is neither text nor a whole number.
    """
    value = row.get("id")
    if not isinstance(value, str | bool) and isinstance(value, numbers.Integral):
        return str(value)
    return None if is_missing(value) else _checked(value, "id", where) or None


def language_of(row: Row, where: str) -> str | None:
    """Return what a record says its language is, None where it says nothing."""
    return _first(row, LANGUAGE_COLUMNS, where)


def is_missing(value: Any) -> bool:
    """Tell whether a value stands for none: null, NaN, or what pandas puts in its place."""
    if isinstance(value, str):  # most values are; the other questions take longer
        return False
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _first(row: Row, columns: Sequence[str], where: str) -> str | None:
    """Return the first value in some columns that is there and not empty."""
    for column in columns:
        value = row.get(column)
        text = "" if is_missing(value) else _checked(value, column, where).strip()
        if text:
            return text
    return None


def _checked(value: Any, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(
            f"{where} has {_kind(value)} in the column {column!r} ({_short(value)}); expected text. "
            f"{_advice(value, column)}"
        )
    if (half := find_lone_surrogate(value)) is not None:
        raise UsageError(
            f"{where} has half of a character in the column {column!r}, position {half + 1} (U+{ord(value[half]):04X}):"
            " a pair of escapes was cut in two. Leave that record out, or write it anew from its source."
        )
    return value


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, numbers.Number):
        return "a number"
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes"
    if isinstance(value, Mapping):
        return f"nested columns ({_names(value)})"
    if isinstance(value, Sequence):
        return "a list"
    return f"a value of type {type(value).__name__}"


def _advice(value: Any, column: str) -> str:
    if column in LANGUAGE_COLUMNS:
        return "Write a code such as 'el' in each record."
    if isinstance(value, Mapping):
        return "Write each language as records of its own, with 'text' and 'language'."
    if isinstance(value, bytes | bytearray | memoryview):
        return "Decode it before it is written, with .decode('utf-8')."
    return f"Convert the column {column!r}, or name another one with text_column=..."


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "…"


def _names(row: Row) -> str:
    names = [str(name).encode("utf-8", "backslashreplace").decode() for name in row]
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "") or "none"
