"""The dense model of one language's experts is what the mixture computes with them alone, and its loss is measured."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.expansions import moved
from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.measure.extract import FACTS, extract
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.stages import enter_stage
from lpr_lab.model.steering import steer
from lpr_lab.storage import verify

IDS = torch.arange(5, 85).view(2, 40)
OPTIONS = {"tokens_per_language": 300, "block_tokens": 64, "bootstrap": 20, "precision": "fp32"}


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@torch.no_grad()
def sent_to(model, experts):
    """Have every token go to one expert per layer, by a bias of the router."""
    for layer, expert in zip(moe_layers(model), experts, strict=True):
        layer.router.weight *= 0.01
        layer.router.bias.fill_(0.0)[expert] = 30.0
    return model


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2", "gpt_neox", "gemma3"])
def test_the_dense_model_computes_what_the_mixture_computes_for_the_language(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, family
):
    model = sent_to(moved(upcycle(tiny_model(family), (2, 1), router_bias=True)), (2, 1))
    result = extract(model, tiny_tokenizer, tiny_corpus, tmp_path / "el", language="el", languages=["en"], **OPTIONS)
    dense = AutoModelForCausalLM.from_pretrained(tmp_path / "el")
    assert type(dense) is type(model.get_base_model())
    assert torch.allclose(logits(dense), logits(model), atol=1e-4)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "el")) == 400
    assert result.layers["expert"].tolist() == [2, 1] and result.weight == pytest.approx(1, abs=1e-3)
    scores = result.scores.set_index(["language", "dataset", "model"])["bits_per_byte"]
    assert set(scores.index.get_level_values("language")) == {"el", "en"}
    assert scores["el", "heldout", "extracted"] == pytest.approx(scores["el", "heldout", "expanded"], rel=1e-5)
    assert scores["el", "heldout", "extracted"] != pytest.approx(scores["el", "heldout", "base"], rel=1e-5)


def test_the_loss_lies_beside_the_weights(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model = sent_to(moved(upcycle(tiny_model("llama"), (1, 0), router_bias=True)), (1,))
    result = extract(model, tiny_tokenizer, tiny_corpus, tmp_path / "el", language="el", **OPTIONS)
    said = json.loads((tmp_path / "el" / FACTS).read_text())
    assert said["language"] == "el" and said["stage"] == "G1 expand" and said["weight"] == result.weight
    assert said["layers"] == [{"layer": 0, "expert": 1, "weight": pytest.approx(1)}]
    assert {row["model"] for row in said["scores"]} == {"base", "expanded", "extracted"}
    assert {row["language"] for row in said["changes"]} == {"el"}
    assert verify(tmp_path / "el")["kind"] == "extraction"


def test_routing_that_is_not_one_sided_is_refused_with_the_figures_and_taken_when_told_to(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = moved(upcycle(tiny_model("llama"), (1, 1)))
    with pytest.raises(UnsupportedModelError, match=r"0\.\d\d .*expected 0\.8"):
        extract(model, tiny_tokenizer, tiny_corpus, tmp_path / "el", language="el", **OPTIONS)
    assert not list(tmp_path.iterdir())
    result = extract(model, tiny_tokenizer, tiny_corpus, tmp_path / "el", language="el", one_sided=0, **OPTIONS)
    with steer(model, force=dict(zip(result.layers["layer"], result.layers["expert"], strict=True))):
        assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "el")), logits(model), atol=1e-5)


def test_single_layers_that_share_are_named_in_a_warning(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model = sent_to(moved(upcycle(tiny_model("llama", num_layers=4), (1, 1, 1, 1), router_bias=True)), (1, 1, 1, 1))
    moe_layers(model)[2].router.bias.data.fill_(0.0)
    with pytest.warns(UserWarning, match=r"1 of 4 layers.*2 \(0\.5"):
        extract(model, tiny_tokenizer, tiny_corpus, tmp_path / "el", language="el", **OPTIONS)


def test_a_classifier_that_keeps_a_language_at_the_base_makes_the_base(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    dense = tiny_model("llama")
    expected = logits(dense)
    model = sent_to(moved(upcycle(dense, (1, 1), router_bias=True)), (1, 1))
    enter_stage(model, "review", classifiers=[0, 1])
    for layer in moe_layers(model):
        layer.classifier.weight.data.mul_(0)
        layer.classifier.bias.data.copy_(torch.tensor([1.0, -1.0]))
    result = extract(model, tiny_tokenizer, tiny_corpus, tmp_path / "en", language="en", **OPTIONS)
    assert result.layers["expert"].tolist() == [0, 0]
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "en")), expected)


def test_a_folder_that_exists_is_refused_before_anything_is_measured(tiny_model, tiny_tokenizer, tmp_path):
    with pytest.raises(UsageError, match="exists"):
        extract(upcycle(tiny_model("llama"), (1, 1)), tiny_tokenizer, None, tmp_path, language="el")
