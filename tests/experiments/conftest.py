"""What tests of whole runs share."""

import sys
from functools import partial

import numpy as np
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


@pytest.fixture(scope="module")
def own_text(sentences, tmp_path_factory) -> str:
    """A folder of plain text in two languages, as people have it: without splits, ids and translations."""
    folder = tmp_path_factory.mktemp("my-texts")
    generator = np.random.default_rng(0)
    for code in ("en", "el"):
        words = " ".join(sentences[code]).split()
        paragraphs = (" ".join(generator.choice(words, size=30)) for _ in range(120))
        (folder / f"{code}.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    return str(folder)
