"""Tokenizers of every kind, built on the spot: those that give back any text, and those that lose some of it."""

import functools

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from helpers.sentences import SENTENCES


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


@functools.cache
def unigram_with_bytes() -> PreTrainedTokenizerFast:
    """What SentencePiece unigram with byte fallback looks like: it merges nothing, and spells what it does not know."""
    letters = sorted({character for name in ("en", "el") for character in SENTENCES[name]} - {" "} | {"▁"})
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁the", "κοι"]
    inner = Tokenizer(models.Unigram([(name, -2.0 - len(name) / 100) for name in names], unk_id=0, byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="<unk>")


def over_characters(letters: str = "", **model) -> Tokenizer:
    """BPE over the letters of English and Greek, or of `letters`, with the merges `th` and `the`."""
    known = letters or "".join(sorted({character for name in ("en", "el") for character in SENTENCES[name]} | {"\n"}))
    names = ["<unk>", "<eos>", *known, "th", "the"]
    merges = [("t", "h"), ("th", "e")] if {"t", "h", "e"} <= set(known) else []
    return Tokenizer(models.BPE(vocab={n: i for i, n in enumerate(names)}, merges=merges, **model))


def wrapped(inner: Tokenizer, unk: str | None = "<unk>", eos: str = "<eos>") -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=unk, eos_token=eos)


@functools.cache
def silent(letters: str = "") -> PreTrainedTokenizerFast:
    """BPE without an unknown token: what it does not know is gone without a trace."""
    inner = over_characters(letters)
    inner.decoder = decoders.Fuse()
    return wrapped(inner, unk=None)


@functools.cache
def with_unknown(fuse: bool = False) -> PreTrainedTokenizerFast:
    inner = over_characters(unk_token="<unk>", fuse_unk=fuse)
    inner.decoder = decoders.Fuse()
    return wrapped(inner)


@functools.cache
def char_bpe() -> PreTrainedTokenizerFast:
    """The original GPT's: words end in `</w>`, white space is not kept."""
    inner = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<eos>"], end_of_word_suffix="</w>", show_progress=False
    )
    inner.train_from_iterator(SENTENCES.values(), trainer)
    return wrapped(inner)


@functools.cache
def word_piece(normalizer=None, decoder: bool = True) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordPiece(unk_token="<unk>"))
    if normalizer:
        inner.normalizer = normalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if decoder:
        inner.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["<unk>", "<eos>"], show_progress=False)
    inner.train_from_iterator(SENTENCES.values(), trainer)
    return wrapped(inner)


@functools.cache
def word_level() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<unk>", "<eos>"], show_progress=False)
    inner.train_from_iterator(SENTENCES.values(), trainer)
    return wrapped(inner)


@functools.cache
def normalised(normalizer) -> PreTrainedTokenizerFast:
    """Byte-level, so that all that is lost is lost by the normaliser."""
    return byte_level(normalizer)


def strip_accents():
    return normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])


@functools.cache
def byte_level_with_words() -> PreTrainedTokenizerFast:
    """Byte-level, to which words in other scripts were added later."""
    inner = byte_level.__wrapped__()
    inner.add_tokens(["ağaç", "café", "γάτα", "Ġ", "  "])
    return inner


@functools.cache
def prefix_space() -> PreTrainedTokenizerFast:
    inner = byte_level.__wrapped__()
    inner.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return inner


FAITHFUL = {
    "byte-level": byte_level,
    "byte-level with NFC": lambda: byte_level(normalizers.NFC),
    "byte-level with a space in front": prefix_space,
    "byte-level with added words": byte_level_with_words,
    "byte fallback": byte_fallback,
    "unigram with byte fallback": unigram_with_bytes,
}
"""Kinds that give back any text (a `▁` in it aside, which SentencePiece reads as a space)."""

LOSING = {
    "BPE without unknown": silent,
    "BPE with unknown": with_unknown,
    "BPE with fused unknown": lambda: with_unknown(fuse=True),
    "CharBPE": char_bpe,
    "WordPiece": word_piece,
    "WordPiece, lower case": lambda: word_piece(normalizers.BertNormalizer),
    "WordPiece without a decoder": lambda: word_piece(decoder=False),
    "WordLevel": word_level,
    "unigram with NFKC": unigram,
    "byte-level, lower case": lambda: normalised(normalizers.Lowercase),
    "byte-level without accents": lambda: normalised(strip_accents),
    "byte-level with NFKC": lambda: normalised(normalizers.NFKC),
}
"""Kinds that lose some text: what they do not know, or what their normaliser takes away."""

TOKENIZERS = FAITHFUL | LOSING
