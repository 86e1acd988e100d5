"""What the tests of shards share."""

import warnings

import pytest

from lpr_lab.text.load import load_corpus
from lpr_lab.text.shards import blocks, compare, documents, from_hub, prepare


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of a few documents, joins in several ranges, and blocks from the disk however little text there is."""
    for module in (documents, prepare, from_hub):
        monkeypatch.setattr(module, "SHARD_BYTES", 24_000)
    monkeypatch.setattr(compare, "_BYTES_AT_ONCE", 6_000)
    monkeypatch.setattr(compare, "_CHARACTERS_AT_ONCE", 2_000)
    monkeypatch.setattr(blocks, "PACKED_IN_MEMORY", 0)
    documents.open_shard.cache_clear()
    documents.check_shard.cache_clear()


@pytest.fixture
def load():
    """Load a corpus, in shards or not, with a cache of its own, without warnings of what is left out."""

    def load_one(source, *, streaming, **options):
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return load_corpus(source, streaming=streaming, num_proc=1, **options)

    return load_one
