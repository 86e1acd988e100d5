"""What holds for every expanded model, of every family: equality at the start, in cached generation, beside padding.

The experts are moved apart before most comparisons: with equal experts any routing gives the same output, and a test
of routing could not fail.
"""

import pytest
import torch

from helpers.shaken import ids_of, shake
from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.capture import record_routing, watch_mlp_inputs
from lpr_lab.model.experts import mix_by_loop
from lpr_lab.model.stages import set_trainable

INPUTS = ("token", "token_and_mean")


@torch.no_grad()
@pytest.mark.parametrize(("allocation", "dispatch"), [((1, 1), "loop"), ((0, 3), "grouped")])
def test_claim_1_upcycled_model_equals_the_dense_one_before_training(family_model, allocation, dispatch):
    ids = ids_of(family_model)
    expected = family_model(ids).logits
    model = upcycle(family_model, allocation, dispatch=dispatch)
    assert (model(ids).logits - expected).abs().max() < 1e-4


@torch.no_grad()
def test_disabled_adapter_is_the_base_bit_for_bit(family_model):
    ids = ids_of(family_model)
    expected = family_model(ids).logits
    model = shake(upcycle(family_model, (1, 2)))
    assert not torch.allclose(model(ids).logits, expected, atol=1e-2)
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, expected)
    assert not torch.allclose(model(ids).logits, expected, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("allocation", [(1, 1), (3, 0)])
def test_grouped_dispatch_equals_the_plain_loop(family_model, allocation):
    model = shake(upcycle(family_model, allocation, router_bias=True))
    ids = ids_of(model)
    grouped = model(ids).logits
    for layer in moe_layers(model):
        layer.dispatch = mix_by_loop
    assert torch.allclose(model(ids).logits, grouped, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("router_input", INPUTS)
def test_cached_generation_routes_as_one_plain_pass(family_model, router_input):
    model = shake(upcycle(family_model, (1, 3), router_input=router_input))
    ids = ids_of(model)
    mask = torch.ones_like(ids)
    cached = model.generate(ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    plain = model(cached, use_cache=False).logits[:, ids.shape[1] - 1 : -1]
    # Greedy tokens must be the argmax of the plain pass, up to ties of two logits.
    best = plain.max(-1).values
    chosen = plain.gather(-1, cached[:, ids.shape[1] :, None])[..., 0]
    no_end = plain.clone()
    no_end[..., 0] = -torch.inf  # min_new_tokens forbids the end token
    assert torch.allclose(chosen, torch.minimum(best, no_end.max(-1).values), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("router_input", INPUTS)
def test_padding_changes_no_logit_of_the_text(family_model, router_input):
    model = shake(upcycle(family_model, (1, 3), router_input=router_input))
    ids = ids_of(model, batch=1, length=12)
    expected = model(ids, use_cache=False).logits
    padding, ones, zeros = torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 12), torch.zeros(1, 5)
    for side in ("left", "right"):
        parts, masks = ([padding, ids], [zeros, ones]) if side == "left" else ([ids, padding], [ones, zeros])
        mask = torch.cat(masks, dim=1).long()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(torch.cat(parts, dim=1), attention_mask=mask, position_ids=positions, use_cache=False).logits
        text = logits[:, 5:] if side == "left" else logits[:, :12]
        assert torch.allclose(text, expected, atol=1e-4), side


@torch.no_grad()
@pytest.mark.parametrize("router_input", INPUTS)
def test_a_packed_document_routes_as_if_it_were_alone(family_model, router_input):
    model = shake(upcycle(family_model, (1, 3), router_input=router_input))
    ids = ids_of(model, batch=2, length=20)
    positions = torch.cat([torch.arange(12), torch.arange(8)])[None].expand(2, -1)
    packed = model(ids, position_ids=positions, use_cache=False).logits
    alone = model(ids[:, 12:], use_cache=False).logits
    assert torch.allclose(packed[:, 12:], alone, atol=1e-4)


@torch.no_grad()
def test_beam_search_with_a_cache_equals_beam_search_without(tiny_model):
    model = shake(upcycle(tiny_model("llama"), (1, 3), router_input="token_and_mean"))
    ids = ids_of(model)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, use_cache=False, **options))


@torch.no_grad()
def test_a_running_mean_is_causal(tiny_model):
    model = shake(upcycle(tiny_model("llama"), (1, 1), router_input="token_and_mean"))
    ids = ids_of(model, batch=1)
    changed = ids.clone()
    changed[0, 15] = (changed[0, 15] + 7) % model.config.vocab_size
    before, after = model(ids).logits, model(changed).logits
    assert torch.equal(before[:, :15], after[:, :15])
    assert not torch.equal(before[:, 15:], after[:, 15:])


def test_only_new_experts_and_routers_can_learn(family_model):
    model = upcycle(family_model, (1, 2))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {n for n, _ in model.named_parameters() if "moe_lpr_experts" in n or "moe_lpr_router" in n}
    set_trainable(model, experts=False, routers=True)
    assert all("moe_lpr_router" in n for n, parameter in model.named_parameters() if parameter.requires_grad)


def test_every_trainable_tensor_gets_a_gradient_also_experts_without_tokens(tiny_model):
    model = upcycle(tiny_model("llama"), (3, 3), router_bias=True)
    for layer in moe_layers(model):
        with torch.no_grad():
            layer.router.weight.zero_()
            layer.router.bias.copy_(torch.tensor([9.0, 8.0, -9.0, -9.0]))  # experts 2 and 3 never chosen
    model(ids_of(model)).logits.logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
    assert not moe_layers(model)[0].stacks[0].up.grad[1:].any()
    assert moe_layers(model)[0].stacks[0].up.grad[0].any()


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 1), (2, 24)])
@pytest.mark.parametrize("top_k", [2, 4])
def test_dispatch_equals_the_loop_with_one_token_and_with_all_experts_chosen(tiny_model, shape, top_k):
    ids = ids_of(tiny_model("llama"), *shape)
    outputs = []
    for dispatch in ("grouped", "loop"):
        model = shake(upcycle(tiny_model("llama"), (3, 3), top_k=top_k, dispatch=dispatch))
        outputs.append(model(ids).logits)
    assert torch.allclose(*outputs, atol=1e-4)


