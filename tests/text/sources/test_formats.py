"""Files are read to their end whatever packs them, or refused by name and place."""

import bz2
import csv
import gzip
import json
import lzma
import re

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpr_lab.errors import DamagedError, LprError, MissingError, UsageError
from lpr_lab.text.load import load_corpus
from lpr_lab.text.sources.formats import cut_json_lines, cut_parquet, read_paragraphs, read_rows

PACK = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}
ROWS = [{"text": f'Κείμενο {i}, «γραμμή»,\n\tδύο "τρία" {"α" * i}', "id": f"n{i}"} for i in range(40)]


def encode(ending: str, rows) -> bytes:
    if ending == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if ending == ".json":
        return json.dumps(rows, ensure_ascii=False, indent=1).encode()
    if ending == ".parquet":
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, row_group_size=10)
        return sink.getvalue().to_pybytes()
    import io

    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["text", "id"], delimiter="," if ending == ".csv" else "\t")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_in_every_packing_gives_the_same_rows(tmp_path, ending, packing):
    path = tmp_path / f"el{ending}{packing}"
    path.write_bytes(PACK[packing](encode(ending, ROWS)))
    assert list(read_rows(path)) == ROWS
    path = path.rename(tmp_path / f"EL{ending.upper()}{packing.upper()}")
    assert list(read_rows(path)) == ROWS


@pytest.mark.parametrize("packing", PACK)
def test_text_in_every_packing_gives_the_same_paragraphs_and_ids(tmp_path, packing):
    path = tmp_path / f"el.txt{packing}"
    path.write_bytes(PACK[packing]("\ufeffένα\r\nδύο\r\n\r\nτρία\n \nτέσσερα".encode()))
    assert [*read_paragraphs(path)] == ["ένα\nδύο", "τρία", "τέσσερα"]
    corpus = load_corpus(path)
    assert {d.id for split in corpus.splits for d in corpus.documents(split)} == {"el-1", "el-2", "el-3"}


def test_packed_pieces_one_after_another_are_one_file(tmp_path):
    halves = encode(".jsonl", ROWS[:20]), encode(".jsonl", ROWS[20:])
    for packing in (".gz", ".bz2", ".xz", ".zst"):
        path = tmp_path / f"el.jsonl{packing}"
        path.write_bytes(b"".join(PACK[packing](half) for half in halves))
        assert list(read_rows(path)) == ROWS


