"""The optimiser and its schedule are those of the papers' code: AdamW, a cosine to zero, clipped at norm 1, in bf16."""

import math
from dataclasses import asdict

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lpr_lab.method import paper_settings
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle

STEPS = 8
STAGES = {"stage 1": paper_settings.MOE_LPR_STAGE1, "stage 2": paper_settings.LAYER_MOE_STAGE2}


def small(settings, **changes):
    """Return the papers' settings with fewer and shorter blocks, everything else as it is."""
    size = {"tokens": STEPS * 4 * 32, "block_tokens": 32, "blocks_per_step": 4, "blocks_per_forward": 2}
    return TrainSettings(**{**asdict(settings), **size, "precision": paper_settings.PRECISION, **changes})


@pytest.fixture
def steps(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    """Return a function that trains a stage and returns its result, its log and what the optimizer met at each step."""

    def train(stage, settings, **options):
        seen, logged = [], []

        def see(optimizer, *_):
            groups = optimizer.param_groups
            learned = [
                (name, parameter, parameter.detach().clone(), parameter.grad.clone())
                for group in groups
                for name, parameter in zip(group["param_names"], group["params"], strict=True)
            ]
            seen.append((type(optimizer), [{**group, "params": None} for group in groups], learned))

        model = upcycle(tiny_model("llama"), (1, 3))
        handle = register_optimizer_step_pre_hook(see)
        options |= {"out": tmp_path / stage, "settings": settings, "log": logged.append}
        try:
            if stage == "stage 1":
                result = expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], **options)
            else:
                result = review(model, tiny_tokenizer, tiny_corpus, original=["en"], expanded=["el"], **options)
        finally:
            handle.remove()
        return result, logged, seen

    return train


@pytest.mark.parametrize("stage", STAGES)
def test_adamw_has_the_betas_and_no_weight_decay_and_every_group_the_cosine_to_zero(stage, steps):
    result, logged, seen = steps(stage, small(STAGES[stage]))
    assert result["precision"] == "bf16" and result["steps"] == len(seen) == STEPS
    for step, (kind, groups, _) in enumerate(seen):
        assert kind is torch.optim.AdamW
        rate = 5e-5 * (1 + math.cos(math.pi * step / STEPS)) / 2
        for group in groups:
            assert (group["betas"], group["eps"], group["weight_decay"], group["amsgrad"]) == (
                (0.9, 0.999),
                1e-8,
                0,
                False,
            )
            assert group["lr"] == pytest.approx(rate, rel=1e-6)
        assert logged[step]["lr"] == pytest.approx(rate, rel=1e-6)
    assert len(seen[0][1]) == (2 if stage == "stage 1" else 1)  # experts and routers, or routers alone


def test_the_first_step_moves_every_parameter_by_the_rate_against_the_sign_of_its_gradient(steps):
    """AdamW written out: bias-corrected moments of one gradient g are g and g², and nothing decays."""
    _, _, seen = steps("stage 1", small(STAGES["stage 1"], precision="fp32"))
    (_, _, first), (_, _, second) = seen[:2]
    for (name, _, before, gradient), (_, _, after, _) in zip(first, second, strict=True):
        expected = before - 5e-5 * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose(after, expected, atol=1e-8), name


@pytest.mark.parametrize(("coefficient", "is_clipped"), [(1e4, True), (0.01, False)])
def test_gradients_are_clipped_at_a_norm_of_1_over_all_parameters_together(coefficient, is_clipped, steps):
    settings = small(STAGES["stage 1"], precision="fp32", max_grad_norm=1.0 if is_clipped else 1e6)
    _, logged, seen = steps("stage 1", settings, load_balancing_coef=coefficient)
    for metrics, (_, _, learned) in zip(logged, seen, strict=True):
        norm = math.sqrt(sum(float(gradient.double().square().sum()) for *_, gradient in learned))
        assert norm == pytest.approx(1.0 if is_clipped else metrics["grad_norm"], rel=1e-3)
        assert not is_clipped or metrics["grad_norm"] > 10
