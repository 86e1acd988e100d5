"""Blocks cut out of tokens on the disk are those that are packed in memory."""

import numpy as np
import pytest
import torch

from helpers.tiny_corpus import steps_of_four_blocks
from helpers.tokenizer_kinds import byte_level
from helpers.varied_text import write_varied
from lpr_lab.errors import DamagedError, LprError
from lpr_lab.method.expand import pack_by_language
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.storage import cache_dir
from lpr_lab.text.draw import shuffled_documents
from lpr_lab.text.packing import PackedBlocks, pack
from lpr_lab.text.shards import tokens
from lpr_lab.text.shards.blocks import MappedBlocks, pack_documents

FIELDS = ("input_ids", "position_ids", "targets", "language_id", "document_index")


@pytest.fixture
def both(load, tmp_path):
    """The same corpus in memory and in shards."""
    path = write_varied(tmp_path / "mixed.jsonl", ("el", "th"), 90)
    return load(path, streaming=False), load(path, streaming=True)


def assert_same(mapped, packed):
    assert isinstance(mapped, MappedBlocks) and isinstance(packed, PackedBlocks)
    for what in ("languages", "separator_id", "num_documents", "num_tokens", "block_tokens"):
        assert getattr(mapped, what) == getattr(packed, what), what
    assert len(mapped) == len(packed)
    assert torch.equal(mapped.is_text, packed.is_text)
    for index in range(len(packed)):
        found, expected = mapped[index], packed[index]
        for name in FIELDS:
            assert found[name].dtype == torch.int64
            assert torch.equal(found[name], expected[name]), (index, name)


@pytest.mark.parametrize("block_tokens", [7, 64, 100_000])
def test_blocks_of_any_length_are_those_in_memory(both, tiny_tokenizer, block_tokens):
    plain, stored = both
    for split, code in (("train", "el"), ("replay", "th"), ("dev", "th")):
        options = {"languages": ["en", "el", "th"]}
        packed = pack(plain.documents(split, code), tiny_tokenizer, block_tokens, **options)
        assert_same(pack_documents(stored.documents(split, code), tiny_tokenizer, block_tokens, **options), packed)


def test_a_training_sees_the_same_blocks_in_the_same_order(both, tiny_tokenizer):
    settings = steps_of_four_blocks(6)
    splits = {"el": "train", "th": "replay"}
    weights = {"el": 0.7, "th": 0.3}
    packed, mapped = (pack_by_language(corpus, tiny_tokenizer, splits, settings, weights) for corpus in both)
    for code in splits:
        assert_same(mapped[code], packed[code])
    plain, stored = (BlockSchedule(b, blocks_per_step=4, seed=1, weights=weights) for b in (packed, mapped))
    assert plain.ledger(40) == stored.ledger(40)
    assert all(torch.equal(plain.batch(7)[name], stored.batch(7)[name]) for name in FIELDS)


def test_blocks_are_selected_and_indexed_as_in_memory(both, tiny_tokenizer):
    plain, stored = (shuffled_documents(corpus, "train", "el", seed=3) for corpus in both)
    packed = pack(plain, tiny_tokenizer, 16, languages=["el"])
    mapped = pack_documents(stored, tiny_tokenizer, 16, languages=["el"])
    for rows in ([3, 0, 3], range(2, 5), torch.tensor([1])):
        assert all(torch.equal(mapped.select(rows)[name], packed.select(rows)[name]) for name in FIELDS)
    assert torch.equal(mapped[-1]["input_ids"], packed[-1]["input_ids"])
    with pytest.raises(IndexError):
        mapped[len(mapped)]


def test_text_like_special_tokens_and_vocabularies_of_four_bytes(load, tmp_path, tiny_tokenizer, monkeypatch):
    path = tmp_path / "en.txt"
    path.write_text("\n\n".join(f"about <|endoftext|> and so {'on' * i}" for i in range(40)), encoding="utf-8")
    monkeypatch.setattr(type(tiny_tokenizer), "__len__", lambda self: 2**16 + 1)
    plain, stored = load(path, streaming=False), load(path, streaming=True)
    packed = pack(plain.documents("train", "en"), tiny_tokenizer, 32, languages=["en"])
    assert_same(pack_documents(stored.documents("train", "en"), tiny_tokenizer, 32, languages=["en"]), packed)


def test_a_tokenizer_in_python_works_in_this_process(both, monkeypatch):
    tokenizer = byte_level()
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    monkeypatch.setattr(tokens, "_open_tokenizer", lambda path: pytest.fail("made anew from a file"))
    plain, stored = both
    packed = pack(plain.documents("dev", "el"), tokenizer, 32, languages=["el"])
    assert_same(pack_documents(stored.documents("dev", "el"), tokenizer, 32, languages=["el"]), packed)


def test_tokens_are_made_once_for_every_order_and_block_length(both, tiny_tokenizer, monkeypatch):
    _, stored = both
    pack_documents(stored.documents("train", "el"), tiny_tokenizer, 16, languages=["el"])
    monkeypatch.setattr(tokens, "tokenise_documents", lambda *_: pytest.fail("tokenised again"))
    pack_documents(shuffled_documents(stored, "train", "el", 5), tiny_tokenizer, 64, languages=["el", "en"])


def test_what_a_kill_left_is_not_tokenised_again(both, tiny_tokenizer, monkeypatch):
    plain, stored = both
    whole, did = tokens.tokenise_documents, []

    def some(*arguments):
        if len(did) == 1:
            raise KeyboardInterrupt
        did.append(arguments[-1].name)
        whole(*arguments)

    monkeypatch.setattr(tokens, "tokenise_documents", some)
    with pytest.raises(KeyboardInterrupt):
        pack_documents(stored.documents("train", "el"), tiny_tokenizer, 32, languages=["el"])
    then = []
    monkeypatch.setattr(tokens, "tokenise_documents", lambda *a: (then.append(a[-1].name), whole(*a)))
    mapped = pack_documents(stored.documents("train", "el"), tiny_tokenizer, 32, languages=["el"])
    assert did and then and not {*did} & {*then}
    assert_same(mapped, pack(plain.documents("train", "el"), tiny_tokenizer, 32, languages=["el"]))


@pytest.mark.parametrize("how", ["altered", "short", "gone"])
def test_a_damaged_shard_of_tokens_is_named_before_anything_is_read(both, tiny_tokenizer, how):
    _, stored = both
    pack_documents(stored.documents("train", "el"), tiny_tokenizer, 32, languages=["el"])
    file = sorted(cache_dir().glob("corpora/*/tokens/*/el-train/*/tokens.bin"))[1]
    content = np.fromfile(file, "<u2")
    {
        "altered": lambda: (content[::-1]).tofile(file),
        "short": lambda: content[:-3].tofile(file),
        "gone": file.unlink,
    }[how]()
    with pytest.raises(DamagedError, match=f"el-train/{file.parent.name}"):
        pack_documents(stored.documents("train", "el"), tiny_tokenizer, 32, languages=["el"])


def test_a_tokenizer_whose_file_gives_other_tokens_is_refused(both, tiny_tokenizer, monkeypatch):
    _, stored = both
    monkeypatch.setattr(tokens, "_encode", lambda tokenizer, texts: iter([[1]] * len(texts)))
    with pytest.raises(LprError, match="streaming=False"):
        pack_documents(stored.documents("train", "el"), tiny_tokenizer, 32, languages=["el"])