@pytest.mark.parametrize("packing", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("ending", [".jsonl", ".txt", ".csv", ".parquet"])
@pytest.mark.parametrize("damage", ["cut", "not packed"])
def test_a_packing_that_breaks_off_or_is_none_is_named(tmp_path, ending, packing, damage):
    data = "\n\n".join(row["text"] for row in ROWS).encode() if ending == ".txt" else encode(ending, ROWS)
    path = tmp_path / f"el{ending}{packing}"
    path.write_bytes(PACK[packing](data)[:-9] if damage == "cut" else data)
    with pytest.raises(DamagedError, match=rf"el\{ending}\{packing}") as caught:
        load_corpus(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "packing", ["", ".gz", *(pytest.param(name, marks=pytest.mark.slow) for name in list(PACK)[2:])]
)
@pytest.mark.parametrize("ending", [".jsonl", ".txt", ".csv", ".json"])
def test_a_bad_byte_far_into_a_large_file_is_counted_from_its_beginning(tmp_path, ending, packing):
    rows = [{"text": f"Κείμενο {i} {'α' * 50}", "id": str(i)} for i in range(4_000)]
    data = "\n".join(row["text"] for row in rows).encode() if ending == ".txt" else encode(ending, rows)
    place = data.index("Κείμενο 3321 ".encode()) + len("Κείμενο 3321 ".encode()) + 1
    assert place > 300_000
    path = tmp_path / f"el{ending}{packing}"
    path.write_bytes(PACK[packing](data[:place] + b"\xff" + data[place:]))
    with pytest.raises(UsageError, match=r"not UTF-8") as caught:
        load_corpus(path)
    # The byte before is the first half of a letter, which is where decoding stops.
    assert f"byte {place - 1}" in str(caught.value)


@pytest.mark.parametrize("ending", [".jsonl", ".txt", ".csv", ".json", ".tsv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_utf_16_is_called_so(tmp_path, ending, encoding):
    text = encode(ending, ROWS).decode() if ending != ".txt" else "text"
    path = tmp_path / f"el{ending}"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UsageError, match=r"el\.\w+ ") as caught:
        load_corpus(path)
    assert encoding in ("utf-16-be", "utf-16-le") or "UTF-16" in str(caught.value)


@pytest.mark.parametrize("size", [3, 6])
def test_a_parquet_file_damaged_inside_is_named(tmp_path, size):
    path = tmp_path / "el.parquet"
    rows = [{"text": f"{i} " + "αβγδ" * 200, "language": "el"} for i in range(400)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=100, compression="snappy")
    data = bytearray(path.read_bytes())
    at = len(data) * size // 8
    data[at : at + 400] = b"\xff" * 400
    path.write_bytes(data)
    with pytest.raises(LprError, match=r"el\.parquet") as caught:
        load_corpus(path)
    assert isinstance(caught.value, DamagedError | UsageError)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps({"data": ROWS}),
        json.dumps({"version": "1.0", "tags": ["a", "b"], "rows": ROWS}),
        "".join(json.dumps(row) + "\n" for row in ROWS),
    ],
    ids=["array", "data", "rows among others", "lines"],
)
def test_a_json_file_is_an_array_an_object_with_one_list_or_lines(tmp_path, content):
    path = tmp_path / "el.json"
    path.write_text(content)
    assert list(read_rows(path)) == ROWS


def test_a_json_object_with_text_is_one_record(tmp_path):
    path = tmp_path / "el.json"
    path.write_text(json.dumps({"text": "ένα", "tags": [{"a": 1}]}))
    assert [row["text"] for row in read_rows(path)] == ["ένα"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1}', "no list of records"),
        ('{"train": [{"text": "a"}], "dev": [{"text": "b"}]}', "no list of records"),
        ('"text"', "no list of records"),
        ('[{"text": "a"}, "b"]', r"Record 2 .*el\.json .*no JSON"),
        ('[{"text": "a"},\n {"text": ]', "line 2, column 11"),
        ('[{"text": "a"', "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_that_holds_no_records_is_refused(tmp_path, content, words):
    path = tmp_path / "el.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        list(read_rows(path))


@pytest.mark.parametrize("line", ['{"text": "a"', '["a"]', '{"text": "a"} {"text": "b"}', "[" * 100_000, "9" * 5_000])
def test_a_bad_line_is_named_by_its_number(tmp_path, line):
    path = tmp_path / "el.jsonl"
    path.write_text('{"text": "a"}\n\n' + line + "\n")
    with pytest.raises(UsageError, match="line 3"):
        list(read_rows(path))


# ----------------------------------------------------------------------------------------------------------- CSV


def test_csv_of_spreadsheets_is_read(tmp_path):
    path = tmp_path / "el.csv"
    path.write_bytes('\ufefftext, language\r\n"ένα, δύο\r\nτρία",el\r\n\r\n"είπε ""ναι""",el\r\n'.encode())
    assert list(read_rows(path)) == [
        {"text": "ένα, δύο\r\nτρία", "language": "el"},
        {"text": 'είπε "ναι"', "language": "el"},
    ]


def test_a_value_longer_than_the_usual_limit_is_read_and_the_limit_stays(tmp_path):
    before = csv.field_size_limit()
    path = tmp_path / "el.csv"
    path.write_text("text\n" + "α" * 300_000 + "\n", encoding="utf-8")
    assert [len(row["text"]) for row in read_rows(path)] == [300_000]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,language\nένα,el\nδύο\n", r"Record 2 .*el\.csv \(line 3\) .*1 of 2 columns"),
        ("text,language\nένα, δύο,el\n", r"Record 1 .* has 3 of 2 columns"),
        ('text\n"ένα\nδύο\n', r"line 3 \(unexpected end of data\)"),
        ('text\n"ένα" δύο\n', "line 2"),
        ("text,text\nένα,δύο\n", "'text' more than once"),
        ("text\nέ\0να\n", r"byte 7 is NUL"),
    ],
)
def test_csv_that_does_not_add_up_is_refused(tmp_path, content, words):
    path = tmp_path / "el.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        list(read_rows(path))


