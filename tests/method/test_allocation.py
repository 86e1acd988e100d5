"""A budget is divided as the rule says, for any similarities: spent exactly, in order, within bounds."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lpr_lab.errors import UsageError
from lpr_lab.method.allocation import ORDERS, Allocation, allocate, delta_for, uniform
from lpr_lab.method.similarity_table import SimilarityTable


def for_any(*strategies):
    """Try a test on many examples, without a clock: other work may run on the machine."""
    return lambda test: settings(deadline=None)(given(*strategies)(test))


SIMILARITIES = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=24)
"""One per layer."""

# Totals per layer on Qwen1.5-1.8B that the authors of LayerMoE published in their scripts: expert 0 is counted.
FIRST_EXPANSION = (5, 4, 3, 5, 4, 3, 2, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 3, 3)
AFTER_SECOND_EXPANSION = (10, 8, 6, 9, 8, 5, 3, 5, 5, 4, 3, 3, 3, 3, 3, 3, 3, 5, 5, 6, 6, 6, 4, 4)


@st.composite
def problems(draw):
    """Similarities, floor, ceiling (or None) and a budget that fits them."""
    similarity = draw(SIMILARITIES)
    least = draw(st.integers(0, 3))
    most = draw(st.none() | st.integers(max(least, 1), 8))
    lowest = max(least * len(similarity), 1)
    budget = draw(st.integers(lowest, 200 if most is None else most * len(similarity)))
    return similarity, budget, {"min_new": least, "max_new": most}


@for_any(problems(), st.sampled_from([*ORDERS]))
def test_a_budget_of_experts_is_spent_exactly(problem, by):
    similarity, budget, bounds = problem
    assert allocate(similarity, budget, by=by, **bounds).total == budget


@for_any(problems())
def test_a_less_similar_layer_never_gets_fewer_experts(problem):
    similarity, budget, bounds = problem
    counts = allocate(similarity, budget, **bounds).new_experts
    for value, count in zip(similarity, counts, strict=True):
        assert all(count >= other for more, other in zip(similarity, counts, strict=True) if value < more)


@for_any(problems(), st.sampled_from([*ORDERS]))
def test_floor_and_ceiling_are_kept(problem, by):
    similarity, budget, bounds = problem
    counts = allocate(similarity, budget, by=by, **bounds).new_experts
    most = budget if bounds["max_new"] is None else bounds["max_new"]
    assert all(bounds["min_new"] <= count <= most for count in counts)


@for_any(st.lists(st.sampled_from([0.05, 0.1, 0.3]), min_size=2, max_size=20), st.integers(1, 100))
def test_equally_similar_layers_differ_by_at_most_one_in_favour_of_the_earlier(similarity, budget):
    counts = allocate(similarity, budget).new_experts
    for value in set(similarity):
        tied = [count for other, count in zip(similarity, counts, strict=True) if other == value]
        assert tied == sorted(tied, reverse=True) and tied[0] - tied[-1] <= 1


@for_any(problems())
def test_no_layer_is_further_than_one_expert_from_its_exact_share(problem):
    """Without bounds: the largest-remainder rule rounds shares, it does not bend them."""
    similarity, budget, _ = problem
    counts = allocate(similarity, budget).new_experts
    total = sum(1 / Fraction(value) for value in similarity)
    for value, count in zip(similarity, counts, strict=True):
        assert abs(count - budget / Fraction(value) / total) < 1


@for_any(SIMILARITIES, st.integers(1, 4), st.integers(1, 400))
def test_a_budget_that_cannot_be_met_is_refused_with_the_numbers(similarity, bound, excess):
    layers = len(similarity)
    too_much = bound * layers + excess
    with pytest.raises(UsageError, match=f"budget of {too_much:,} .* {layers} layers .* 0 to {bound} "):
        allocate(similarity, too_much, max_new=bound)
    too_little = bound * layers - 1
    if too_little:
        with pytest.raises(UsageError, match=f"budget of {too_little:,} .* {bound * layers:,} or more"):
            allocate(similarity, too_little, min_new=bound)
    with pytest.raises(UsageError, match="pays for no expert"):
        allocate(similarity, 0)


@for_any(st.lists(st.tuples(st.floats(0.001, 1.0), st.integers(1, 9)), min_size=1, max_size=16), st.integers(1, 500))
def test_a_budget_in_parameters_is_a_limit_and_what_is_left_pays_for_nothing_that_was_rounded_down(layers, budget):
    similarity, sizes = [s for s, _ in layers], [size for _, size in layers]
    assume(budget >= min(sizes))
    chosen = allocate(similarity, budget, parameters_per_expert=sizes)
    left = budget - chosen.parameters(sizes)
    assert left >= 0
    inverse = [1 / Fraction(value) for value in similarity]
    scale = budget / sum(size * share for size, share in zip(sizes, inverse, strict=True))
    for count, share, size in zip(chosen.new_experts, inverse, sizes, strict=True):
        assert count == math.floor(scale * share) or count == math.ceil(scale * share)
        assert size > left or count >= scale * share


@for_any(problems(), st.integers(1, 10_000))
def test_with_experts_of_one_size_parameters_buy_what_experts_buy(problem, size):
    similarity, budget, bounds = problem
    sizes = [size] * len(similarity)
    in_experts = allocate(similarity, budget, **bounds)
    assert allocate(similarity, budget * size, parameters_per_expert=sizes, **bounds) == in_experts
    assert in_experts.parameters(sizes) == budget * size
    almost_one_more = allocate(similarity, budget * size + size - 1, parameters_per_expert=sizes, **bounds)
    assert almost_one_more.total == budget


@for_any(problems(), st.sampled_from([*ORDERS]), st.integers(0, 3))
def test_controls_give_the_same_numbers_to_other_layers(problem, by, seed):
    similarity, budget, bounds = problem
    control = allocate(similarity, budget, by=by, seed=seed, **bounds).new_experts
    assert sorted(control) == sorted(allocate(similarity, budget, **bounds).new_experts)


def test_each_control_puts_the_most_where_its_name_says():
    similarity = [0.2, 0.4, 0.1, 0.3]
    counts = {by: allocate(similarity, 25, by=by).new_experts for by in ORDERS}
    assert counts["similarity"] == (6, 3, 12, 4)
    assert counts["inverse"] == (4, 12, 3, 6)
    assert counts["first"] == (12, 6, 4, 3)
    assert counts["last"] == (3, 4, 6, 12)
    assert len({allocate(similarity, 25, by="random", seed=seed).new_experts for seed in range(20)}) > 5
    assert counts["random"] == allocate(similarity, 25, by="random", seed=0).new_experts


def test_equal_similarities_are_the_uniform_allocation():
    assert allocate([0.3] * 30, 60) == uniform(30, per_layer=2)
    assert allocate([0.3] * 4, 5).new_experts == (2, 1, 1, 1)


def test_a_measured_table_gives_the_curve_and_the_sizes():
    pairs = np.array([[[1, s], [s, 1]] for s in (0.2, 0.4, 0.1)])
    table = SimilarityTable(
        original=("en",),
        expanded=("el",),
        pairs=pairs,
        num_tokens=(9, 9),
        expert_parameters=(7, 7, 7),
        state="mlp_input",
    )
    assert allocate(table, 7) == allocate([0.2, 0.4, 0.1], 7) == Allocation((2, 1, 4))
    assert allocate(table, 50, parameters_per_expert=table.expert_parameters) == Allocation((2, 1, 4))


def test_layers_may_stay_dense():
    assert allocate([0.1, 0.9, 0.9], 2).new_experts == (2, 0, 0)
    assert allocate([0.1, 0.9, 0.9], 3, min_new=1).new_experts == (1, 1, 1)


# ------------------------------------------------------------------------------------------------- the paper's rule


@for_any(SIMILARITIES, st.floats(1, 300))
def test_rounding_up_overshoots_delta_by_less_than_one_expert_per_layer(similarity, delta):
    added = allocate(similarity, delta, rule="round_up_added")
    assert delta <= added.total < Fraction(delta) + len(similarity)
    assert min(added.new_experts) >= 1


def test_rounding_up_comes_to_about_delta_plus_half_an_expert_per_layer():
    """The authors' delta for Llama-3.2-3B is 70 and their total 84 = 70 + 28 / 2."""
    rng = random.Random(0)
    over = [
        allocate([rng.uniform(0.03, 0.12) for _ in range(28)], 70, rule="round_up_added").total - 70 for _ in range(200)
    ]
    assert sum(over) / len(over) == pytest.approx(14, abs=1)


