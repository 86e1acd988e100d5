"""Bits per byte mean what they say: every byte scored once, documents apart, base and expanded on the same text."""

import numpy as np
import pandas as pd
import pytest
import torch

from lpr_lab.errors import UsageError
from lpr_lab.measure.bits import document_nats, evaluate
from lpr_lab.measure.forgetting import DOCUMENT_COLUMNS, bootstrap_draws, change_rows, scored_documents
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.text.packing import pack

OPTIONS = {"languages": ["en", "el"], "original": ["en"], "tokens_per_language": 400, "block_tokens": 64}


def moved(model):
    for layer in moe_layers(model):
        for parameter in layer.stacks[0].parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def test_packed_scores_equal_scoring_each_document_alone(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model("llama")
    documents = tiny_corpus.documents("dev", "el")[:5]
    packed = document_nats(model, pack(documents, tiny_tokenizer, 2048, languages=["el"]), precision="fp32")
    for document, nats in zip(documents, packed, strict=True):
        ids = torch.tensor([[0, *tiny_tokenizer(document.text)["input_ids"]]])
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
        alone = -log_probs.gather(1, ids[0, 1:, None]).sum()
        assert nats == pytest.approx(float(alone), rel=1e-4)


def test_scoring_builds_no_graph_whoever_calls_it(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model("llama").requires_grad_(True)
    blocks = pack(tiny_corpus.documents("dev", "en")[:2], tiny_tokenizer, 32, languages=["en"])
    assert (document_nats(model, blocks, precision="fp32") > 0).all()


@torch.no_grad()
def test_a_uniform_model_needs_the_same_nats_for_every_token(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model("llama")
    model.lm_head.weight.zero_()
    documents = tiny_corpus.documents("dev", "en")[:4]
    nats = document_nats(model, pack(documents, tiny_tokenizer, 32, languages=["en"]), precision="fp32")
    tokens = [len(tiny_tokenizer(document.text)["input_ids"]) for document in documents]
    assert nats == pytest.approx(np.array(tokens) * np.log(len(tiny_tokenizer)), rel=1e-5)


def test_change_is_the_difference_of_bits_per_byte_in_percent_of_the_bases(tiny_model, tiny_tokenizer, tiny_corpus):
    model = moved(upcycle(tiny_model("llama"), (1, 1)))
    report = evaluate(model, tiny_tokenizer, tiny_corpus, precision="fp32", **OPTIONS)
    bits = report.to_frame().set_index(["dataset", "language", "model"])["bits_per_byte"]
    changes = report.changes()
    assert set(changes["role"]) == {"original", "expanded"}
    for row in changes.to_dict("records"):
        base, expanded = (bits[row["dataset"], row["language"], name] for name in ("base", "expanded"))
        assert row["change_percent"] == pytest.approx(100 * (expanded - base) / base, rel=1e-4)
        assert abs(row["change_percent"]) > 0.1


def test_an_expansion_that_was_not_trained_changes_nothing(tiny_model, tiny_tokenizer, tiny_corpus):
    report = evaluate(upcycle(tiny_model("llama"), (1, 1)), tiny_tokenizer, tiny_corpus, precision="fp32", **OPTIONS)
    assert report.changes()["change_percent"].abs().max() < 1e-3


def test_the_report_has_the_promised_columns_and_roles(tiny_model, tiny_tokenizer, tiny_corpus):
    report = evaluate(moved(upcycle(tiny_model("llama"), (1, 1))), tiny_tokenizer, tiny_corpus, **OPTIONS)
    frame = report.to_frame()
    assert list(frame.columns) == [
        "language", "role", "model", "dataset", "bits_per_byte", "ci_low", "ci_high", "n_documents",
    ]  # fmt: skip
    assert set(frame["model"]) == {"base", "expanded"}
    assert set(frame[frame["language"] == "en"]["role"]) == {"original"}
    assert ((frame["ci_low"] <= frame["bits_per_byte"]) & (frame["bits_per_byte"] <= frame["ci_high"])).all()
    changes = report.changes()
    assert set(changes["verdict"]) <= {"better", "not worse", "worse", "no clear difference"}
    loads = report.load.groupby(["language", "dataset", "layer"])[["share", "mass"]].sum()
    assert loads.to_numpy() == pytest.approx(1.0)


def test_the_same_seed_gives_the_same_report(tiny_model, tiny_tokenizer, tiny_corpus):
    frames = [
        evaluate(upcycle(tiny_model("llama"), (1, 1)), tiny_tokenizer, tiny_corpus, **OPTIONS).to_frame()
        for _ in range(2)
    ]
    assert frames[0].equals(frames[1])


def test_a_plain_model_is_scored_as_base_only(tiny_model, tiny_tokenizer, tiny_corpus):
    report = evaluate(tiny_model("llama"), tiny_tokenizer, tiny_corpus, **OPTIONS)
    assert set(report.to_frame()["model"]) == {"base"}
    assert report.changes().empty


def test_a_language_without_documents_is_refused(tiny_model, tiny_tokenizer, tiny_corpus):
    with pytest.raises(UsageError, match=r"no documents .*\bes\b.* nothing"):
        evaluate(tiny_model("llama"), tiny_tokenizer, tiny_corpus, languages=["es"], splits=["nothing"])


def test_no_long_document_decides_a_result(tiny_model, tiny_tokenizer, tiny_corpus):
    options = {**OPTIONS, "tokens_per_language": 100, "max_document_tokens": 20}
    report = evaluate(tiny_model("llama"), tiny_tokenizer, tiny_corpus, **options)
    assert set(report.to_frame()["n_documents"]) == {4}


def test_scores_by_document_hold_no_text_and_give_the_same_changes_again(tiny_model, tiny_tokenizer, tiny_corpus):
    report = evaluate(moved(upcycle(tiny_model("llama"), (1, 1))), tiny_tokenizer, tiny_corpus, **OPTIONS)
    rows = report.documents()
    assert list(rows.columns) == DOCUMENT_COLUMNS
    english = tiny_corpus.documents("dev", "en")
    assert set(rows[(rows["language"] == "en") & (rows["dataset"] == "dev")]["document"]) <= {d.id for d in english}
    sets = scored_documents(rows)
    again = change_rows(sets, [bootstrap_draws(test) for test in sets])
    pd.testing.assert_frame_equal(again, report.changes(), rtol=1e-9)