@torch.no_grad()
def test_record_holds_the_routing_of_every_layer_and_stops_at_the_end(tiny_model):
    model = upcycle(tiny_model("llama", num_layers=3), (1, 0, 2))
    ids = ids_of(model)
    with record_routing(model) as record:
        model(ids)
    assert sorted(record.routing) == [0, 2]
    assert record.routing[2].router_logits.shape == (48, 3)
    assert torch.allclose(record.routing[2].expert_weights.sum(-1), torch.ones(48))
    assert not forward_context(model).recorders


def test_record_unhooks_when_the_model_raises(tiny_model):
    model = upcycle(tiny_model("llama"), (1, 1))
    with pytest.raises(IndexError), record_routing(model):
        model(torch.tensor([[10_000]]))
    assert not forward_context(model).recorders


@torch.no_grad()
def test_what_is_watched_is_what_the_router_reads(tiny_model):
    model = shake(upcycle(tiny_model("llama"), (1, 1)))
    ids, seen = ids_of(model), {}
    with watch_mlp_inputs(model, lambda layer, x: seen.__setitem__(layer, x)), record_routing(model) as record:
        model(ids)
    for layer in moe_layers(model):
        logits = layer.router(seen[layer.layer].flatten(0, 1), None)
        assert torch.allclose(logits, record.routing[layer.layer].router_logits, atol=1e-5)


def test_top_one_is_refused_with_the_reason(tiny_model):
    with pytest.raises(UsageError, match="no gradient"):
        upcycle(tiny_model("llama"), (1, 1), top_k=1)


def test_an_allocation_of_the_wrong_length_is_refused(tiny_model):
    with pytest.raises(UsageError, match=r"3 layers.* 2"):
        upcycle(tiny_model("llama"), (1, 1, 1))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_model_with_another_kind_of_adapter_is_refused(tiny_model):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(UnsupportedModelError, match="not an expansion"):
        upcycle(model, (1, 1))


def test_the_model_inside_an_expansion_is_refused(tiny_model):
    model = upcycle(tiny_model("llama"), (1, 1))
    with pytest.raises(UnsupportedModelError, match="inside an expansion"):
        upcycle(model.get_base_model(), (1, 1))


def test_a_model_that_already_is_a_mixture_is_refused():
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=50, num_local_experts=2,
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="mixture of experts"):
        upcycle(MixtralForCausalLM(config), (1,))


def test_a_feed_forward_block_of_an_unknown_kind_is_refused_with_what_was_found(tiny_model):
    model = tiny_model("llama")
    model.model.layers[1].mlp = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Linear(32, 32))
    with pytest.raises(UnsupportedModelError, match=r"layer 1 .*upcycled.* 0: Linear, 1: Linear"):
        upcycle(model, (1, 1))
