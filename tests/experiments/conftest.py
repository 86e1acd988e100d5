"""What tests of whole runs share."""

import pytest

from helpers.tiny_corpus import write_corpus


@pytest.fixture(scope="module")
def materials(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    """A base model and a corpus on disk."""
    folder = tmp_path_factory.mktemp("materials")
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer.save_pretrained(folder / "base")
    write_corpus(folder / "corpus.jsonl", sentences, ("en", "es", "el", "tr"))
    return folder
