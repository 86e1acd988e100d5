"""Bytes first: no byte lost, no character broken, whatever the vocabulary."""

import itertools

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from helpers.tokenizer_kinds import (
    FAITHFUL,
    SENTENCES,
    TOKENIZERS,
    byte_level,
    byte_level_with_words,
    char_bpe,
    silent,
    word_piece,
)
from lpr_lab.errors import UsageError
from lpr_lab.text.graphemes import clusters, text_spans, token_bytes
from lpr_lab.text.spelling import byte_alphabet


def pieces_of(tokenizer, text: str) -> list[bytes | None]:
    return token_bytes(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], text)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", SENTENCES)
def test_bytes_joined_are_the_text(kind, name):
    text = SENTENCES[name]
    pieces = pieces_of(TOKENIZERS[kind](), text)
    assert b"".join(piece or b"" for piece in pieces) == text.encode() or (kind not in FAITHFUL and not pieces)


PARTS = [
    "ağaç",
    "café",
    "γάτα",
    "Ġ",
    "▁",
    "##ing",
    "the</w>",
    "<0xE0>",
    "  ",
    "\n",
    "👨‍👩‍👧‍👦",
    "নি",
    "שלום",
    "e\u0301",
    "<unk>",
]
any_text = st.lists(st.one_of(st.text(max_size=12), st.sampled_from(PARTS)), max_size=8).map("".join)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=40, deadline=None)
@given(text=any_text)
def test_bytes_joined_are_any_text(text, kind):
    pieces = pieces_of(TOKENIZERS[kind](), text)
    if not pieces:  # nothing of it is known, so there is nothing to draw
        assert kind not in FAITHFUL or not text
        return
    assert b"".join(piece or b"" for piece in pieces) == text.encode()
    assert "".join(span.text for span in text_spans(pieces)) == text


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", SENTENCES)
def test_tokens_alone_say_what_the_tokenizer_itself_would_say(kind, name):
    """Without the text, as in a generation: no mark of a vocabulary is shown as text."""
    tokenizer, text = TOKENIZERS[kind](), SENTENCES[name]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    joined = b"".join(piece or b"" for piece in token_bytes(tokenizer, ids)).decode(errors="replace")
    if kind in FAITHFUL:
        # What a vocabulary uses as a mark cannot be told from it in a text.
        marks = {"byte fallback": "▁", "byte-level with added words": "Ġ", "unigram with byte fallback": "▁"}
        spoken = text.replace(marks.get(kind, " "), " ")
        if kind == "unigram with byte fallback":
            spoken, joined = spoken.removesuffix("<0xE0>"), joined.removesuffix("\ufffd")
        assert joined.removeprefix(" ") == spoken
        return
    decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert " ".join(joined.split()) == " ".join(decoded.split()) or kind == "WordPiece without a decoder"
    unmarked = {"##", "</w>", "▁", "Ġ"} - {mark for mark in ("##", "</w>", "▁", "Ġ") if mark in text}
    assert not [mark for mark in unmarked if mark in joined]


@pytest.mark.parametrize("word", ["ağaç", "café", "γάτα", "  "])
def test_an_added_word_is_its_own_text(word):
    tokenizer = byte_level_with_words()
    [added] = [id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.content == word]
    assert token_bytes(tokenizer, [added]) == [word.encode()]
    ids = tokenizer(f"bir {word} var", add_special_tokens=False)["input_ids"]
    assert added in ids
    assert b"".join(piece or b"" for piece in token_bytes(tokenizer, ids)).decode() == f"bir {word} var"


def test_a_vocabulary_s_own_entry_that_is_also_added_follows_the_vocabulary():
    tokenizer = byte_level_with_words()
    assert token_bytes(tokenizer, [tokenizer.convert_tokens_to_ids("Ġ")]) == [b" "]


def test_words_added_after_the_first_look_are_seen():
    tokenizer = byte_level.__wrapped__()
    assert token_bytes(tokenizer, [0]) == [None]
    tokenizer.add_tokens(["ağaç"])
    assert token_bytes(tokenizer, [len(tokenizer) - 1]) == ["ağaç".encode()]