@for_any(SIMILARITIES, st.floats(30, 300))
def test_in_a_first_expansion_the_paper_counts_expert_0(similarity, delta):
    added = allocate(similarity, delta, rule="round_up_added").new_experts
    assume(max(added) > 1)
    assert allocate(similarity, delta, rule="round_up").new_experts == tuple(count - 1 for count in added)


@for_any(SIMILARITIES, st.floats(1, 300))
def test_rounding_up_is_the_papers_formula_in_a_first_and_in_a_second_expansion(similarity, delta):
    """N_i = ceil((1/S_i) / sum of 1/S_k * delta): with expert 0 at first, the number added after that."""
    inverse = [1 / Fraction(value) for value in similarity]
    formula = [math.ceil(share / sum(inverse) * Fraction(delta)) for share in inverse]
    assume(max(formula) > 1)
    assert allocate(similarity, delta, rule="round_up").new_experts == tuple(number - 1 for number in formula)
    assert allocate(similarity, delta, rule="round_up_added").new_experts == tuple(formula)


@pytest.mark.parametrize("margin", [Fraction(1, 100), Fraction(1, 2), Fraction(99, 100)])
def test_claim_5_round_up_reproduces_published_lists_from_similarities_that_stand_for_them(margin):
    """The published similarities are not at hand, so these are made: each layer's value of the formula lies `margin`
    below the published number. What is checked is the rule: what counts expert 0, and that rounding is upwards."""

    def standing_for(counts):
        values = [count - margin for count in counts]
        return [float(1 / value) for value in values], float(sum(values))

    similarity, delta = standing_for(FIRST_EXPANSION)
    first = allocate(similarity, delta, rule="round_up")
    assert first.new_experts == tuple(count - 1 for count in FIRST_EXPANSION) and first.total == 48
    added = [after - before for after, before in zip(AFTER_SECOND_EXPANSION, FIRST_EXPANSION, strict=True)]
    similarity, delta = standing_for(added)
    second = allocate(similarity, delta, rule="round_up_added")
    assert second.new_experts == tuple(added) and second.total == 48


