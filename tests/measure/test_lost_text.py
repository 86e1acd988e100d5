"""Bits per byte do not count what the tokenizer loses, and say so."""

import numpy as np
import pytest
import torch

from helpers.tiny_corpus import TinyCorpus
from helpers.tokenizer_kinds import silent, with_unknown
from lpr_lab.errors import UsageError
from lpr_lab.measure.bits import LOST_COLUMNS, evaluate

PLAIN = ["the ferry leaves at seven, ", "rain or shine, ", "the rain leaves at seven, ", "shine or rain or shine, "]
WITH_LOSS = [*(f"{one}漢{one}" for one in PLAIN), "the ferry ", "shine or "]
OPTIONS = {"languages": ["en"], "splits": ["dev"], "block_tokens": 64, "tokens_per_language": 400, "precision": "fp32"}


@pytest.fixture
def uniform(tiny_model):
    """A model that finds every token as likely as any other, so that what a text costs is known."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    return model


def corpus(*texts: str) -> TinyCorpus:
    return TinyCorpus({"en": (list(texts) * 6)[:6]}, ("en",))


@pytest.mark.parametrize(("make", "unknown"), [(silent, 0), (with_unknown, 1), (lambda: with_unknown(fuse=True), 1)])
def test_lost_bytes_are_not_counted_and_unknown_tokens_are(uniform, make, unknown):
    plain = "the ferry leaves at seven, rain or shine"
    options = {**OPTIONS, "tokens_per_language": 90}
    faithful = evaluate(uniform, make(), corpus(plain), **options)
    with pytest.warns(UserWarning, match=r"loses text.*English \(dev\): '漢'"):
        report = evaluate(uniform, make(), corpus(plain + "漢"), **options)
    bits = np.log2(uniform.config.vocab_size)
    spelled, tokens = [], []
    for test in (*faithful.sets, *report.sets):
        spelled.append(test.num_bytes[0])
        tokens.append(test.nats["base"][0] / np.log(2) / bits)
    assert spelled[0] == spelled[1] == 3 * len(plain) + 2
    assert tokens == pytest.approx([tokens[0], tokens[0] + 3 * unknown], rel=1e-5)
    assert report.to_frame()["bits_per_byte"][0] == pytest.approx(tokens[1] * bits / spelled[1])


def test_the_share_lost_stands_in_the_report_and_nowhere_without_a_loss(uniform, tiny_tokenizer, recwarn):
    report = evaluate(uniform, tiny_tokenizer, corpus(*WITH_LOSS), **OPTIONS)
    assert list(report.lost.columns) == LOST_COLUMNS and report.lost.empty
    assert not [one for one in recwarn if "loses text" in str(one.message)]
    with pytest.warns(UserWarning, match="loses text"):
        [row] = evaluate(uniform, silent(), corpus(*WITH_LOSS), **OPTIONS).lost.to_dict("records")
    assert (row["language"], row["role"], row["dataset"]) == ("en", "expanded", "dev")
    assert row["lost_share"] == row["lost_bytes"] / row["n_bytes"] and 0.02 < row["lost_share"] < 0.1
    assert row["characters"] == "'漢'"


def test_documents_that_lose_something_are_another_test_set(uniform):
    with pytest.warns(UserWarning, match="loses text"):
        lost = evaluate(uniform, silent(), corpus(*WITH_LOSS), **OPTIONS).sets[0]
    kept = evaluate(uniform, silent("".join(sorted({*"".join(WITH_LOSS)}))), corpus(*WITH_LOSS), **OPTIONS).sets[0]
    assert lost.ids[0] == kept.ids[0] and lost.fingerprint != kept.fingerprint


def test_a_great_loss_is_refused_before_anything_is_scored(tiny_model, sentences, monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("something was scored"))
    with pytest.raises(UsageError, match=r"loses [\d.]+% .*Turkish \(dev\)"):
        evaluate(model, silent(), TinyCorpus(sentences, ("tr",)), languages=["tr"], splits=["dev"])
