"""What a layer is worth to a language: the mean over tokens of held-out documents, with an interval over documents."""

import numpy as np
import pytest
import torch

from helpers.tiny_corpus import TinyCorpus
from lpr_lab.errors import UsageError
from lpr_lab.measure.causal.compute import causal_map
from lpr_lab.measure.causal.languages import COLUMNS, causal_by_language
from lpr_lab.measure.documents import choose_tests
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers

ROLES = {"en": "original", "el": "expanded"}


@pytest.fixture(scope="module")
def model(tiny_model):
    torch.manual_seed(0)
    model = upcycle(tiny_model("llama", num_layers=2), (2, 1), router_bias=True)
    with torch.no_grad():
        for layer in moe_layers(model):
            for parameter in [*layer.router.parameters(), *layer.stacks[0].parameters()]:
                parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def test_a_language_s_number_is_the_sum_over_its_documents_by_their_tokens(model, tiny_tokenizer, tiny_corpus):
    table = causal_by_language(
        model, tiny_tokenizer, tiny_corpus, ROLES, tokens_per_language=60, max_document_tokens=14
    )
    assert table.columns.tolist() == COLUMNS and len(table) == 2 * (3 + 2)
    assert table[["language", "role"]].drop_duplicates().values.tolist() == [["en", "original"], ["el", "expanded"]]
    (*_, documents), _ = choose_tests(tiny_corpus, ("heldout",), list(ROLES), 60, 14, tiny_tokenizer)
    maps = [causal_map(model, tiny_tokenizer, document.text) for document in documents]
    assert len(maps) > 1
    row = table[(table["language"] == "en") & (table["layer"] == 1) & (table["expert"] == 0)].iloc[0]
    tokens = sum(one.num_tokens - 1 for one in maps)
    assert (row["n_documents"], row["n_tokens"]) == (len(maps), tokens)
    assert row["change_bits"] == pytest.approx(sum(one.of_layers(0)[1] for one in maps) / tokens)
    assert (table["ci_low"] <= table["change_bits"]).all() and (table["change_bits"] <= table["ci_high"]).all()


def test_a_single_document_gives_an_interval_without_bounds_and_no_number_below_one_is_taken(
    model, tiny_tokenizer, tiny_corpus
):
    table = causal_by_language(model, tiny_tokenizer, tiny_corpus, {"el": "expanded"}, tokens_per_language=1)
    assert np.isinf(table["ci_high"]).all()
    with pytest.raises(UsageError, match="max_document_tokens = 0"):
        causal_by_language(model, tiny_tokenizer, tiny_corpus, ROLES, max_document_tokens=0)


def test_the_test_set_that_says_most_is_read_where_none_is_named(model, tiny_tokenizer, tiny_corpus, sentences):
    budget = {"tokens_per_language": 20, "max_document_tokens": 14}
    dealt = TinyCorpus(sentences, tiny_corpus.languages, ("train", "replay", "dev"))
    for corpus, split in ((tiny_corpus, "heldout"), (dealt, "dev")):
        assert set(causal_by_language(model, tiny_tokenizer, corpus, ROLES, **budget)["dataset"]) == {split}