def test_other_dividing_signs_are_recognised(tmp_path):
    path = tmp_path / "el.csv"
    path.write_text("text;language\nένα;el\n", encoding="utf-8")
    with pytest.raises(UsageError, match="divided by ';'"):
        load_corpus(path, languages=["el"])


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), max_size=8), ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".json"]))
def test_what_was_written_is_read(tmp_path_factory, rows, ending):
    path = tmp_path_factory.mktemp("any") / f"el{ending}"
    wanted = [{"text": text, "id": name} for text, name in rows]
    path.write_bytes(encode(ending, wanted))
    assert list(read_rows(path)) == wanted


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=200), ending=st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt"]))
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path_factory, data, ending):
    path = tmp_path_factory.mktemp("any") / f"el{ending}"
    path.write_bytes(data)
    with pytest.raises((UsageError, MissingError)) as caught:  # so little text cannot be divided
        load_corpus(path, languages=["el"])
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / "el.jsonl"
    path.write_text("{}")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(MissingError, match=r"el\.jsonl may not"):
        list(read_rows(path))


@given(content=st.text(alphabet="aβ \t\n\r\x0b\u00a0\u2028", max_size=40))
def test_paragraphs_read_line_by_line_are_those_of_the_whole_text(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("paragraphs") / "el.txt"
    path.write_bytes(content.encode())
    whole = content.replace("\r\n", "\n").replace("\r", "\n")
    assert [*read_paragraphs(path)] == re.split(r"\n\s*\n", whole)


@given(
    lines=st.lists(
        st.sampled_from(['{"text": "ένα"}', '{"text": 1}\r{"text": 2}', "", " ", "\u00a0", "\r"]), max_size=9
    ),
    piece_bytes=st.integers(1, 60),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_pieces_of_json_lines_together_are_the_file_and_know_their_places(tmp_path_factory, lines, piece_bytes, ends):
    path = tmp_path_factory.mktemp("pieces") / "el.jsonl"
    path.write_bytes("\ufeff".encode() + ends.join(lines).encode())
    pieces = cut_json_lines(path, piece_bytes, lambda line: None)
    rows = [list(read_rows(path, piece=piece)) for piece in pieces]
    assert [row for part in rows for row in part] == list(read_rows(path))
    assert [piece.records_before for piece in pieces] == [sum(map(len, rows[:i])) for i in range(len(rows))]
    assert sum(piece.size for piece in pieces) == path.stat().st_size


@pytest.mark.parametrize("piece_bytes", [1, 600, 10**9])
def test_pieces_of_parquet_together_are_the_file(tmp_path, piece_bytes):
    path = tmp_path / "el.parquet"
    path.write_bytes(encode(".parquet", ROWS))
    pieces = cut_parquet(path, piece_bytes)
    rows = [list(read_rows(path, piece=piece)) for piece in pieces]
    assert [row for part in rows for row in part] == ROWS
    assert [piece.records_before for piece in pieces] == [sum(map(len, rows[:i])) for i in range(len(rows))]


def test_what_is_wrong_in_a_piece_is_said_with_its_place_in_the_file(tmp_path):
    path = tmp_path / "el.jsonl"
    path.write_text('{"text": "ένα"}\n' * 9 + "no JSON\n", encoding="utf-8")
    last = cut_json_lines(path, 40, lambda line: None)[-1]
    with pytest.raises(UsageError, match="line 10"):
        list(read_rows(path, piece=last))
