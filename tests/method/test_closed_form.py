"""Routers in closed form find what separates the languages, and touch nothing else."""

import dataclasses

import pytest
import torch

from helpers.tiny_corpus import TinyCorpus
from lpr_lab.errors import UsageError
from lpr_lab.method.closed_form import fit_routers, local_review
from lpr_lab.method.linear_fit import area_under_curve, router_matrix
from lpr_lab.method.router_statistics import RouterStatistics
from lpr_lab.method.settings import FitSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.capture import record_routing
from lpr_lab.model.stages import select_stage, stage_names

SETTINGS = FitSettings(tokens_per_language=512, block_tokens=64, precision="fp32")
OPTIONS = {"original": ["en", "es"], "expanded": ["el"], "settings": SETTINGS}


@pytest.mark.parametrize("allocation", [(1, 1), (0, 3)])
def test_fitted_routers_send_each_side_to_its_experts(tiny_model, tiny_tokenizer, tiny_corpus, allocation):
    model = upcycle(tiny_model("llama"), allocation, router_input="token_and_mean", router_bias=True)
    fits = fit_routers(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
    assert [fit.layer for fit in fits.layers] == [layer.layer for layer in moe_layers(model)]
    assert all(fit.auc > 0.9 for fit in fits.layers)
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
    fits = fit_routers(model, tiny_tokenizer, corpus, **options)
    true_fits = fit_routers(true_model, tiny_tokenizer, tiny_corpus, **options)
    assert sum(fit.auc for fit in fits.layers) < sum(fit.auc for fit in true_fits.layers)


def test_a_pass_in_bfloat16_finds_the_same_routers(tiny_model, tiny_tokenizer, tiny_corpus):
    """The features may be rounded; the normal equations made from them may not."""
    aucs = []
    for precision in ("fp32", "bf16"):
        model = upcycle(tiny_model("llama"), (1, 1), router_input="token_and_mean", router_bias=True)
        settings = dataclasses.replace(SETTINGS, precision=precision, penalty=1e-6)
        fits = fit_routers(model, tiny_tokenizer, tiny_corpus, **OPTIONS | {"settings": settings})
        aucs.append([fit.auc for fit in fits.layers])
    assert aucs[0] == pytest.approx(aucs[1], abs=0.01)


def test_fitting_changes_routers_and_nothing_else(tiny_model, tiny_tokenizer, tiny_corpus):
    model = upcycle(tiny_model("llama"), (1, 1), router_bias=True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    fit_routers(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed
    assert all("moe_lpr_router" in name for name in changed)


def test_fitting_twice_gives_the_same_routers(tiny_model, tiny_tokenizer, tiny_corpus):
    routers = []
    for _ in range(2):
        model = upcycle(tiny_model("llama"), (1, 1), router_bias=True)
        fit_routers(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
        routers.append(torch.cat([layer.router.weight.flatten() for layer in moe_layers(model)]))
    assert torch.equal(*routers)


def test_routers_without_a_constant_are_refused(tiny_model, tiny_tokenizer, tiny_corpus):
    with pytest.raises(UsageError, match="router_bias=True"):
        fit_routers(upcycle(tiny_model("llama"), (1, 1)), tiny_tokenizer, tiny_corpus, **OPTIONS)


def test_auc_is_half_at_chance_and_one_when_separated():
    positive = torch.arange(1000) % 2 == 0
    assert area_under_curve(positive.float() + torch.rand(1000) * 0.5, positive) == 1.0
    chance = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    assert area_under_curve(chance, positive) == pytest.approx(0.5, abs=0.06)


@pytest.fixture(scope="module")
def scripts(sentences):
    """Two original languages in one script and two to learn in others: what a model this small can tell apart."""
    return TinyCorpus(sentences, ("en", "es", "el", "hi"))


def expert_mass(model, tokenizer, corpus, language):
    """Mean weight of each expert of the last layer on one language's dev text."""
    text = " ".join(document.text for document in corpus.documents("dev", language)[:2])
    ids = torch.tensor([tokenizer(text)["input_ids"][:100]])
    with torch.no_grad(), record_routing(model) as record:
        model(ids)
    layer = moe_layers(model)[-1]
    routing = record.routing[layer.layer]
    mass = torch.zeros(len(routing.expert_ids), layer.num_experts)
    return mass.scatter_add(1, routing.expert_ids, routing.expert_weights).mean(0)


@pytest.mark.parametrize("solver", ["ridge", "logistic"])
def test_every_language_of_a_group_finds_its_own_expert(tiny_model, tiny_tokenizer, scripts, solver):
    model = upcycle(tiny_model("llama"), (2, 2), router_input="token_and_mean", router_bias=True)
    settings = dataclasses.replace(SETTINGS, solver=solver)
    fits = fit_routers(model, tiny_tokenizer, scripts, original=["en", "es"], expanded=["el", "hi"], settings=settings)
    assert all(fit.accuracy > 0.9 for fit in fits.layers)
    for expert, languages in enumerate((["en", "es"], ["el"], ["hi"])):
        for language in languages:
            mass = expert_mass(model, tiny_tokenizer, scripts, language)
            assert mass[expert] > 0.7, (language, mass)


def test_experts_that_share_a_group_divide_it_as_their_rows_did(tiny_model, tiny_tokenizer, scripts):
    model = upcycle(tiny_model("llama"), (3, 3), router_input="token_and_mean", router_bias=True)
    before = [router_matrix(layer.router) for layer in moe_layers(model)]
    settings = dataclasses.replace(SETTINGS, divide="as_is")
    fits = fit_routers(model, tiny_tokenizer, scripts, **OPTIONS | {"settings": settings})
    for old, layer in zip(before, moe_layers(model), strict=True):
        new = router_matrix(layer.router)
        assert torch.allclose(new[2] - new[1], old[2] - old[1], atol=1e-5)
        assert torch.allclose(new[3] - new[1], old[3] - old[1], atol=1e-5)
    assert all(fit.original_weight_on_original > 0.9 > 0.2 > fit.original_weight_on_expanded for fit in fits.layers)


def lifelong(tiny_model, tokenizer, corpus, earlier_text=True, allocation=(1, 1)):
    """Group 1 is el, group 2 hi; returns the model and the fits of both."""
    model = upcycle(tiny_model("llama"), (1, 1), router_input="token_and_mean", router_bias=True)
    first = fit_routers(model, tokenizer, corpus, **OPTIONS)
    expansion_config(model).groups[-1] = ["el"]
    upcycle(model, allocation)
    options = {} if earlier_text else {"earlier": first.statistics}
    second = fit_routers(model, tokenizer, corpus, original=["en", "es"], expanded=["hi"], settings=SETTINGS, **options)
    return model, first, second


def test_a_second_group_finds_its_experts_and_the_first_keeps_its_own(tiny_model, tiny_tokenizer, scripts):
    model, _, _ = lifelong(tiny_model, tiny_tokenizer, scripts)
    for expert, language in enumerate(("es", "el", "hi")):
        assert expert_mass(model, tiny_tokenizer, scripts, language)[expert] > 0.7


def test_a_further_language_needs_no_old_text(tiny_model, tiny_tokenizer, scripts, sentences, tmp_path):
    """From kept statistics, and a corpus that has the new language only, come the routers of a joint fit."""
    joint, first, _ = lifelong(tiny_model, tiny_tokenizer, scripts)
    first.statistics.save(tmp_path / "statistics.safetensors")
    kept = RouterStatistics.load(tmp_path / "statistics.safetensors")
    assert kept.groups == [["en", "es"], ["el"]]
    model = upcycle(tiny_model("llama"), (1, 1), router_input="token_and_mean", router_bias=True)
    expansion_config(model).groups[-1] = ["el"]
    upcycle(model, (1, 1))
    only_new = TinyCorpus(sentences, ("hi",))
    fit_routers(
        model, tiny_tokenizer, only_new, original=["en", "es"], expanded=["hi"], settings=SETTINGS, earlier=kept
    )
    for language in ("en", "es", "el", "hi"):
        expected = expert_mass(joint, tiny_tokenizer, scripts, language)
        assert torch.allclose(expert_mass(model, tiny_tokenizer, scripts, language), expected, atol=0.1), language


def test_a_group_without_experts_in_a_layer_goes_to_the_original_expert_there(tiny_model, tiny_tokenizer, scripts):
    model, _, second = lifelong(tiny_model, tiny_tokenizer, scripts, allocation=(1, 0))
    assert expert_mass(model, tiny_tokenizer, scripts, "hi")[0] > 0.7
    assert expert_mass(model, tiny_tokenizer, scripts, "el")[1] > 0.7
    assert second.layers[1].original_weight_on_expanded < 0.4 < 0.8 < second.layers[1].original_weight_on_original


def test_statistics_of_other_groups_or_another_model_are_refused(tiny_model, tiny_tokenizer, scripts):
    model, first, second = lifelong(tiny_model, tiny_tokenizer, scripts)
    options = {"original": ["en", "es"], "expanded": ["hi"], "settings": SETTINGS}
    with pytest.raises(UsageError, match=r"statistics .*groups"):
        fit_routers(model, tiny_tokenizer, scripts, **options, earlier=second.statistics)
    with pytest.raises(UsageError, match="belongs to one group"):
        first.statistics.joined(first.statistics)


def test_local_review_is_a_stage_of_its_own_and_sends_originals_back(tiny_model, tiny_tokenizer, scripts):
    model = upcycle(tiny_model("llama"), (1, 2), router_input="token_and_mean", router_bias=True)
    expansion_config(model).groups[-1] = ["el"]
    with torch.no_grad():
        for layer in moe_layers(model):
            layer.stacks[0].down += 0.1
    before = expert_mass(model, tiny_tokenizer, scripts, "en")[0]
    fits = local_review(model, tiny_tokenizer, scripts, **OPTIONS, classifier_layers=[1])
    assert stage_names(model) == ["G1 expand", "G1 local review"]
    assert all(fit.auc > 0.9 for fit in fits.layers)
    assert expert_mass(model, tiny_tokenizer, scripts, "en")[0] > 0.85 > before
    assert expert_mass(model, tiny_tokenizer, scripts, "el")[0] < 0.25
    select_stage(model, "G1 expand")
    assert expert_mass(model, tiny_tokenizer, scripts, "en")[0] == before


def test_a_fitted_classifier_tells_the_languages_apart(tiny_model, tiny_tokenizer, scripts):
    model = upcycle(tiny_model("llama"), (1, 2), router_input="token_and_mean", router_bias=True)
    expansion_config(model).groups[-1] = ["el"]
    local_review(model, tiny_tokenizer, scripts, **OPTIONS, classifier_layers=[0, 1])
    for language, called_original in (("en", 1), ("el", 0)):
        ids = torch.tensor([tiny_tokenizer(scripts.documents("dev", language)[0].text)["input_ids"][:100]])
        with torch.no_grad(), record_routing(model) as record:
            model(ids)
        said = torch.stack([routing.classifier_logits.argmax(-1) == 0 for routing in record.routing.values()])
        assert abs(float(said.float().mean()) - called_original) < 0.15


def test_routers_can_start_at_the_mean_states_of_their_languages_without_a_constant(
    tiny_model, tiny_tokenizer, scripts
):
    model = upcycle(tiny_model("llama"), (2, 2))
    settings = dataclasses.replace(SETTINGS, solver="means")
    fit_routers(model, tiny_tokenizer, scripts, original=["en", "es"], expanded=["el", "hi"], settings=settings)
    weight = moe_layers(model)[1].router.weight
    assert weight.norm(dim=1).tolist() == pytest.approx([(2 * 33 / 36) ** 0.5] * 3, rel=0.02)
    masses = {code: expert_mass(model, tiny_tokenizer, scripts, code) for code in ("en", "el", "hi")}
    assert masses["en"][0] > max(masses["el"][0], masses["hi"][0])
    assert masses["el"][1] > max(masses["en"][1], masses["hi"][1])


@pytest.mark.parametrize("change", [{"solver": "lasso"}, {"divide": "evenly"}])
def test_unknown_settings_are_refused(change):
    with pytest.raises(UsageError, match="expected one of"):
        FitSettings(**change)
