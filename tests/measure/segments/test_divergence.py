"""Divergence in bits: 0 for equal, at most 1, the same both ways; and above 0 by chance, which dealt tokens show."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.sample_runs import make_trace
from lpr_lab.measure.segments.divergence import between_halves, divergence, jensen_shannon_bits, token_weights

shares = arrays(float, (3, 4), elements=st.floats(0, 1)).map(lambda x: (x + 1e-9) / (x + 1e-9).sum(-1, keepdims=True))


@given(shares, shares)
def test_it_is_symmetric_between_0_and_1_bit_and_0_for_equal(p, q):
    bits = jensen_shannon_bits(p, q)
    np.testing.assert_allclose(bits, jensen_shannon_bits(q, p), atol=1e-12)
    assert (bits >= 0).all() and (bits <= 1).all()
    assert (jensen_shannon_bits(p, p) == 0).all()


@given(shares, shares)
def test_it_is_the_entropy_of_the_middle_less_the_mean_of_both_entropies(p, q):
    entropy = lambda x: -(x * np.log2(x)).sum(-1)  # noqa: E731, none is 0 here
    expected = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    np.testing.assert_allclose(jensen_shannon_bits(p, q), expected, atol=1e-9)


def test_texts_that_share_no_expert_differ_by_1_bit_and_unused_experts_add_nothing():
    p, q = np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 1.0, 0])
    assert jensen_shannon_bits(p, q) == 1
    assert jensen_shannon_bits(p[:2], p[:2]) == jensen_shannon_bits(p, p) == 0


def test_weights_of_tokens_are_those_of_the_trace_without_the_separator():
    trace = make_trace("Το πρωί.", "el", num_layers=4, num_experts=5)
    weights = token_weights(trace)
    assert weights.shape == (int(trace.is_text.sum()), 4, int(trace.num_experts.max()))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(weights.mean(0), trace.mass(), atol=1e-6)


def tokens(count: int, share: float, seed: int) -> np.ndarray:
    """Tokens of a text in two layers, of which a share goes to expert 0; the others to expert 1."""
    goes = np.random.default_rng(seed).random((count, 2)) < share
    return np.stack([goes, ~goes], axis=-1).astype(float)


def test_two_samples_of_one_language_differ_by_about_as_much_as_chance_and_two_languages_by_more():
    ours = divergence(tokens(40, 0.5, 1), tokens(40, 0.5, 2), shuffles=200, seed=0)
    assert ours.bits.max() > 0 and (ours.chance > 0).all() and (ours.bits <= ours.chance_high).all()
    apart = divergence(tokens(40, 0.95, 1), tokens(40, 0.05, 2), shuffles=200, seed=0)
    assert (apart.bits > 10 * apart.chance_high).all()


def test_chance_is_less_with_more_tokens_and_the_same_for_the_same_seed():
    few, many = (divergence(tokens(n, 0.5, 1), tokens(n, 0.5, 2), shuffles=200, seed=3) for n in (20, 400))
    assert (many.chance < few.chance / 5).all()
    again = divergence(tokens(20, 0.5, 1), tokens(20, 0.5, 2), shuffles=200, seed=3)
    np.testing.assert_array_equal(few.chance_high, again.chance_high)


def test_without_deals_chance_is_not_known():
    found = divergence(tokens(5, 0.5, 1), tokens(5, 0.5, 2), shuffles=0, seed=0)
    assert np.isnan(found.chance).all() and np.isnan(found.chance_high).all() and not np.isnan(found.bits).any()


def test_halves_of_a_text_that_turns_around_differ_by_1_bit_and_a_single_token_has_none():
    turned = np.concatenate([tokens(10, 1.1, 0), tokens(10, -0.1, 0)])
    assert between_halves(turned) == pytest.approx([1, 1])
    assert between_halves(np.ones((8, 2, 1))) == pytest.approx([0, 0])
    assert np.isnan(between_halves(tokens(1, 0.5, 0))).all()
