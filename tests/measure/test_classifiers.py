"""The accuracy of routing classifiers, layer by layer."""

from copy import copy

import pytest
import torch

from lpr_lab.errors import UsageError
from lpr_lab.measure.classifiers import COLUMNS, classifier_accuracy
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.stages import enter_stage

OPTIONS = {
    "languages": ["en", "el"],
    "original": ["en"],
    "tokens_per_language": 200,
    "block_tokens": 64,
    "precision": "fp32",
}


def with_classifiers(tiny_model, *says):
    """A model whose classifier in layer i always says `says[i]`: 0 original, 1 expanded."""
    model = upcycle(tiny_model("llama"), (1, 1), router_bias=True)
    enter_stage(model, "review", classifiers=range(len(says)))
    for layer, what in zip(moe_layers(model), says, strict=False):
        with torch.no_grad():
            layer.classifier.weight.zero_()
            layer.classifier.bias.copy_(torch.eye(2)[what])
    return model


def test_a_classifier_that_always_says_original_is_right_on_original_languages_only(
    tiny_model, tiny_tokenizer, tiny_corpus
):
    table = classifier_accuracy(with_classifiers(tiny_model, 0, 1), tiny_tokenizer, tiny_corpus, **OPTIONS)
    assert list(table.columns) == COLUMNS
    accuracy = table.set_index(["layer", "language"])["accuracy"]
    assert accuracy.to_dict() == {(0, "en"): 1, (1, "en"): 0, (0, "el"): 0, (1, "el"): 1}
    assert (table["n_tokens"] > 60).all() and (table["n_tokens"] <= 200).all()  # separators do not count


def test_only_layers_with_a_classifier_are_reported(tiny_model, tiny_tokenizer, tiny_corpus):
    table = classifier_accuracy(with_classifiers(tiny_model, 0), tiny_tokenizer, tiny_corpus, **OPTIONS)
    assert set(table["layer"]) == {0}


def test_a_model_without_classifiers_is_refused(tiny_model, tiny_tokenizer, tiny_corpus):
    with pytest.raises(UsageError, match="classifier_layers"):
        classifier_accuracy(upcycle(tiny_model("llama"), (1, 1)), tiny_tokenizer, tiny_corpus, **OPTIONS)


@pytest.mark.parametrize("splits", [("heldout",), ("train", "dev"), ("heldout", "dev")])
def test_whatever_test_sets_there_are_are_read_and_named(tiny_model, tiny_tokenizer, tiny_corpus, splits):
    corpus = copy(tiny_corpus)
    corpus.splits = splits
    table = classifier_accuracy(with_classifiers(tiny_model, 0, 1), tiny_tokenizer, corpus, **OPTIONS)
    assert set(table["dataset"]) == set(splits) - {"train"}
    assert len(table) == 4 * table["dataset"].nunique()


def test_without_any_text_to_test_on_it_is_refused(tiny_model, tiny_tokenizer, tiny_corpus):
    corpus = copy(tiny_corpus)
    corpus.splits = ("train", "replay")
    with pytest.raises(UsageError, match="no documents in"):
        classifier_accuracy(with_classifiers(tiny_model, 0), tiny_tokenizer, corpus, **OPTIONS)
