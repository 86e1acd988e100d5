"""Corpora from the user's own files."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from lpr_lab.errors import MissingError, UsageError
from lpr_lab.text.load import load_corpus
from lpr_lab.text.splits import DEALT


def texts(language: str, count: int = 40) -> list[str]:
    """So many different documents of two paragraphs."""
    word = {"en": "boat", "el": "βάρκα", "tr": "kayık"}[language]
    return [
        f"{word} {chr(97 + i % 26) * (3 + i // 26)} on the first line\n{word} number {'i' * i}." for i in range(count)
    ]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def jsonl(tmp_path):
    rows = [{"text": text, "language": code} for code in ("en", "el") for text in texts(code)]
    return write_jsonl(tmp_path / "mixed.jsonl", rows)


def everything(corpus, language):
    return [d for split in corpus.splits for d in corpus.documents(split, language)]


def test_jsonl_is_divided_by_content_and_nothing_is_lost(jsonl):
    corpus = load_corpus(jsonl)
    assert corpus.languages == ("el", "en")
    assert corpus.splits == DEALT
    assert sorted(d.text for d in everything(corpus, "el")) == sorted(texts("el"))
    assert {d.language for d in corpus.documents("dev", "el")} == {"el"}
    assert corpus.manifest["sources"][0]["file"] == "mixed.jsonl"


def test_the_order_of_records_does_not_change_the_split(jsonl, tmp_path):
    lines = jsonl.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "reversed.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    one, other = load_corpus(jsonl), load_corpus(str(tmp_path / "reversed.jsonl"))
    for split in DEALT:
        assert {d.text for d in one.documents(split)} == {d.text for d in other.documents(split)}


def test_languages_choose_and_flores_codes_are_understood(tmp_path):
    rows = [{"text": text, "lang": code} for code, name in (("ell_Grek", "el"), ("en", "en")) for text in texts(name)]
    corpus = load_corpus(write_jsonl(tmp_path / "a.jsonl", rows), languages=["el"])
    assert corpus.languages == ("el",)
    assert len(everything(corpus, "el")) == 40


def test_ids_and_splits_of_the_records_are_kept(tmp_path):
    splits = ["train", "replay", "dev", "heldout"]
    rows = [{"text": text, "id": f"n{i}", "split": splits[i % 4]} for i, text in enumerate(texts("tr"))]
    corpus = load_corpus(write_jsonl(tmp_path / "a.jsonl", rows), languages=["tr"])
    assert corpus.splits == tuple(splits)
    assert [d.id for d in corpus.documents("heldout")] == [f"n{i}" for i in range(40) if i % 4 == 3]


def test_dev_loses_the_paragraphs_of_train_and_train_stays_whole(tmp_path):
    shared = "this very paragraph is quoted in many of the documents that we have here today and tomorrow"
    rows = [{"text": f"{shared}\n{text}", "split": "train"} for text in texts("en", 5)]
    rows += [{"text": f"{shared}\nA line that only dev has, number {'x' * i}.", "split": "dev"} for i in range(3)]
    rows += [{"text": f"Title\n{shared}", "split": "dev"}]  # nothing of its own is left: it goes
    corpus = load_corpus(write_jsonl(tmp_path / "a.jsonl", rows), languages=["en"])
    assert all(d.text.startswith(shared) for d in corpus.documents("train"))
    assert [d.text for d in corpus.documents("dev")] == [
        f"A line that only dev has, number {'x' * i}." for i in range(3)
    ]
    assert corpus.manifest["preparation"]["en"]["duplicates"]["leakage"]["dev"]["before"]["exact"] > 0.5


def test_repeated_and_empty_documents_are_left_out_and_counted(tmp_path):
    rows = [{"text": text} for text in [*texts("en"), *texts("en")[:5], "", " \n"]]
    corpus = load_corpus(write_jsonl(tmp_path / "a.jsonl", rows), languages=["en"])
    assert len(everything(corpus, "en")) == 40
    report = corpus.manifest["preparation"]["en"]
    assert report["repeated_documents_left_out"] == 5
    assert report["empty_records_left_out"] == 2


def test_a_text_file_per_language_has_a_document_per_paragraph(tmp_path):
    for code in ("el", "tr"):
        (tmp_path / f"{code}.txt").write_text("\n\n".join(texts(code)), encoding="utf-8")
    corpus = load_corpus({"el": tmp_path / "el.txt", "tr": [str(tmp_path / "tr.txt")]}, languages=["tr", "el"])
    assert corpus.languages == ("tr", "el")
    assert sorted(d.text for d in everything(corpus, "tr")) == sorted(texts("tr"))


def test_a_folder_is_all_its_files(tmp_path, jsonl):
    (tmp_path / "deeper").mkdir()
    jsonl.rename(tmp_path / "deeper" / "mixed.jsonl")
    write_jsonl(
        tmp_path / "more.jsonl", [{"text": text.replace("boat", "raft"), "language": "en"} for text in texts("en")]
    )
    corpus = load_corpus(tmp_path)
    assert (len(everything(corpus, "en")), len(everything(corpus, "el"))) == (80, 40)


def test_parquet_is_read_with_the_column_that_is_named(tmp_path):
    table = pyarrow.table({"body": texts("el"), "language": ["el"] * 40})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    corpus = load_corpus(tmp_path / "a.parquet", text_column="body")
    assert len(everything(corpus, "el")) == 40
    with pytest.raises(UsageError, match=r"column .*text.* body, language.*text_column"):
        load_corpus(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"'bodi'.* mean 'body'"):
        load_corpus(tmp_path / "a.parquet", text_column="bodi")


@pytest.mark.parametrize(
    ("rows", "languages", "words"),
    [
        ([{"text": "Only one."}], ["en"], r"1 different document.*at least 3"),
        ([{"text": "Same."}] * 9, ["en"], r"1 different document.*at least 3"),
        ([{"text": ""}, {"text": "  "}], ["en"], r"no text .*en \(2 empty"),
        ([{"text": "x", "language": "zz"}], None, "Unknown language code 'zz'"),
        ([{"text": "x", "language": "en"}], ["el"], "no text .*el; .*found: en"),
        ([{"text": "x"}], None, "which language"),
        ([{"text": "x"}], ["en", "el"], "which language"),
        ([{"words": "x"}], ["en"], "no column called text"),
        ([{"text": "x", "split": "dev"}, {"text": "y"}], ["en"], "split for some"),
        ([{"text": "x", "split": "vali"}], ["en"], "split = 'vali'.* train"),
        ([{"text": "x", "split": "train"}], ["en"], "no dev text left"),
        (["text"], ["en"], "JSON .*line 1"),
    ],
)
def test_bad_records_are_refused_in_one_sentence(tmp_path, rows, languages, words):
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UsageError, match=words) as caught:
        load_corpus(path, languages=languages)
    assert "\n" not in str(caught.value)


def test_bad_files_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(MissingError, match=r"no file .*gone\.jsonl"):
        load_corpus(tmp_path / "gone.jsonl")
    with pytest.raises(MissingError, match=r"has no \.jsonl"):
        load_corpus(tmp_path)
    (tmp_path / "a.docx").write_text("text\nx\n")
    with pytest.raises(UsageError, match=r"a\.docx .*kind"):
        load_corpus(tmp_path / "a.docx", languages=["en"])
    (tmp_path / "torn.jsonl").write_text('{"text": "x", "la')
    with pytest.raises(UsageError, match=r"JSON .*line 1"):
        load_corpus(tmp_path / "torn.jsonl", languages=["en"])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match=r"not UTF-8 text .byte 3"):
        load_corpus(tmp_path / "latin.txt", languages=["en"])
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match="readable Parquet"):
        load_corpus(tmp_path / "a.parquet", languages=["en"])
    (tmp_path / "texts.txt").write_text("x")
    with pytest.raises(UsageError, match="mapping such as"):
        load_corpus(tmp_path / "texts.txt", languages=["el", "en"])
