"""What workers are sent, and what they hold, does not grow with the corpus."""

import pickle
from functools import lru_cache

import numpy as np
import torch

from helpers.varied_text import write_varied
from lpr_lab.text.shards import tokens
from lpr_lab.text.shards.blocks import pack_documents
from lpr_lab.text.shards.documents import read_rows


def test_a_part_for_a_worker_has_the_same_documents_and_nothing_of_other_shards(load, tmp_path):
    path = write_varied(tmp_path / "el.jsonl", ("el",), 150)
    documents = load(path, streaming=True).documents("replay", "el")  # it has documents of which lines were dropped
    for shard in np.unique(documents.entries["shard"]):
        order = np.flatnonzero(documents.entries["shard"] == shard)[::-1]
        part = pickle.loads(pickle.dumps(documents.alone(order)))
        assert [*part] == [documents[int(place)] for place in order]
        assert [*part.texts()] == [document.text for document in part]
        assert [*part.shards] == [shard] and part.whole() is part
        assert {*part._dropped["shard"].tolist()} <= {shard}


def test_documents_in_any_order_are_read_as_one_by_one(load, tmp_path):
    documents = load(write_varied(tmp_path / "el.jsonl", ("el",), 150), streaming=True).documents("train", "el")
    taken = documents.take(np.random.default_rng(0).permutation(len(documents)))
    one_by_one = [taken[index] for index in range(len(taken))]
    assert [*taken] == one_by_one
    assert [*taken.ids()] == [document.id for document in one_by_one]


def test_rows_are_read_in_the_order_asked_for(load, tmp_path):
    documents = load(write_varied(tmp_path / "el.jsonl", ("el",), 150), streaming=True).documents("train", "el")
    shard = documents.shards[0][0]
    forth, back = ([*read_rows(shard, np.arange(5)[::step], ("id", "text"))] for step in (1, -1))
    assert forth == back[::-1]


def test_few_shards_of_tokens_are_mapped_at_a_time(load, tmp_path, tiny_tokenizer, monkeypatch):
    documents = load(write_varied(tmp_path / "el.jsonl", ("el",), 150), streaming=True).documents("train", "el")
    blocks = pack_documents(documents, tiny_tokenizer, 32, languages=["el"])
    mapped = lru_cache(maxsize=2)(tokens._map.__wrapped__)
    assert tokens._map.cache_info().maxsize <= 16  # also of many
    monkeypatch.setattr(tokens, "_map", mapped)
    back = [blocks[index]["input_ids"] for index in reversed(range(len(blocks)))][::-1]
    assert mapped.cache_info().misses > mapped.cache_info().currsize == 2
    assert all(torch.equal(ids, blocks[index]["input_ids"]) for index, ids in enumerate(back))
