"""Bytes first: no byte lost, no character broken, whatever the vocabulary."""

import functools
import itertools

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lpr_lab.errors import UsageError
from lpr_lab.text.graphemes import byte_alphabet, clusters, runs, token_bytes

SENTENCES = {
    "en": "The ferry leaves at seven, rain or shine.",
    "es": "El niño compró tres libros en la plaza.",
    "el": "Η γάτα κοιμάται πάνω στο ζεστό πεζούλι.",
    "hu": "A tűzhely mellett mindig jut egy szék a vendégnek.",
    "tr": "Yağmur dindi, çocuklar bahçeye koştu.",
    "ar": "خرج الأولاد إلى الحديقة بعد المطر.",
    "he": "הילדים יצאו לגינה אחרי הגשם.",
    "bn": "ছেলেটি নদীর ধারে বসে গান গায়।",
    "hi": "बच्चे बारिश के बाद बगीचे में दौड़े।",
    "th": "เด็กๆ วิ่งเล่นในสวนหลังฝนหยุด",
    "zh": "雨停了，孩子们跑进花园。",
    "emoji": "a 👨‍👩‍👧‍👦 family, a flag 🇬🇷, a thumb 👍🏽",
    "mixed": "She said שלום and then مرحبا!\n\tTwice.",
    "odd": "<script>alert(1)</script> ${boom()} `x` \\u \x00 \u200b ﷽ Ġ ▁ <0xE0>",
}


@functools.cache
def byte_level(normalizer=None, vocabulary: int = 400) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if normalizer:
        inner.normalizer = normalizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(SENTENCES.values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", bos_token="<|endoftext|>")


@functools.cache
def byte_fallback() -> PreTrainedTokenizerFast:
    """What SentencePiece BPE looks like: a space in front, `▁` for spaces, `<0xE0>` for what it does not know."""
    letters = sorted({character for name in ("en", "es", "ar") for character in SENTENCES[name]} - {" "} | {"▁"})
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    inner = Tokenizer(
        models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@functools.cache
def unigram() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    inner.train_from_iterator(SENTENCES.values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


TOKENIZERS = {
    "byte-level": byte_level,
    "byte-level with NFC": lambda: byte_level(normalizers.NFC),
    "byte fallback": byte_fallback,
    "unigram with NFKC": unigram,
}


def pieces_of(tokenizer, text: str) -> list[bytes | None]:
    return token_bytes(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], text)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", SENTENCES)
def test_bytes_joined_are_the_text(kind, name):
    text = SENTENCES[name]
    assert b"".join(piece or b"" for piece in pieces_of(TOKENIZERS[kind](), text)) == text.encode()


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=60), kind=st.sampled_from(list(TOKENIZERS)))
def test_bytes_joined_are_any_text(text, kind):
    pieces = pieces_of(TOKENIZERS[kind](), text)
    assert b"".join(piece or b"" for piece in pieces) == text.encode()
    assert "".join(run.text for run in runs(pieces)) == text


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
    with pytest.raises(UsageError, match="not what the tokenizer makes"):
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
    drawn = runs(pieces)
    assert "".join(run.text for run in drawn) == text
    assert {token for run in drawn for token in run.tokens} == set(range(len(pieces)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=6)), max_size=12))
def test_any_bytes_are_drawn_and_every_token_has_a_place(pieces):
    drawn = runs(pieces)
    assert {token for run in drawn for token in run.tokens} == set(range(len(pieces)))
    for run in drawn:
        assert run.kind != "special" or pieces[run.tokens[0]] is None


def test_a_split_emoji_is_drawn_once_and_belongs_to_all_its_tokens():
    family = "👨‍👩‍👧‍👦".encode()
    pieces: list[bytes | None] = [b"a " + family[:3], family[3:10], family[10:], b"!"]
    assert [(run.text, run.tokens) for run in runs(pieces)] == [
        ("a ", (0,)),
        ("👨‍👩‍👧‍👦", (0, 1, 2)),
        ("!", (3,)),
    ]


def test_a_vowel_sign_split_from_its_consonant_stays_with_it():
    pieces: list[bytes | None] = ["ন".encode(), "িক".encode()]
    assert [(run.text, run.tokens) for run in runs(pieces)] == [("নি", (0, 1)), ("ক", (1,))]


def test_bytes_that_are_no_text_show_as_hex():
    assert [(run.text, run.kind) for run in runs([b"\xe0", b"\xa6", b"ok"])] == [
        ("⟨E0 A6⟩", "invalid"),
        ("ok", "text"),
    ]


def test_a_special_token_is_a_run_of_its_own_and_parts_what_it_stands_between():
    pieces: list[bytes | None] = [b"e", None, "\u0301".encode()]
    assert [(run.text, run.tokens, run.kind) for run in runs(pieces)] == [
        ("e", (0,), "text"),
        ("", (1,), "special"),
        ("\u0301", (2,), "text"),
    ]
