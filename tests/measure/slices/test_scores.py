"""Scores of slices are those of their tokens alone, and the change of each has the interval of a paired bootstrap."""

import numpy as np
import pytest
import torch

from lpr_lab.measure.bits import document_nats, evaluate, token_nats
from lpr_lab.measure.significance import bootstrap_interval
from lpr_lab.measure.slices.rules import BY_NAME
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.text.packing import pack

SET = ["language", "dataset"]


@pytest.fixture(scope="module")
def report(tiny_model, tiny_tokenizer, tiny_corpus):
    torch.manual_seed(0)
    model = upcycle(tiny_model("llama"), (1, 1))
    for layer in moe_layers(model):
        for parameter in layer.stacks[0].parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    options = {"languages": ["en", "el"], "original": ["en"], "tokens_per_language": 400, "block_tokens": 64}
    return evaluate(model, tiny_tokenizer, tiny_corpus, precision="fp32", **options)


def test_tokens_of_documents_sum_to_the_documents_and_each_is_what_a_model_says_alone(
    tiny_model, tiny_tokenizer, tiny_corpus
):
    model, documents = tiny_model("llama"), tiny_corpus.documents("dev", "el")[:4]
    blocks = pack(documents, tiny_tokenizer, 2048, languages=["el"])
    found = token_nats(model, blocks, precision="fp32")
    lengths = [len(tiny_tokenizer(document.text)["input_ids"]) for document in documents]
    parts = np.split(found, np.cumsum(lengths)[:-1])
    assert [part.sum() for part in parts] == pytest.approx(document_nats(model, blocks, precision="fp32"))
    ids = torch.tensor([[0, *tiny_tokenizer(documents[2].text)["input_ids"]]])
    with torch.no_grad():
        alone = -model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    assert parts[2] == pytest.approx(alone.numpy(), rel=1e-3, abs=1e-4)


def test_all_tokens_change_as_the_report_says_and_slices_have_no_more_than_all(report):
    slices, changes = report.slices(), report.changes().set_index(SET)
    assert set(slices["slice"]) <= set(BY_NAME)
    for key, part in slices.groupby(SET):
        whole = part[part["slice"] == "all"].iloc[0]
        for name in ("before", "after", "change_percent", "ci_low", "ci_high", "n_documents"):
            assert whole[name] == pytest.approx(changes.loc[key, name])
        assert whole["points"] == pytest.approx(whole["change_percent"])
        assert part["n_tokens"].max() == whole["n_tokens"] and len(part) > 2


def test_slices_that_do_not_overlap_add_up_to_the_whole_change(report):
    """`rest` has the tokens in none: with one rule alone, it and the rule are all."""
    scores = report.slice_scores
    for _, part in scores.groupby([*SET, "model"]):
        nats = (part["bits_per_byte"] * part["bytes"]).groupby(part["slice"]).sum()
        tokens = part.groupby("slice")["tokens"].sum()
        rules = nats.drop(["all", "rest"], errors="ignore")
        assert tokens["all"] - tokens.get("rest", 0) <= tokens.drop(["all", "rest"], errors="ignore").sum()
        assert nats["all"] - nats.get("rest", 0.0) <= rules.sum() + 1e-6


def test_the_interval_is_that_of_a_bootstrap_over_the_documents_that_have_the_slice(report):
    row = report.slices().query("slice == 'punctuation' and language == 'el'").iloc[0]
    test = next(one for one in report.sets if one.language == "el" and one.dataset == row["dataset"])
    part = report.slice_scores.query("slice == 'punctuation' and language == 'el'")
    part = part[part["dataset"] == row["dataset"]]
    nats = {name: rows["bits_per_byte"].to_numpy() * rows["bytes"].to_numpy() for name, rows in part.groupby("model")}
    count = len(nats["base"])
    draws = np.random.default_rng([0, int(test.fingerprint[:8], 16)]).integers(0, count, (1000, count))
    ratio = nats["expanded"][draws].sum(1) / nats["base"][draws].sum(1)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(bootstrap_interval(100 * (ratio - 1), count))
