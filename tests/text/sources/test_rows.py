"""A value that is no text never becomes one: type x column x format."""

import csv
import io
import json
import warnings

import datasets
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpr_lab.errors import UsageError
from lpr_lab.text.load import load_corpus
from lpr_lab.text.sources.rows import is_missing

GOOD = [f"Κείμενο {'α' * i}, που γράφτηκε εδώ με το χέρι." for i in range(1, 41)]
FORMATS = ("jsonl", "json", "parquet", "csv", "tsv", "hub")

NULLS = {"null": None, "nan": float("nan")}
WRONG = {
    "number": 7.5,
    "true": True,
    "bytes": b"\xce\xb1",
    "list": ["α", "β"],
    "translation": {"el": "γεια", "en": "hello"},
}
"""No text, no id, no language, no split, whatever the format can carry of them."""


def rows_with(column: str, value, place: int = 17) -> list[dict]:
    rows = [{"text": text, "language": "el", "id": f"n{i}"} for i, text in enumerate(GOOD, start=1)]
    rows[place - 1] = {**rows[place - 1], column: value}
    return rows


TYPED = [
    (kind, name)
    for kind in ("jsonl", "json", "parquet", "hub")  # CSV has text only
    for name in WRONG
    if not (kind in ("json", "jsonl") and name == "bytes")
]


def load(tmp_path, monkeypatch, kind: str, rows: list[dict], **options):
    path = tmp_path / f"a.{kind}"
    if kind == "hub":
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter(rows))
        monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["default"])
        return load_corpus("org/name", languages=["el"], **options)
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        columns = {name: [row.get(name) for row in rows] for name in rows[0]}
        types = {name: [type(v) for v in values if v is not None] for name, values in columns.items()}
        mixed = {name for name, kinds in types.items() if len(set(kinds)) > 1}
        wrong = {name: next(v for v in columns[name] if v is not None and not isinstance(v, str)) for name in mixed}
        columns = {name: [wrong[name]] * len(rows) if name in mixed else values for name, values in columns.items()}
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(rows[0]), delimiter="," if kind == "csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(buffer.getvalue(), encoding="utf-8")
    return load_corpus(path, languages=["el"], **options)


def texts_of(corpus) -> list[str]:
    return sorted(document.text for split in corpus.splits for document in corpus.documents(split))


@pytest.mark.parametrize(("kind", "name"), TYPED)
@pytest.mark.parametrize("column", ["text", "language", "id"])
def test_a_value_of_another_type_is_refused_with_record_and_column(tmp_path, monkeypatch, kind, column, name):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, monkeypatch, kind, rows_with(column, WRONG[name]))
    record = 1 if kind == "parquet" else 17  # a Parquet column is of one type, so it is wrong as a whole
    assert f"Record {record} of " in str(caught.value) and repr(column) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"), [("parquet", "null"), *((kind, name) for kind in ("jsonl", "json", "hub") for name in NULLS)]
)
def test_null_text_is_left_out_counted_and_warned_of(tmp_path, monkeypatch, kind, name):
    with pytest.warns(UserWarning, match=r"1 record.*'el'.*null"):
        corpus = load(tmp_path, monkeypatch, kind, rows_with("text", NULLS[name]))
    assert texts_of(corpus) == sorted(text for i, text in enumerate(GOOD, start=1) if i != 17)
    assert corpus.manifest["left_out"] == [{"name": "1 record(s) in 'el'", "reason": "without text (null)"}]
    if kind != "hub":
        assert corpus.manifest["preparation"]["el"]["null_records_left_out"] == 1
        assert corpus.manifest["preparation"]["el"]["empty_records_left_out"] == 0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((kind, value) for kind in FORMATS for value in (None, "")),
        *((kind, NULLS["nan"]) for kind in ("jsonl", "json", "hub")),
    ],
)
@pytest.mark.parametrize("column", ["id", "language"])
def test_a_missing_id_or_language_is_as_if_it_were_not_there(tmp_path, monkeypatch, kind, column, value):
    corpus = load(tmp_path, monkeypatch, kind, rows_with(column, value))
    expected = GOOD if (kind, column) != ("hub", "language") else [text for i, text in enumerate(GOOD, 1) if i != 17]
    assert texts_of(corpus) == sorted(expected)  # a hub data set with a language column says nothing of such a record
    if column == "id":
        ids = {document.id for split in corpus.splits for document in corpus.documents(split)}
        assert not ids & {"None", "nan", ""} and len(ids) == 40
    assert "left_out" not in corpus.manifest


def test_language_zero_is_no_language(tmp_path, monkeypatch):
    for kind in ("jsonl", "json", "parquet", "hub"):
        with pytest.raises(UsageError, match=r"number .*'language' \(0\)"):
            load(tmp_path, monkeypatch, kind, [{"text": text, "language": 0} for text in GOOD])


def test_whole_numbers_are_ids(tmp_path, monkeypatch):
    for kind in FORMATS:
        rows = [{"text": text, "id": i, "language": "el"} for i, text in enumerate(GOOD)]
        corpus = load(tmp_path, monkeypatch, kind, rows, max_documents=41)
        assert {d.id for split in corpus.splits for d in corpus.documents(split)} == {str(i) for i in range(40)}


