"""The equations state what the papers claim of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpr_lab.errors import UsageError
from lpr_lab.method.losses import (
    classifier_loss,
    expert_counts,
    group_loss,
    lm_loss,
    load_balancing_loss,
    lpr_layer_weights,
    lpr_loss,
    router_z_loss,
)
from lpr_lab.method.training.terms import Forward, balance_term, classifier_term, lm_term, lpr_term
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import record_routing
from lpr_lab.model.router import Routing


@settings(deadline=None)  # the first example pays for torch's start
@given(st.integers(2, 8), st.integers(1, 4))
def test_claim_3_balance_loss_is_one_at_uniform_routing_whatever_the_number_of_experts(num_experts, top_k):
    # Every expert is first choice of as many tokens, with the same probabilities.
    logits = torch.stack([torch.roll(torch.linspace(1, 0, num_experts), shift) for shift in range(num_experts)])
    assert load_balancing_loss(logits, min(top_k, num_experts)) == pytest.approx(1.0, abs=1e-5)


def test_balance_loss_of_the_released_code_is_top_k_times_the_papers():
    logits = torch.randn(50, 6)
    assert load_balancing_loss(logits, 2, variant="released") == pytest.approx(
        2 * float(load_balancing_loss(logits, 2))
    )


@pytest.mark.parametrize("num_experts", [2, 3, 5])
def test_claim_3_balance_loss_is_constant_without_gradient_when_all_experts_are_chosen(num_experts):
    logits = torch.randn(50, num_experts, requires_grad=True)
    loss = load_balancing_loss(logits, num_experts)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-7


def test_balance_loss_grows_when_one_expert_takes_all():
    logits = torch.zeros(50, 4)
    logits[:, 0] = 10
    logits[:, 1] = 5
    assert load_balancing_loss(logits, 2) > 1.5


def test_balance_loss_of_a_layer_with_fewer_experts_than_top_k_is_that_of_all_chosen():
    assert load_balancing_loss(torch.randn(50, 2), 4) == pytest.approx(1.0)


def test_balance_losses_of_parts_average_to_that_of_the_whole_given_its_counts():
    logits = torch.randn(50, 5)
    counts = expert_counts(logits, 2)
    parts = [load_balancing_loss(part, 2, step_counts=counts) * len(part) for part in logits.split([7, 40, 3])]
    assert float(sum(parts)) / 50 == pytest.approx(float(load_balancing_loss(logits, 2)), rel=1e-5)
    alone = [load_balancing_loss(part, 2) * len(part) for part in logits.split([7, 40, 3])]
    assert float(sum(alone)) / 50 > 1.01 * float(load_balancing_loss(logits, 2))  # the papers' micro-batches


def test_expert_counts_are_choices_of_unmasked_tokens():
    logits = torch.randn(50, 5)
    assert int(expert_counts(logits, 2).sum()) == 100
    assert torch.equal(expert_counts(logits, 2, torch.arange(50) < 20), expert_counts(logits[:20], 2))


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


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_claim_4_lpr_loss_is_zero_and_finite_without_any_original_token(variant):
    logits = torch.randn(10, 3, requires_grad=True)
    loss = lpr_loss(logits, torch.zeros(10, dtype=torch.bool), variant)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()  # and so not NaN either


def test_claim_4_lpr_loss_has_a_gradient_only_through_routers(tiny_model):
    model = upcycle(tiny_model("llama"), (1, 2))
    for parameter in model.parameters():  # also what no stage would train
        parameter.requires_grad_(True)
    with record_routing(model) as record:
        model(torch.arange(5, 25)[None], use_cache=False)
    lpr_loss(record.routing[0].router_logits, torch.ones(20, dtype=torch.bool)).backward()
    first = moe_layers(model)[0]
    assert first.router.weight.grad is not None and first.router.weight.grad.any()
    assert all(parameter.grad is None for stack in first.stacks for parameter in stack.parameters())
    assert all(parameter.grad is None for parameter in first.base_layer.parameters())


@pytest.mark.parametrize("num_experts", [2, 3, 4, 6])
def test_claim_4_lpr_loss_of_the_released_code_never_falls_below_its_floor(num_experts):
    logits = torch.zeros(1, num_experts)
    logits[0, 0] = 100
    floor = math.log(1 + (num_experts - 1) / math.e)
    assert lpr_loss(logits, torch.tensor([True]), variant="released") == pytest.approx(floor, abs=1e-5)
    assert lpr_loss(logits, torch.tensor([True])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("p0", "percent"), [(0.01, 1), (1 / 6, 17), (0.5, 46), (0.9, 73)])
def test_claim_4_the_released_lpr_loss_pulls_least_where_routing_is_most_wrong(p0, percent):
    """Its gradient on expert 0's logit in percent of the paper's, for six experts, the other five alike."""
    slopes = []
    for variant in ("released", "paper"):
        logits = torch.full((1, 6), math.log((1 - p0) / 5))
        logits[0, 0] = math.log(p0)
        logits.requires_grad_(True)
        lpr_loss(logits, torch.tensor([True]), variant).backward()
        assert logits.grad is not None
        slopes.append(float(logits.grad[0, 0]))
    assert 100 * slopes[0] / slopes[1] == pytest.approx(percent, abs=0.5)


def released_lpr_loss(logits_of_layers, is_original):
    """Write out what the description of LayerMoE's code says, loop by loop, in double precision.

    Layers by their number of experts; in each of these groups the cross-entropy of expert 0, softmax of softmax, mean
    over (layers x original tokens); then the mean of the groups.
    """
    groups = []
    for num_experts in sorted({layer.shape[-1] for layer in logits_of_layers}):
        penalties = []
        for layer in logits_of_layers:
            if layer.shape[-1] != num_experts:
                continue
            for row in layer[is_original].double():
                probs = [math.exp(z) for z in row.tolist()]
                probs = [p / sum(probs) for p in probs]
                again = [math.exp(p) for p in probs]
                penalties.append(-math.log(again[0] / sum(again)))
        groups.append(sum(penalties) / len(penalties))
    return sum(groups) / len(groups)


def routings(num_experts, num_tokens):
    """Return the routing of layers with so many experts; layers without a router are in no record."""
    nothing = torch.empty(num_tokens, 0)
    return {
        layer: Routing(torch.randn(num_tokens, number) * 2, nothing, nothing)
        for layer, number in enumerate(num_experts)
        if number > 1
    }


ALLOCATIONS = {"alike": [3, 3, 3], "uneven": [5, 2, 2, 2, 3, 2], "with dense layers": [1, 4, 2, 1, 2], "one": [1, 6]}


@pytest.mark.parametrize("num_experts", ALLOCATIONS.values(), ids=ALLOCATIONS)
@pytest.mark.parametrize("rows_per_forward", [1, 2, 4])
def test_the_released_lpr_term_is_what_the_released_code_computes_over_the_tokens_of_a_step(
    num_experts, rows_per_forward
):
    """Ragged blocks, one of them without an original token, in micro-batches: the step is one mean over its tokens."""
    languages = torch.tensor([[0, 0, 2, -1, -1], [2, 2, 2, 2, -1], [1, 0, 1, 2, 0], [1, -1, -1, -1, -1]])
    routing = routings(num_experts, languages.numel())
    expected = released_lpr_loss(
        [of_layer.router_logits for of_layer in routing.values()], ((languages >= 0) & (languages < 2)).flatten()
    )
    term = lpr_term(2, 0.1, "released")
    total = 0.0
    for start in range(0, len(languages), rows_per_forward):
        batch = {"language_id": languages[start : start + rows_per_forward]}
        rows = slice(start * 5, (start + rows_per_forward) * 5)
        part = {layer: Routing(r.router_logits[rows], r.expert_ids, r.expert_weights) for layer, r in routing.items()}
        total += float(term.total(Forward(batch, torch.empty(0), part)))
    assert total / term.count({"language_id": languages}) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(2, 8), min_size=1, max_size=30))
def test_layers_weigh_alike_in_the_papers_lpr_loss_and_their_groups_alike_in_the_released_one(num_experts):
    weights = lpr_layer_weights(num_experts, "released")
    assert sum(weights) == pytest.approx(1) and sum(lpr_layer_weights(num_experts)) == pytest.approx(1)
    pairs = [*zip(weights, num_experts, strict=True)]
    groups = {number: sum(weight for weight, of in pairs if of == number) for number in num_experts}
    assert [*groups.values()] == pytest.approx([1 / len(groups)] * len(groups))
    if len(groups) == 1:
        assert weights == pytest.approx(lpr_layer_weights(num_experts))


def test_only_the_released_lpr_term_gives_rare_numbers_of_experts_more_weight():
    languages = torch.tensor([[0, 0, 1]])
    routing = routings([2, 2, 2, 5], 3)
    mask = languages.flatten() == 0
    alone = [float(lpr_loss(r.router_logits, mask)) for r in routing.values()]
    paper = lpr_term(1, 0.1).total(Forward({"language_id": languages}, torch.empty(0), routing))
    assert float(paper) / 2 == pytest.approx(sum(alone) / 4, rel=1e-6)


@pytest.mark.parametrize("num_experts", ALLOCATIONS.values(), ids=ALLOCATIONS)
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_balance_term_is_its_equation_in_every_layer_and_their_plain_mean(variant, num_experts, tiny_model):
    """`sum of f_i P_i`, as released without the 1/K in f_i; K is no more than there are experts. All layers alike."""
    model = upcycle(tiny_model("llama", num_layers=len(num_experts)), [number - 1 for number in num_experts])
    languages = torch.tensor([[0, 0, 1, -1], [1, 1, -1, -1]])
    is_text = (languages >= 0).flatten()
    routing = routings(num_experts, 8)
    layers = []
    for of_layer in routing.values():
        probs = of_layer.router_logits[is_text].double().softmax(-1)
        number, top_k = probs.shape[-1], min(2, probs.shape[-1])
        best = probs.argsort(dim=-1, descending=True)[:, :top_k]
        chosen = [sum(int(i in row) for row in best.tolist()) / len(probs) for i in range(number)]
        total = number * sum(chosen[i] * float(probs[:, i].mean()) for i in range(number))
        layers.append(total / top_k if variant == "paper" else total)
    term = balance_term(model, 0.01, variant)
    total = term.total(Forward({"language_id": languages}, torch.empty(0), routing))
    assert float(total) / term.count({"language_id": languages}) == pytest.approx(sum(layers) / len(layers), rel=1e-6)


def test_lpr_loss_is_minus_the_log_of_the_probability_of_expert_0_mean_over_tokens_of_original_languages():
    logits, is_original = torch.randn(30, 5) * 2, torch.arange(30) % 3 == 0
    by_hand = [-math.log(math.exp(row[0]) / sum(map(math.exp, row))) for row in logits[is_original].tolist()]
    assert lpr_loss(logits, is_original) == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)


OWN = torch.tensor([[False, True, True, False]])


def test_group_loss_vanishes_for_a_router_that_sends_a_group_wholly_to_its_experts_in_any_proportions():
    for split in ((40.0, 40.0), (40.0, 0.0), (38.0, 40.0)):
        logits = torch.tensor([[-40.0, *split, -40.0]])
        assert group_loss(logits, OWN, torch.tensor([True])) == pytest.approx(0.0, abs=1e-6)
    astray = torch.tensor([[9.0, 0.0, 0.0, 0.0]])
    assert group_loss(astray, OWN, torch.tensor([True])) == pytest.approx(9 - math.log(2), abs=1e-3)


def test_group_loss_is_minus_the_log_of_the_probability_of_the_groups_experts():
    logits, own, mask = torch.randn(10, 4), torch.rand(10, 4) < 0.5, torch.arange(10) < 6
    own[:6, 0] = True  # whoever counts has an expert
    expected = -(logits.softmax(-1) * own).sum(-1)[:6].log().mean()
    assert group_loss(logits, own, mask) == pytest.approx(float(expected), rel=1e-5)


def test_group_loss_pulls_up_the_groups_own_experts_and_pushes_down_all_others():
    logits = torch.randn(1, 4, requires_grad=True)
    group_loss(logits, OWN, torch.tensor([True])).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad < 0, OWN)  # a step goes against the gradient


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_group_loss_asks_nothing_of_other_tokens_even_where_they_own_no_expert(variant):
    logits, own = torch.randn(6, 4, requires_grad=True), torch.zeros(6, 4, dtype=torch.bool)
    own[:2, 1] = True
    loss = group_loss(logits, own, torch.arange(6) < 2, variant)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[:2].any()
    assert not logits.grad[2:].any()
    nobody = group_loss(logits, own, torch.zeros(6, dtype=torch.bool), variant)
    assert float(nobody.detach()) == 0.0


def test_the_released_group_loss_is_the_same_for_one_expert_and_wants_several_used_equally():
    one = torch.tensor([[False, True, False, False]])
    logits, mask = torch.randn(1, 4), torch.tensor([True])
    assert group_loss(logits, one, mask, "released") == pytest.approx(float(group_loss(logits, one, mask)), rel=1e-5)
    shared, alone = torch.tensor([[-40.0, 3.0, 3.0, -40.0]]), torch.tensor([[-40.0, 9.0, 3.0, -40.0]])
    assert group_loss(shared, OWN, mask, "released") == pytest.approx(2 * math.log(2), abs=1e-5)
    assert group_loss(alone, OWN, mask, "released") > 2 * math.log(2) + 1


def test_the_released_group_loss_is_a_mean_over_all_tokens():
    logits, own = torch.randn(8, 4), torch.zeros(8, 4, dtype=torch.bool)
    own[:3, 1:3] = True
    mask = torch.arange(8) < 3
    log_probs = logits.double().log_softmax(-1)
    expected = -sum(float(log_probs[t, i]) for t in range(3) for i in (1, 2)) / 8
    assert group_loss(logits, own, mask, "released") == pytest.approx(expected, rel=1e-6)


def test_classifier_loss_is_the_cross_entropy_with_class_0_the_original():
    logits, is_original = torch.randn(6, 2), torch.tensor([True, False, True, True, False, False])
    expected = -torch.where(is_original, logits.log_softmax(-1)[:, 0], logits.log_softmax(-1)[:, 1]).mean()
    assert classifier_loss(logits, is_original) == pytest.approx(float(expected), rel=1e-5)
    sure = torch.where(is_original[:, None], torch.tensor([50.0, 0.0]), torch.tensor([0.0, 50.0]))
    assert classifier_loss(sure, is_original) == pytest.approx(0.0, abs=1e-6)


def test_classifier_loss_leaves_out_masked_tokens():
    logits, is_original, mask = torch.randn(10, 2), torch.arange(10) % 3 == 0, torch.arange(10) < 4
    assert classifier_loss(logits, is_original, mask) == pytest.approx(
        float(classifier_loss(logits[:4], is_original[:4])), rel=1e-5
    )


def test_classifier_loss_is_zero_with_a_zero_gradient_when_nothing_counts():
    logits = torch.randn(10, 2, requires_grad=True)
    loss = classifier_loss(logits, torch.ones(10, dtype=torch.bool), torch.zeros(10, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.fixture
def mixed_forward():
    """Two blocks of four tokens, languages 0 and 1 original, 2 expanded, -1 padding; one layer has a classifier."""
    languages = torch.tensor([[0, 0, 2, -1], [2, 1, 1, 1]])
    nothing = torch.empty(8, 0)
    routing = {
        0: Routing(torch.randn(8, 3), nothing, nothing),
        1: Routing(torch.randn(8, 3), nothing, nothing, torch.randn(8, 2)),
    }
    return Forward({"language_id": languages}, torch.empty(0), routing)


def test_classifier_term_is_a_sum_over_tokens_of_layers_with_a_classifier(mixed_forward):
    term = classifier_term(2, 0.1)
    assert term.count(mixed_forward.batch) == 7
    logits = mixed_forward.routing[1].classifier_logits
    wanted = torch.tensor([0, 0, 1, 0, 1, 0, 0, 0])  # the fourth is padding
    expected = -logits.log_softmax(-1)[torch.arange(8), wanted][[0, 1, 2, 4, 5, 6, 7]].sum()
    assert term.total(mixed_forward) == pytest.approx(float(expected), rel=1e-5)


def test_released_classifier_term_judges_a_block_by_its_first_token(mixed_forward):
    term = classifier_term(2, 0.1, kind="sequence")
    assert (term.count(mixed_forward.batch), term.unit) == (2, "blocks")
    log_probs = mixed_forward.routing[1].classifier_logits.log_softmax(-1)
    assert term.total(mixed_forward) == pytest.approx(float(-log_probs[0, 0] - log_probs[4, 1]), rel=1e-5)


def test_classifier_term_refuses_an_unknown_kind_and_a_model_without_classifiers(mixed_forward):
    with pytest.raises(UsageError, match="token, sequence"):
        classifier_term(2, 0.1, kind="document")
    del mixed_forward.routing[1]
    with pytest.raises(UsageError, match=r"No layer .*classifier"):
        classifier_term(2, 0.1).total(mixed_forward)


def test_terms_count_what_they_are_a_mean_over(mixed_forward):
    batch = mixed_forward.batch | {"targets": torch.tensor([[4, 4, 4, -100], [4, 4, 4, -100]])}
    assert (lm_term().count(batch), lpr_term(2, 0.1).count(batch)) == (6, 5)
    assert lpr_term(2, 0.1, "released").describe() == {"coefficient": 0.1, "variant": "released"}


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
