"""The equations state what the papers claim of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.errors import UsageError
from lpr_lab.method.losses import lm_loss, load_balancing_loss, lpr_loss, router_z_loss


@given(st.integers(2, 8), st.integers(1, 4))
def test_balance_loss_is_one_at_uniform_routing_whatever_the_number_of_experts(num_experts, top_k):
    # Every expert is first choice of as many tokens, with the same probabilities.
    logits = torch.stack([torch.roll(torch.linspace(1, 0, num_experts), shift) for shift in range(num_experts)])
    assert load_balancing_loss(logits, min(top_k, num_experts)) == pytest.approx(1.0, abs=1e-5)


def test_balance_loss_of_the_released_code_is_top_k_times_the_papers():
    logits = torch.randn(50, 6)
    assert load_balancing_loss(logits, 2, variant="released") == pytest.approx(
        2 * float(load_balancing_loss(logits, 2))
    )


def test_balance_loss_is_constant_without_gradient_when_all_experts_are_chosen():
    logits = torch.randn(50, 2, requires_grad=True)
    loss = load_balancing_loss(logits, 2)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-7


def test_balance_loss_grows_when_one_expert_takes_all():
    logits = torch.zeros(50, 4)
    logits[:, 0] = 10
    logits[:, 1] = 5
    assert load_balancing_loss(logits, 2) > 1.5


def test_balance_loss_leaves_out_masked_tokens():
    logits, mask = torch.randn(50, 4), torch.arange(50) < 20
    assert load_balancing_loss(logits, 2, mask) == pytest.approx(float(load_balancing_loss(logits[:20], 2)), rel=1e-6)


def test_lpr_loss_vanishes_when_original_tokens_choose_the_original_expert():
    logits = torch.tensor([[40.0, 0.0, 0.0], [0.0, 40.0, 0.0]])
    assert lpr_loss(logits, torch.tensor([True, False])) == pytest.approx(0.0, abs=1e-6)


def test_lpr_loss_ignores_tokens_of_expanded_languages():
    logits = torch.randn(10, 3, requires_grad=True)
    lpr_loss(logits, torch.arange(10) < 4).backward()
    assert logits.grad is not None
    assert not logits.grad[4:].any()
    assert logits.grad[:4].any()


def test_lpr_loss_is_zero_and_finite_without_any_original_token():
    logits = torch.randn(10, 3, requires_grad=True)
    loss = lpr_loss(logits, torch.zeros(10, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("num_experts", [2, 3, 4, 6])
def test_lpr_loss_of_the_released_code_never_falls_below_its_floor(num_experts):
    logits = torch.zeros(1, num_experts)
    logits[0, 0] = 100
    floor = math.log(1 + (num_experts - 1) / math.e)
    assert lpr_loss(logits, torch.tensor([True]), variant="released") == pytest.approx(floor, abs=1e-5)
    assert lpr_loss(logits, torch.tensor([True])) == pytest.approx(0.0, abs=1e-6)


def test_router_z_loss_is_the_squared_log_sum_exp():
    logits = torch.zeros(5, 4)
    assert router_z_loss(logits) == pytest.approx(math.log(4) ** 2, rel=1e-5)


def test_lm_loss_is_the_mean_over_scored_positions():
    logits, targets = torch.randn(6, 9), torch.tensor([1, 2, -100, 3, -100, 4])
    scored = [0, 1, 3, 5]
    expected = -logits.log_softmax(-1)[scored, targets[scored]].mean()
    assert lm_loss(logits, targets) == pytest.approx(float(expected), rel=1e-5)


def test_an_unknown_variant_is_refused():
    with pytest.raises(UsageError, match="paper, released"):
        lpr_loss(torch.zeros(1, 2), torch.tensor([True]), variant="relesed")