def test_a_number_among_csv_is_text_like_any_other(tmp_path, monkeypatch):
    assert "7.5" in texts_of(load(tmp_path, monkeypatch, "csv", rows_with("text", 7.5)))


def test_a_nested_column_is_named_with_its_parts(tmp_path, monkeypatch):
    rows = [{"translation": {"el": text, "en": "hello"}} for text in GOOD]
    for kind in ("jsonl", "json", "parquet", "hub"):
        with pytest.raises(UsageError, match=r"Record 1 .*nested .*\(el, en\) .*'translation'"):
            load(tmp_path, monkeypatch, kind, rows, text_column="translation")


@pytest.mark.parametrize("source", [pd.DataFrame({"text": GOOD}), datasets.Dataset.from_dict({"text": GOOD}), 7, b"a"])
def test_data_in_memory_is_refused_with_what_to_do(source):
    with pytest.raises(UsageError, match=rf"{type(source).__name__}.*to a file"):
        load_corpus(source, languages=["el"])


# ------------------------------------------------------------------------------------------------- which language

LABELLED = [{"text": text, "language": "el"} for text in GOOD]


def test_rows_in_languages_that_nobody_asked_for_are_not_looked_at(tmp_path, monkeypatch):
    others = [
        {"text": 5, "language": "fr"},
        {"text": None, "language": "en"},
        {"text": {"a": 1}, "language": "zxx-Qaaa"},
    ]
    for kind in ("jsonl", "json"):
        with pytest.warns(UserWarning, match=r"'zxx-Qaaa'.*names no language"):
            corpus = load(tmp_path, monkeypatch, kind, [*LABELLED, *others])
        assert texts_of(corpus) == sorted(GOOD)
        assert corpus.manifest["left_out"] == [
            {"name": "1 record(s) in 'zxx-Qaaa'", "reason": "a label that names no language"}
        ]


def test_a_label_that_may_mean_the_language_asked_for_is_not_left_out_without_a_question(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"Record 41 .*'Greek'.* mean 'el'"):
        load(tmp_path, monkeypatch, "jsonl", [*LABELLED, {"text": "και άλλο", "language": "Greek"}])


def test_two_labels_of_one_language_are_one_language_and_both_are_recorded(tmp_path):
    path = tmp_path / "a.jsonl"
    labels = ["pt-BR", "pt", "por_Latn", "pt_PT"]
    path.write_text("".join(json.dumps({"text": t, "language": labels[i % 4]}) + "\n" for i, t in enumerate(GOOD)))
    corpus = load_corpus(path)
    assert corpus.languages == ("pt",) and texts_of(corpus) == sorted(GOOD)
    assert corpus.manifest["preparation"]["pt"]["labels"] == dict.fromkeys(sorted(labels), 10)
    path.write_text("".join(json.dumps({"text": t, "language": "pt-BR"}) + "\n" for t in GOOD))
    assert "labels" not in load_corpus(path).manifest["preparation"]["pt"]


def test_a_language_in_two_scripts_is_two_languages(tmp_path):
    path = tmp_path / "a.jsonl"
    labels = ["sr", "sr-Latn"]
    path.write_text("".join(json.dumps({"text": t, "language": labels[i % 2]}) + "\n" for i, t in enumerate(GOOD)))
    assert load_corpus(path).languages == ("sr", "srp_Latn")
    assert load_corpus(path, languages=["sr-Latn"]).languages == ("srp_Latn",)


# ------------------------------------------------------------------------------------------- half of a character


@pytest.mark.parametrize(
    ("kind", "column"),
    [(kind, column) for kind in ("jsonl", "json") for column in ("text", "language", "id", "split")]
    + [("hub", column) for column in ("text", "language", "id")],  # a hub data set's own splits are not read
)
def test_half_a_surrogate_pair_is_refused_with_its_record_and_place(tmp_path, monkeypatch, kind, column):
    with pytest.raises(UsageError, match=rf"Record 17 .*'{column}', position 3 \(U\+D83D\)") as caught:
        load(tmp_path, monkeypatch, kind, rows_with(column, "αβ\ud83d και άλλα"))
    str(caught.value).encode()  # the message itself can be printed


# ------------------------------------------------------------------------------------------------------ any value

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(value=values, column=st.sampled_from(["text", "language", "id", "split"]), number=st.integers(1, 40))
def test_any_json_value_is_text_or_missing_or_refused_by_name(tmp_path_factory, value, column, number):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    rows = [{"text": text, "language": "el"} for text in GOOD]
    rows[number - 1][column] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            corpus = load_corpus(path, languages=["el"])
        except UsageError as error:
            refused = str(error)
        else:
            refused = ""
    if refused:
        assert not is_missing(value)
        assert f"Record {number} of a.jsonl" in refused or column == "split"
        return
    found = texts_of(corpus)
    own = value if column == "text" else GOOD[number - 1]
    if is_missing(value) and column == "text":
        assert len(found) == 39
    elif isinstance(own, str) and own.strip() and "\n" not in own and "\r" not in own and len(own.split()) > 1:
        assert set(found) <= {*GOOD, own, own.strip()}
    assert not any(text in ("None", "nan", "True", "False") for text in found)
