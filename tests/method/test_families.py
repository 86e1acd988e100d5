"""Every family goes through both stages: what may change does, the loss falls, checkpointing and saving are exact."""

import dataclasses
import math

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lpr_lab.method.expand import expand
from lpr_lab.method.losses import expert_counts, load_balancing_loss
from lpr_lab.method.review import review
from lpr_lab.method.training import terms
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.bases.load import load_base
from lpr_lab.model.formats import save_load as files

SETTINGS = TrainSettings(
    tokens=16 * 4 * 24,
    block_tokens=24,
    blocks_per_step=4,
    blocks_per_forward=4,
    learning_rate=1e-2,
    router_learning_rate=0.05,
    precision="fp32",
)
ONE_STEP = dataclasses.replace(SETTINGS, tokens=4 * 24, blocks_per_forward=2, max_grad_norm=1e9)


def shake(model, seed=0):
    """Move what is new away from its start, where experts are equal and routers have no gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "moe_lpr_" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def snapshot(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(model, before):
    return {
        name for name, tensor in model.state_dict().items() if name in before and not torch.equal(tensor, before[name])
    }


class Stages:
    """Both stages with the tiny texts; what they log is kept."""

    def __init__(self, tokenizer, corpus, out):
        self.tokenizer, self.corpus, self.out = tokenizer, corpus, out

    def expand(self, model, out="1", settings=SETTINGS, **options):
        logged = []
        options |= {"out": self.out / out, "settings": settings, "log": logged.append}
        expand(model, self.tokenizer, self.corpus, languages=["el", "tr"], **options)
        return logged

    def review(self, model, out="2", settings=SETTINGS, **options):
        logged = []
        options |= {"out": self.out / out, "settings": settings, "log": logged.append}
        review(model, self.tokenizer, self.corpus, original=["en"], expanded=["el"], **options)
        return logged


@pytest.fixture
def stages(tiny_tokenizer, tiny_corpus, tmp_path):
    return Stages(tiny_tokenizer, tiny_corpus, tmp_path)


def falls(logged, name):
    values = [metrics[name] for metrics in logged]
    assert all(math.isfinite(value) for value in values)
    return sum(values[-4:]) < sum(values[:4])


def gradients(run, model, **options):
    """Return the gradients of a stage's first step by parameter name."""
    found = {}

    def see(optimizer, *_):
        for group in optimizer.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                found[name] = parameter.grad.clone()

    handle = register_optimizer_step_pre_hook(see)
    try:
        run(model, **options)
    finally:
        handle.remove()
    return found


def test_both_stages_train_what_they_may_and_what_is_saved_gives_the_same_logits(
    family, tiny_model, tiny_tokenizer, stages, tmp_path
):
    tiny_model(family).save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    dense, _ = load_base(str(tmp_path / "base"))
    model = upcycle(dense, (1, 3))
    before = snapshot(model)
    assert falls(stages.expand(model), "lm_loss")
    assert changed(model, before) == {name for name in before if "moe_lpr_" in name}
    between = snapshot(model)
    assert falls(stages.review(model, classifier_layers=[1], lpr_coef=1.0), "lpr_loss")
    assert not changed(model, between)
    files.save_expansion(model, tmp_path / "run" / "checkpoint")
    ids = torch.arange(5, 25)[None]
    model.eval()
    with torch.no_grad():
        assert torch.equal(files.load_expansion(tmp_path / "run")(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("stage", "what"),
    [
        ("expand", True),
        ("review", "experts"),
        pytest.param("expand", "experts", marks=pytest.mark.slow),
        pytest.param("review", True, marks=pytest.mark.slow),
    ],
)
def test_activation_checkpointing_gives_the_same_gradients(stage, what, family, tiny_model, stages):
    """Also where a layer that runs again must see the running mean, the routing and the dropout of the first time."""
    found, num_passes = [], []
    for checkpointing in (False, what):
        one_step = dataclasses.replace(ONE_STEP, activation_checkpointing=checkpointing)
        model = shake(upcycle(tiny_model(family), (1, 3), router_input="token_and_mean", router_bias=True))
        passes = []
        layer = moe_layers(model)[1]
        watched = layer.base_layer if what == "experts" else layer
        watched.register_forward_pre_hook(lambda *_, passes=passes: passes.append(1))
        found.append(gradients(getattr(stages, stage), model, out=str(checkpointing), settings=one_step))
        num_passes.append(len(passes))
    plain, checkpointed = found
    assert num_passes[1] == num_passes[0] + 2  # layers, or experts, did run again, once per micro-batch
    for name, gradient in plain.items():
        assert gradient.any(), name
        assert torch.allclose(checkpointed[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max())), name


def test_the_pass_that_counts_choices_sees_the_dropout_of_the_pass_that_learns(tiny_model, stages, monkeypatch):
    """GPT-2 trains with dropout; the balance loss counts the choices of a step before it learns from them."""
    dense = tiny_model("gpt2")
    assert dense.config.resid_pdrop > 0
    seen = []

    def spy(router_logits, top_k, mask, variant, step_counts):
        seen.append((step_counts, expert_counts(router_logits, top_k, mask)))
        return load_balancing_loss(router_logits, top_k, mask, variant, step_counts)

    monkeypatch.setattr(terms, "load_balancing_loss", spy)
    settings = dataclasses.replace(SETTINGS, tokens=4 * 24, blocks_per_forward=1)
    stages.expand(shake(upcycle(dense, (2, 2))), settings=settings)
    assert len(seen) == 8  # four micro-batches of two layers
    for layer in range(2):
        assert torch.equal(seen[layer][0], sum(counts for _, counts in seen[layer::2]))


LONG = 80
"""Tokens of a text that is longer than the sliding windows of the families that have them (64)."""


@torch.no_grad()
def test_a_long_document_routes_the_same_packed_padded_and_in_cached_generation(family_model):
    model = shake(upcycle(family_model, (1, 3), router_input="token_and_mean", router_bias=True))
    ids = torch.randint(5, model.config.vocab_size, (1, LONG + 20), generator=torch.Generator().manual_seed(1))
    document = ids[:, 20:]
    alone = model(document, use_cache=False).logits
    positions = torch.cat([torch.arange(20), torch.arange(LONG)])[None]
    packed = model(ids, position_ids=positions, use_cache=False).logits[:, 20:]
    assert torch.allclose(packed, alone, atol=1e-4)
    mask = torch.cat([torch.zeros(1, 20), torch.ones(1, LONG)], dim=1).long()
    places = (mask.cumsum(1) - 1).clamp(min=0)
    padded = model(ids, attention_mask=mask, position_ids=places, use_cache=False).logits[:, 20:]
    assert torch.allclose(padded, alone, atol=1e-4)
    start = model(document[:, :60], use_cache=True)
    steps = [start.logits]
    for token in document[:, 60:].split(1, dim=1):  # across the end of the window
        steps.append(model(token, past_key_values=start.past_key_values, use_cache=True).logits)
    assert torch.allclose(torch.cat(steps, dim=1), alone, atol=1e-4)
