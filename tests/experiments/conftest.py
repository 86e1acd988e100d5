"""What tests of whole runs share."""

import sys
from functools import partial

import pytest

from helpers.tiny_corpus import write_corpus


@pytest.fixture(autouse=True)
def short_continuations(monkeypatch):
    """Whole runs continue their prompts by four tokens, which shows what 32 would."""
    pipeline = sys.modules.get("lpr_lab.experiments.pipeline")
    if pipeline is not None:
        monkeypatch.setattr(pipeline, "show", partial(pipeline.show, max_new_tokens=4))


@pytest.fixture(scope="module")
def materials(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    """A base model and a corpus on disk."""
    folder = tmp_path_factory.mktemp("materials")
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer.save_pretrained(folder / "base")
    write_corpus(folder / "corpus.jsonl", sentences, ("en", "es", "el", "tr"))
    return folder
