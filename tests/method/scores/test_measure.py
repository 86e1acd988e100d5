"""Scores of layers, measured: a layer that does nothing has none, and each is what the plain computation gives."""

import pytest
import torch
from torch.nn import functional as F

from lpr_lab.errors import UsageError
from lpr_lab.method.allocation import allocate
from lpr_lab.method.baselines.lape import language_neurons
from lpr_lab.method.scores.measure import measure_layer_scores
from lpr_lab.method.scores.neurons import neurons_per_layer
from lpr_lab.method.scores.table import KINDS
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.text.draw import shuffled_documents
from lpr_lab.text.packing import NO_TARGET, pack

LANGUAGES = {"original": ["en"], "expanded": ["el"]}
OPTIONS = {**LANGUAGES, "tokens_per_language": 512, "precision": "fp32"}


@pytest.mark.parametrize("by", KINDS)
def test_a_layer_whose_mlp_does_nothing_gets_no_expert(by, tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model("llama")
    with torch.no_grad():  # no neuron of it ever fires, and no small change of one of its maps changes anything
        find_decoder_mlps(model)[1].module.gate_proj.weight.zero_()
        find_decoder_mlps(model)[1].module.down_proj.weight.zero_()
    scores = measure_layer_scores(model, tiny_tokenizer, tiny_corpus, by, **OPTIONS)
    assert scores.values[0] > 0 and scores.values[1] == 0
    assert allocate(scores, 4).new_experts == (4, 0)


def test_gradient_scores_are_those_of_a_plain_backward_pass_on_each_half(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model("llama")
    found = {by: measure_layer_scores(model, tiny_tokenizer, tiny_corpus, by, **OPTIONS) for by in KINDS[1:]}
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    length = min(256, model.config.max_position_embeddings)
    documents = shuffled_documents(tiny_corpus, "train", "el", 0)
    blocks = pack(documents, tiny_tokenizer, length, languages=["el"])
    rows = 512 // length // 2 * 2
    halves = []
    for half in (0, 1):
        batch = blocks.select(range(half, rows, 2))
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=NO_TARGET)
        layers = [list(mlp.module.parameters()) for mlp in find_decoder_mlps(model)]
        halves.append([torch.autograd.grad(loss, layer, retain_graph=True) for layer in layers])
    for layer, (first, second) in enumerate(zip(*halves, strict=True)):
        a, b = (torch.cat([one.flatten() for one in half]) for half in (first, second))
        assert found["gradient"].values[layer] == pytest.approx(float(((a + b) / 2).norm()), rel=1e-4)
        gain = float((a * b.sign() + b * a.sign()).sum()) / 2
        assert found["predicted_gain"].values[layer] == pytest.approx(gain, rel=1e-3)


def test_neurons_of_several_new_languages_count_by_their_mean_and_those_of_the_originals_beside_it():
    fires = torch.zeros(3, 2, 4, dtype=torch.float64)  # one original language, two new ones; two layers of 4 neurons
    for language, layer, neuron in ((0, 0, 0), (1, 0, 1), (1, 1, 0), (2, 1, 1), (2, 1, 2)):
        fires[language, layer, neuron] = 0.5
    assert neurons_per_layer(fires, 1, 5 / 8) == (1 + 1 / 2, 0 + 3 / 2)


def test_every_neuron_that_fires_counts_as_lape_finds_it(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model("llama")
    both = [
        language_neurons(model, tiny_tokenizer, tiny_corpus, neuron_share=1.0, **(OPTIONS | {"expanded": [code]}))
        if code == "el"
        else language_neurons(
            model, tiny_tokenizer, tiny_corpus, neuron_share=1.0, **(OPTIONS | {"original": ["el"], "expanded": [code]})
        )
        for code in ("en", "el")
    ]
    scores = measure_layer_scores(model, tiny_tokenizer, tiny_corpus, "neurons", neuron_share=1.0, **OPTIONS)
    for layer, mlp in enumerate(find_decoder_mlps(model)):
        assert scores.values[layer] == sum(len(chosen.get(mlp.path, ())) for chosen in both)


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
@pytest.mark.parametrize("by", KINDS)
def test_every_family_has_scores(family, by, tiny_model, tiny_tokenizer, tiny_corpus):
    scores = measure_layer_scores(tiny_model(family), tiny_tokenizer, tiny_corpus, by, **OPTIONS)
    assert len(scores.values) == len(scores.expert_parameters) == 2 and min(scores.values) >= 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"by": "neuron"}, "neurons"),
        ({"original": []}, "original"),
        ({"expanded": ["en"]}, "both"),
        ({"neuron_share": 0}, "neuron_share"),
        ({"tokens_per_language": 10}, "10 tokens"),
    ],
)
def test_a_wrong_wish_is_refused_with_what_was_given(changes, said, tiny_model, tiny_tokenizer, tiny_corpus):
    options = {"by": "gradient", **OPTIONS, **changes}
    with pytest.raises(UsageError, match=said):
        measure_layer_scores(tiny_model("llama"), tiny_tokenizer, tiny_corpus, **options)


def test_an_expanded_model_is_refused(tiny_model, tiny_tokenizer, tiny_corpus):
    with pytest.raises(UsageError, match="dense base"):
        measure_layer_scores(upcycle(tiny_model("llama"), (1, 1)), tiny_tokenizer, tiny_corpus, "neurons", **OPTIONS)