@for_any(SIMILARITIES, st.integers(0, 60), st.sampled_from(["round_up", "round_up_added"]), st.sampled_from([*ORDERS]))
def test_a_delta_for_a_budget_spends_all_of_it_that_layers_which_step_up_together_allow(similarity, more, rule, by):
    layers = len(similarity)
    budget = more + layers
    delta = delta_for(similarity, budget, rule, by=by)
    found = sum(allocate(similarity, delta, rule, by=by).new_experts)
    assert budget - layers < found <= budget
    inverse = [1 / Fraction(value) for value in similarity]
    shares = [value / sum(inverse) for value in inverse]
    counted = layers if rule == "round_up" else 0  # expert 0 of every layer
    next_steps = [float(math.ceil(Fraction(delta) * share) / share) for share in shares]
    around = {math.nextafter(step, towards) for step in next_steps for towards in (0, step, math.inf)}
    spent = [sum(math.ceil(Fraction(other) * share) for share in shares) - counted for other in around]
    assert not [total for total in spent if found < total <= budget]


@pytest.mark.parametrize(
    ("similarity", "budget", "rule", "spends"),
    [
        ([1.0, 0.75, 0.375, 1 / 3, 0.04296875], 34, "round_up_added", 33),  # no float between two steps
        ([1.0, 0.5], 2, "round_up", 1),  # layers of other similarity that step up together
    ],
)
def test_a_delta_for_a_budget_never_spends_more(similarity, budget, rule, spends):
    assert sum(allocate(similarity, delta_for(similarity, budget, rule), rule).new_experts) == spends


@pytest.mark.parametrize(("counts", "new"), [(FIRST_EXPANSION, 48), (AFTER_SECOND_EXPANSION, 96)])
def test_the_delta_for_a_published_total_gives_the_published_list(counts, new):
    similarity = [float(1 / (count - Fraction(1, 2))) for count in counts]
    found = allocate(similarity, delta_for(similarity, new), "round_up").new_experts
    assert sum(found) == new and [count + 1 for count in found] == list(counts)


def test_a_budget_below_one_expert_for_each_layer_cannot_be_added_by_rounding_up():
    for similarity, rule in (([0.1, 0.2, 0.3], "round_up_added"), ([0.2, 0.2, 0.2], "round_up")):
        with pytest.raises(UsageError, match=r"budget of 2 .* adds 3 experts"):
            delta_for(similarity, 2, rule)


def test_the_papers_rule_is_exact_where_shares_are_whole():
    """In floating point 3 experts in each of 10 layers come to 3.0000000000000004, and up to 4."""
    assert allocate([0.1] * 10, 30, rule="round_up_added").new_experts == (3,) * 10


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("similarity", "named"),
    [([0.1, -0.2, 0.0], "layer 1: -0.2, layer 2: 0"), ([math.nan, 0.1], "layer 0: nan"), ([], "got none")],
)
def test_similarities_that_are_not_positive_are_refused_by_layer(similarity, named):
    with pytest.raises(UsageError, match=named):
        allocate(similarity, 4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rule": "round"}, "mean 'round_up'"),
        ({"by": "firts"}, "mean 'first'"),
        ({"min_new": 2, "max_new": 1}, "min_new = 2 .*max_new = 1"),
        ({"budget": 2.5}, "expected a whole number"),
        ({"budget": math.nan}, "expected a whole number"),
        ({"budget": 9, "parameters_per_expert": [10, 20]}, "9 parameters .*no expert.* 10"),
        ({"parameters_per_expert": [10]}, "for each of 2 layers"),
        ({"rule": "round_up", "parameters_per_expert": [10, 10]}, "drop parameters_per_expert"),
        ({"rule": "round_up", "budget": 0}, "a number above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, reason):
    with pytest.raises(UsageError, match=reason):
        allocate([0.1, 0.2], **{"budget": 4, **options})


def test_an_explicit_list_is_an_allocation():
    plan = Allocation((0, 2, 1))
    assert plan.total == 3 and plan.parameters([10, 20, 30]) == 70
    with pytest.raises(UsageError, match="adds no expert"):
        Allocation((0, 0))
