"""What a corpus answers, whatever it was made from."""

import hashlib
import itertools
import json

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Corpus, Document, comparable_splits, describe_documents, main_split
from lpr_lab.text.load import load_corpus


def corpus(**texts: list[str]) -> Corpus:
    """`train_el=["..."]` -> a corpus."""
    documents = {
        tuple(key.split("_")): tuple(
            Document(f"{key}{i}", key.split("_")[1], text, "here") for i, text in enumerate(lines)
        )
        for key, lines in texts.items()
    }
    languages = tuple(dict.fromkeys(code for _, code in documents))
    return Corpus("toy", languages, {(split, code): value for (split, code), value in documents.items()})


def test_documents_come_by_split_and_language_in_the_order_asked_for():
    toy = corpus(train_el=["ένα", "δύο"], train_en=["one"], dev_en=["two"])
    assert [document.text for document in toy.documents("train")] == ["ένα", "δύο", "one"]
    assert [document.text for document in toy.documents("train", "en")] == ["one"]
    assert toy.documents("dev", "el") == ()
    assert toy.splits == ("train", "dev")


def test_a_split_without_text_in_one_language_is_no_test_set_while_another_has_all():
    partial = corpus(train_el=["a"], dev_el=["b"], heldout_en=["c"], dev_en=["d"])
    assert comparable_splits(partial, ("heldout", "dev"), ["el", "en"]) == ["dev"]
    assert comparable_splits(partial, ("heldout", "dev"), ["en"]) == ["heldout", "dev"]
    assert comparable_splits(partial, ("heldout",), ["el", "en"]) == ["heldout"]
    assert main_split(partial, ["el", "en"]) == "dev" and main_split(partial, ["en"]) == "heldout"
    with pytest.raises(UsageError, match="neither"):
        main_split(corpus(train_el=["a"]), ["el"])


def test_an_unknown_split_or_language_is_named_with_what_there_is():
    toy = corpus(train_el=["ένα"])
    with pytest.raises(UsageError, match=r"split = 'trian'.* mean 'train'"):
        toy.documents("trian")
    with pytest.raises(UsageError, match=r"language 'hu'.* el\b"):
        toy.documents("train", "hu")


def test_the_fingerprint_follows_content_split_and_language_and_nothing_else():
    one = corpus(train_el=["a"], dev_el=["b"])
    same = Corpus("other name", ("el",), one.texts, sources=[{"package": "x"}])
    assert one.fingerprint() == same.fingerprint()
    others = [
        corpus(train_el=["a"], dev_el=["c"]),
        corpus(train_el=["b"], dev_el=["a"]),
        corpus(train_en=["a"], dev_en=["b"]),
    ]
    assert len({one.fingerprint(), *(other.fingerprint() for other in others)}) == 4


def test_the_manifest_is_plain_json():
    manifest = corpus(train_el=["ένα", "δύο"]).manifest
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["texts"]["el"]["train"]["n_documents"] == 2
    assert manifest["texts"]["el"]["train"]["characters"] == 6


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("dmeo", "mean 'demo'"),
        ("", "no corpus.* 'demo'"),
        ("two words", "no corpus.* 'demo'"),
        ([], "No file was given"),
    ],
)
def test_a_source_that_cannot_be_one_is_refused_with_what_was_meant(source, words):
    with pytest.raises(UsageError, match=words):
        load_corpus(source, languages=["el"])


@pytest.mark.parametrize(
    ("languages", "words"), [(["xx"], "Unknown language code 'xx'"), ([], "No language was given")]
)
def test_unknown_or_no_languages_are_refused(languages, words):
    with pytest.raises(UsageError, match=words):
        load_corpus("demo", languages=languages)


def write(folder, name: str, word: str) -> None:
    letters = ["".join(pair) for pair in itertools.product("abcdefgh", repeat=2)]
    texts = "\n\n".join(f"{word} {pair * 4} and {pair} nothing {pair} that was said before it." for pair in letters)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(texts, encoding="utf-8")


def test_text_files_named_by_their_language_need_nothing_else(tmp_path):
    for name in ("el.txt", "news.hu.txt", "swh_Latn/tales.txt"):
        write(tmp_path, name, name)
    assert load_corpus(tmp_path).languages == ("el", "hu", "sw")
    assert load_corpus(str(tmp_path / "news.hu.txt")).languages == ("hu",)


def test_a_file_that_is_not_named_by_a_language_is_still_refused(tmp_path):
    write(tmp_path, "notes.txt", "x")
    with pytest.raises(UsageError, match=r"notes\.txt.* language.* 'el\.txt'"):
        load_corpus(tmp_path)


def test_a_language_comes_from_the_first_of_several_sources_that_has_it(tmp_path):
    write(tmp_path / "one", "el.txt", "first")
    write(tmp_path / "two", "el.txt", "second")
    write(tmp_path / "two", "tr.txt", "third")
    joint = load_corpus(f"{tmp_path / 'one'} + {tmp_path / 'two'}", languages=["tr", "el"])
    assert joint.languages == ("tr", "el")
    assert {document.text.split()[0] for document in joint.documents("train")} == {"first", "third"}
    assert sorted(source["file"] for source in joint.sources) == ["el.txt", "el.txt", "tr.txt"]
    with pytest.raises(UsageError, match="has no text in hu"):
        load_corpus(f"{tmp_path / 'one'} + {tmp_path / 'two'}", languages=["hu"])


def test_documents_are_given_by_any_label_of_their_language(tmp_path):
    (tmp_path / "nb.txt").write_text("\n\n".join(f"Katten sover på {'a' * i} den varme benken." for i in range(1, 30)))
    corpus = load_corpus(tmp_path, languages=["no"])
    assert corpus.languages == ("nb",)
    assert corpus.documents("train", "nb-NO") == corpus.documents("train", "no") == corpus.documents("train", "nb")
    with pytest.raises(UsageError, match="no language 'da'"):
        corpus.documents("train", "da")


def test_what_is_hashed_of_a_document_is_its_json():
    # Pinned: another spelling would give every corpus of before another fingerprint.
    documents = [Document("a\n\u2028", "el", 'ένα "δύο" \x7f\\ 🙂', "here"), Document("b", "el", "τρία", "here")]
    written = "".join(json.dumps([document.id, document.text]) for document in documents)
    assert describe_documents(documents)["sha256"] == hashlib.sha256(written.encode()).hexdigest()
