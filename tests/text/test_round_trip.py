"""What tokens do not spell is counted as lost, whatever the kind of vocabulary; what they spell never is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from helpers.tokenizer_kinds import (
    FAITHFUL,
    LOSING,
    SENTENCES,
    TOKENIZERS,
    byte_level,
    normalised,
    silent,
    with_unknown,
)
from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.round_trip import _missing, check_corpus, measure_lost_text, refuse_lossy_tokenizer

MARKS = {"byte fallback": "▁", "unigram with byte fallback": "▁<", "byte-level with added words": "Ġ"}
"""Signs that a vocabulary reads as its own marks."""


@pytest.mark.parametrize("kind", FAITHFUL)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_a_vocabulary_that_spells_bytes_loses_nothing_of_any_text(kind, text):
    text = "".join(character for character in text if character not in MARKS.get(kind, ""))
    assert measure_lost_text(FAITHFUL[kind](), [text]).lost_bytes == (0,)


CASES = [
    # kind, text, what is lost of it
    ("BPE without unknown", "the γάτα çok 漢字", "çk漢字"),
    ("BPE without unknown", "rain — or — shine", "——"),
    ("BPE without unknown", "漢字", "漢字"),
    ("BPE with unknown", "the γάτα çok 漢字", "çk漢字"),
    ("BPE with fused unknown", "the γάτα çok 漢字", "çk漢字"),
    ("BPE with fused unknown", "漢字漢字漢字漢字", "漢字漢字漢字漢字"),
    ("CharBPE", "The ferry\nleaves", "\n"),
    ("CharBPE", "The ferry leaves", ""),
    ("CharBPE", "The 龍 ferry", "龍 "),  # an unknown letter does not say that its word ends
    ("WordPiece", "The ferry leaves, rain.", ""),
    ("WordPiece", "The  ferry\tleaves", " \t"),
    ("WordPiece", "The ферри leaves", "ферри"),
    ("WordPiece, lower case", "The Ferry", "TF"),
    ("WordPiece, lower case", "niño", "ñ"),
    ("WordPiece without a decoder", "The ferry leaves, rain.", ""),
    ("WordLevel", "The ferry leaves", ""),
    ("WordLevel", "The train leaves", "train"),
    ("unigram with NFKC", "The ﬁerry", "ﬁ"),
    ("byte-level, lower case", "Yağmur Dindi", "YD"),
    ("byte-level without accents", "niño, café", "ñé"),
    ("byte-level with NFKC", "ﬁ ① x²", "ﬁ①²"),
]


@pytest.mark.parametrize(("kind", "text", "lost"), CASES)
def test_what_is_lost_is_found_letter_by_letter(kind, text, lost):
    loss = measure_lost_text(TOKENIZERS[kind](), [text])
    assert "".join(sorted(loss.characters.elements())) == "".join(sorted(lost))
    assert loss.lost_bytes == (len(lost.encode()),)
    assert loss.share == len(lost.encode()) / len(text.encode())


@pytest.mark.parametrize("kind", LOSING)
@settings(max_examples=60, deadline=None)
@given(text=st.one_of(st.text(max_size=40), st.sampled_from(list(SENTENCES.values()))))
def test_nothing_is_lost_exactly_where_decoding_gives_the_text_back(kind, text):
    tokenizer = LOSING[kind]()
    [lost] = measure_lost_text(tokenizer, [text]).lost_bytes
    assert 0 <= lost <= len(text.encode())
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if decoded.strip(" ") == text.strip(" ") and tokenizer.unk_token_id not in ids:
        assert lost <= text.count(" ")
    if "".join(decoded.split()) != "".join(text.split()) and len("".join(decoded.split())) < len("".join(text.split())):
        assert lost > 0


def longest_shared(a: str, b: str) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        row, last = [0], row
        for place, y in enumerate(b):
            row.append(last[place] + 1 if x == y else max(row[-1], last[place + 1]))
    return row[-1]


@settings(max_examples=200, deadline=None)
@given(text=st.text("abcä ", max_size=14), spelled=st.text("abcä ", max_size=14))
def test_no_more_is_called_lost_than_must_be(text, spelled):
    lost = _missing(text, spelled)
    assert len(text) - len(lost) == longest_shared(text, spelled)
    assert longest_shared(lost, text) == len(lost)


def test_canonical_forms_are_one_text():
    tokenizer = byte_level(normalizers.NFC)
    assert measure_lost_text(tokenizer, ["cafe\u0301, Vie\u0323\u0302t Nam", "Å K"]).lost_bytes == (0, 0)
    assert measure_lost_text(normalised(normalizers.NFKC), ["ﬁ"]).lost_bytes == (3,)


def test_special_tokens_written_in_a_text_are_text():
    assert measure_lost_text(byte_level(), ["one<|endoftext|>two"]).lost_bytes == (0,)


def corpus_of(**texts) -> Corpus:
    documents = {
        ("train", code): tuple(Document(f"{code}-{i}", code, text, "test") for i, text in enumerate(rows))
        for code, rows in texts.items()
    }
    return Corpus("test", tuple(texts), documents)


def test_a_great_loss_is_refused_with_language_split_share_and_letters():
    corpus = corpus_of(en=["The ferry leaves."] * 3, tr=["Yağmur dindi, çocuklar bahçeye koştu."] * 3)
    with pytest.raises(UsageError, match=r"loses \d\d\.\d% .*Turkish \(train\) .*'ç'"):
        check_corpus(silent(), corpus)
    with pytest.raises(UsageError, match="Turkish"):
        check_corpus(with_unknown(fuse=True), corpus)


def test_a_small_loss_is_reported_and_none_is_not():
    corpus = corpus_of(en=["The ferry leaves at seven — rain or shine, rain or shine."], el=["Η γάτα κοιμάται."])
    [(where, loss)] = check_corpus(silent(), corpus).items()
    assert where == ("en", "train") and loss.examples == "'—'"
    assert check_corpus(byte_level(), corpus) == {}
    refuse_lossy_tokenizer(loss, "English")
