"""Routers in closed form find what separates the languages, and touch nothing else."""

import pytest
import torch
from tiny_corpus import TinyCorpus

from lpr_lab.errors import UsageError
from lpr_lab.method.closed_form import _auc, _calibrate, fit_routers
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import record_routing

OPTIONS = {"original": ["en", "es"], "expanded": ["el"], "tokens_per_language": 512, "block_tokens": 64}


@pytest.mark.parametrize("allocation", [(1, 1), (0, 3)])
def test_fitted_routers_send_each_side_to_its_experts(tiny_model, tiny_tokenizer, tiny_corpus, allocation):
    model = upcycle(tiny_model("llama"), allocation, router_input="token_and_mean", router_bias=True)
    fits = fit_routers(model, tiny_tokenizer, tiny_corpus, precision="fp32", **OPTIONS)
    assert [fit.layer for fit in fits] == [layer.layer for layer in moe_layers(model)]
    assert all(fit.auc > 0.9 for fit in fits)
    weights = {}
    for language in ("en", "el"):
        text = " ".join(document.text for document in tiny_corpus.documents("dev", language)[:2])
        ids = torch.tensor([tiny_tokenizer(text)["input_ids"][:100]])
        with torch.no_grad(), record_routing(model) as record:
            model(ids)
        weights[language] = float(torch.stack([r.original_weight() for r in record.routing.values()]).mean())
    assert weights["en"] > 0.85
    assert weights["el"] < 0.25


def test_shuffled_language_labels_give_routers_that_know_nothing(tiny_model, tiny_tokenizer, tiny_corpus, sentences):
    """The control: with the same languages on both sides there is nothing to find."""
    mixed = {"en": [*sentences["en"][:3], *sentences["el"][:3]], "tr": [*sentences["el"][3:], *sentences["en"][3:]]}
    model = upcycle(tiny_model("llama"), (1, 1), router_input="token_and_mean", router_bias=True)
    corpus = TinyCorpus(mixed, ("en", "tr"))
    options = {**OPTIONS, "original": ["en"], "expanded": ["tr"]}
    true_model = upcycle(tiny_model("llama"), (1, 1), router_input="token_and_mean", router_bias=True)
    fits = fit_routers(model, tiny_tokenizer, corpus, precision="fp32", **options)
    true_fits = fit_routers(true_model, tiny_tokenizer, tiny_corpus, precision="fp32", **options)
    assert sum(fit.auc for fit in fits) < sum(fit.auc for fit in true_fits)


def test_a_pass_in_bfloat16_finds_the_same_routers(tiny_model, tiny_tokenizer, tiny_corpus):
    """The features may be rounded; the normal equations made from them may not."""
    aucs = []
    for precision in ("fp32", "bf16"):
        model = upcycle(tiny_model("llama"), (1, 1), router_input="token_and_mean", router_bias=True)
        fits = fit_routers(model, tiny_tokenizer, tiny_corpus, precision=precision, ridge=1e-6, **OPTIONS)
        aucs.append([fit.auc for fit in fits])
    assert aucs[0] == pytest.approx(aucs[1], abs=0.01)


def test_fitting_changes_routers_and_nothing_else(tiny_model, tiny_tokenizer, tiny_corpus):
    model = upcycle(tiny_model("llama"), (1, 1), router_bias=True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    fit_routers(model, tiny_tokenizer, tiny_corpus, precision="fp32", **OPTIONS)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed
    assert all("moe_lpr_router" in name for name in changed)


def test_fitting_twice_gives_the_same_routers(tiny_model, tiny_tokenizer, tiny_corpus):
    routers = []
    for _ in range(2):
        model = upcycle(tiny_model("llama"), (1, 1), router_bias=True)
        fit_routers(model, tiny_tokenizer, tiny_corpus, precision="fp32", **OPTIONS)
        routers.append(torch.cat([layer.router.weight.flatten() for layer in moe_layers(model)]))
    assert torch.equal(*routers)


def test_routers_without_a_constant_are_refused(tiny_model, tiny_tokenizer, tiny_corpus):
    with pytest.raises(UsageError, match="router_bias=True"):
        fit_routers(upcycle(tiny_model("llama"), (1, 1)), tiny_tokenizer, tiny_corpus, **OPTIONS)


def test_calibration_turns_scores_into_probabilities_of_both_classes():
    generator = torch.Generator().manual_seed(0)
    is_original = torch.arange(400) < 100
    scores = torch.where(is_original, 1.0, -1.0) + 0.3 * torch.randn(400, generator=generator)
    scale, shift = _calibrate(scores, is_original)
    p0 = (scale * scores + shift).sigmoid()
    assert p0[is_original].mean() > 0.97
    assert p0[~is_original].mean() < 0.03


def test_auc_is_half_at_chance_and_one_when_separated():
    positive = torch.arange(1000) % 2 == 0
    assert _auc(positive.float() + torch.rand(1000) * 0.5, positive) == 1.0
    assert _auc(torch.rand(1000, generator=torch.Generator().manual_seed(0)), positive) == pytest.approx(0.5, abs=0.06)