def test_each_token_keeps_its_own_letters_where_others_vanish():
    pieces = pieces_of(silent(), "the — ferry 漢!")
    assert [piece.decode() for piece in pieces if piece] == ["the", " ", "— ", *"ferry", " 漢!"]


@pytest.mark.parametrize("make", [char_bpe, word_piece])
def test_words_are_set_apart_and_their_pieces_are_not(make):
    tokenizer = make()
    ids = tokenizer("The ferry leaves", add_special_tokens=False)["input_ids"]
    assert len(ids) > 3
    assert b"".join(piece or b"" for piece in token_bytes(tokenizer, ids)).decode().strip() == "The ferry leaves"


def test_the_byte_alphabet_is_the_one_of_the_tokenizers():
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_special_tokens_have_no_bytes_unless_they_were_written():
    tokenizer = byte_level()
    ids = [tokenizer.eos_token_id, *tokenizer("Hello")["input_ids"]]
    assert token_bytes(tokenizer, ids, "Hello")[0] is None
    written = "one<|endoftext|>two"
    assert b"".join(pieces_of(tokenizer, written)) == written.encode()  # type: ignore[arg-type]


def test_tokens_of_another_text_are_refused():
    tokenizer = byte_level()
    with pytest.raises(UsageError, match="tokenizer makes"):
        token_bytes(tokenizer, tokenizer("one")["input_ids"], "two")


def test_half_a_surrogate_pair_is_refused_with_its_place():
    with pytest.raises(UsageError, match=r"position 3 .*U\+D83D"):
        token_bytes(byte_level(), [1], "ab\ud83d")


# ---------------------------------------------------------------------------------------------------- clusters

cut_texts = st.tuples(
    st.one_of(st.text(max_size=30), st.sampled_from(list(SENTENCES.values()))), st.lists(st.integers(0, 200))
)


@settings(max_examples=200, deadline=None)
@given(cut_texts)
def test_clusters_joined_are_the_text_however_its_bytes_are_cut(case):
    text, cuts = case
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces: list[bytes | None] = [data[a:b] for a, b in itertools.pairwise(edges)]
    found = clusters(pieces)
    assert [cluster.text for cluster in found] == regex.findall(r"\X", text)
    drawn = text_spans(pieces)
    assert "".join(span.text for span in drawn) == text
    assert {token for span in drawn for token in span.tokens} == set(range(len(pieces)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=6)), max_size=12))
def test_any_bytes_are_drawn_and_every_token_has_a_place(pieces):
    drawn = text_spans(pieces)
    assert {token for span in drawn for token in span.tokens} == set(range(len(pieces)))
    for span in drawn:
        assert span.kind != "special" or pieces[span.tokens[0]] is None


def test_a_split_emoji_is_drawn_once_and_belongs_to_all_its_tokens():
    family = "👨‍👩‍👧‍👦".encode()
    pieces: list[bytes | None] = [b"a " + family[:3], family[3:10], family[10:], b"!"]
    assert [(span.text, span.tokens) for span in text_spans(pieces)] == [
        ("a ", (0,)),
        ("👨‍👩‍👧‍👦", (0, 1, 2)),
        ("!", (3,)),
    ]


def test_a_vowel_sign_split_from_its_consonant_stays_with_it():
    pieces: list[bytes | None] = ["ন".encode(), "িক".encode()]
    assert [(span.text, span.tokens) for span in text_spans(pieces)] == [("নি", (0, 1)), ("ক", (1,))]


def test_bytes_that_are_no_text_show_as_hex():
    assert [(span.text, span.kind) for span in text_spans([b"\xe0", b"\xa6", b"ok"])] == [
        ("⟨E0 A6⟩", "invalid"),
        ("ok", "text"),
    ]


def test_a_special_token_is_a_run_of_its_own_and_parts_what_it_stands_between():
    pieces: list[bytes | None] = [b"e", None, "\u0301".encode()]
    assert [(span.text, span.tokens, span.kind) for span in text_spans(pieces)] == [
        ("e", (0,), "text"),
        ("", (1,), "special"),
        ("\u0301", (2,), "text"),
    ]
