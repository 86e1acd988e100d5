"""Generation with any cache and any decoding writes what full passes without a cache write, or is refused by name."""

from contextlib import nullcontext

import pytest
import torch
from transformers import QuantizedCache
from transformers.cache_utils import DynamicCache

from helpers.shaken import ids_of, shake
from lpr_lab.errors import UsageError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.context import RunningSums
from lpr_lab.model.stages import enter_stage, select_stage

FAMILIES = ("llama", "gemma3", "qwen2", "qwen3", "mistral")
INPUTS = ("token", "token_and_mean")
NEW = 8
DECODINGS = {
    "greedy": {},
    "sample": {"do_sample": True, "top_k": 20},
    "beam": {"num_beams": 3},
    "prompt_lookup": {"prompt_lookup_num_tokens": 3},
    "assisted": {},
    "left_padding": {},
}
CASES = [
    (family, router_input, cache, decoding)
    for i, family in enumerate(FAMILIES)
    for j, router_input in enumerate(INPUTS)
    for k, cache in enumerate(("dynamic", "static"))
    for m, decoding in enumerate(DECODINGS)
    if (i + j + k + m) % 2 == 0
]
"""Every input with every cache and every decoding, in every other family."""


@pytest.fixture
def expanded(tiny_model):
    """Return a function: a family's expansion, routers moved, with windows shorter than the text where it has any."""

    def build(family, router_input):
        dense = tiny_model(family, num_layers=3)
        if family == "gemma3":
            config = type(dense.config)(**{**dense.config.to_dict(), "sliding_window": 8, "layer_types": None})
            config.layer_types = ["sliding_attention", "full_attention", "sliding_attention"]
            state = dense.state_dict()
            dense = type(dense)(config).float().eval()
            dense.load_state_dict(state)
        dense.generation_config.eos_token_id = None
        dense.generation_config.pad_token_id = 0
        return shake(upcycle(dense, (1, 0, 3), router_input=router_input)).eval()

    return build


def prompt_of(model, decoding):
    """Return token ids and their mask: one text, for prompt look-up one that repeats itself, or two with padding."""
    if decoding == "prompt_lookup":
        ids = ids_of(model, batch=1, length=6).repeat(1, 3)
    else:
        ids = ids_of(model, batch=2 if decoding == "left_padding" else 1, length=14)
    mask = torch.ones_like(ids)
    if decoding == "left_padding":
        ids[0, :5], mask[0, :5] = 0, 0
    return ids, mask


@torch.no_grad()
def by_full_passes(model, ids, mask):
    """Write greedily, each token from a full pass over all before it."""
    for _ in range(NEW):
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return ids


def write(model, ids, mask, **options):
    torch.manual_seed(5)
    return model.generate(ids, attention_mask=mask, max_new_tokens=NEW, **{"do_sample": False, **options})


@pytest.mark.parametrize(("family", "router_input", "cache", "decoding"), CASES)
def test_generation_with_a_cache_writes_what_full_passes_write(
    family, router_input, cache, decoding, expanded, tiny_model
):
    model = expanded(family, router_input)
    ids, mask = prompt_of(model, decoding)
    options = {**DECODINGS[decoding], **({"cache_implementation": cache} if cache != "dynamic" else {})}
    if decoding == "assisted":
        options["assistant_model"] = tiny_model(family, num_layers=3)
    for on in (True, False):
        with nullcontext() if on else model.disable_adapter():
            if decoding in ("assisted", "prompt_lookup") and cache == "static":
                with pytest.raises(ValueError, match="Static"):  # transformers' own refusal, whatever the model
                    write(model, ids, mask, **options)
            elif router_input == "token_and_mean" and cache == "static" and on:
                with pytest.raises(UsageError, match=r"static cache.*cache_implementation='dynamic'"):
                    write(model, ids, mask, **options)
            else:
                if decoding in ("sample", "beam"):
                    expected = write(model, ids, mask, **DECODINGS[decoding], use_cache=False)
                else:
                    expected = by_full_passes(model, ids, mask)
                assert torch.equal(write(model, ids, mask, **options), expected)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_these_expansions_are_not_their_bases(family, expanded):
    model = expanded(family, "token")
    on = model(ids_of(model), use_cache=False).logits
    with model.disable_adapter():
        assert not torch.allclose(on, model(ids_of(model), use_cache=False).logits, atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_only_routers_that_read_the_mean_put_anything_into_a_cache(family, expanded):
    for router_input in INPUTS:
        model = expanded(family, router_input)
        for adapter in (nullcontext(), model.disable_adapter()):
            with adapter:
                cache = model(ids_of(model), use_cache=True).past_key_values
                reads_mean = any(layer.reads_mean for layer in moe_layers(model))
            assert any(isinstance(layer, RunningSums) for layer in cache.layers) == reads_mean
            assert len(cache.layers) == 3 + reads_mean


def masks_of(length):
    causal = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    floating = torch.zeros(1, 1, length, length).masked_fill(~causal, torch.finfo(torch.float32).min)
    return {
        "none": None,
        "2-D": torch.ones(2, length, dtype=torch.long),
        "4-D bool": causal.expand(2, -1, -1, -1),
        "4-D float": floating.expand(2, -1, -1, -1),
        "by layer type": {"full_attention": causal, "sliding_attention": causal},
    }


@torch.no_grad()
@pytest.mark.parametrize("kind", masks_of(3))
@pytest.mark.parametrize("router_input", INPUTS)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_mask_of_any_form_is_the_bases_business_and_a_running_mean_refuses_what_it_cannot_read(
    family, router_input, kind, expanded
):
    model = expanded(family, router_input)
    if kind == "by layer type" and family == "llama":
        pytest.skip("a Llama takes no masks by layer type")
    ids = ids_of(model, length=7)  # shorter than the window
    mask = masks_of(7)[kind]
    expected = model(input_ids=ids, use_cache=False).logits
    if router_input == "token_and_mean" and kind not in ("none", "2-D"):
        with pytest.raises(UsageError, match=r"mask .*(4-D|a dict).*\[batch, tokens\]"):
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        with model.disable_adapter():
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        return
    assert torch.allclose(model(input_ids=ids, attention_mask=mask, use_cache=False).logits, expected, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("router_input", INPUTS)
def test_flex_attention_hands_its_block_masks_through(router_input, expanded):
    from torch.nn.attention.flex_attention import create_block_mask

    model = expanded("llama", router_input)
    ids = ids_of(model, length=7)
    mask = create_block_mask(lambda _b, _h, query, key: query >= key, None, None, 7, 7, device="cpu")
    context = forward_context(model)
    context.begin((2, 7), ids.device, attention_mask=mask)  # whether flex attention runs here is not ours to test
    if router_input == "token":
        return
    with pytest.raises(UsageError, match=r"mask .*BlockMask"):
        context.running_mean(0, torch.zeros(2, 7, 32))


@torch.no_grad()
@pytest.mark.parametrize("take_back", [1, 3, 5])
def test_after_tokens_are_taken_back_a_running_mean_is_as_if_they_had_never_been(take_back, expanded):
    model = expanded("llama", "token_and_mean")
    ids = ids_of(model, length=20)
    cache = model(ids[:, :8], use_cache=True).past_key_values
    model(ids[:, 8:14], past_key_values=cache, use_cache=True)
    cache.crop(-take_back)
    rest = model(ids[:, 14 - take_back : 20], past_key_values=cache, use_cache=True).logits
    assert torch.allclose(rest, model(ids, use_cache=False).logits[:, 14 - take_back :], atol=1e-4)


@torch.no_grad()
def test_no_more_tokens_are_taken_back_than_the_last_pass_had(expanded):
    model = expanded("llama", "token_and_mean")
    ids = ids_of(model)
    cache = model(ids[:, :8], use_cache=True).past_key_values
    model(ids[:, 8:10], past_key_values=cache, use_cache=True)
    with pytest.raises(UsageError, match=r" 2, .*not 3.*router_input='token'"):
        cache.crop(-3)
    cache.crop(0)


@torch.no_grad()
def test_a_cache_that_was_filled_in_part_with_the_adapter_off_is_refused_by_a_running_mean(expanded):
    model = expanded("llama", "token_and_mean")
    ids = ids_of(model)
    with model.disable_adapter():
        cache = model(ids[:, :8], use_cache=True).past_key_values
    with pytest.raises(UsageError, match=r"8 tokens.* saw 0"):
        model(ids[:, 8:10], past_key_values=cache, use_cache=True)
    cache = model(ids[:, :8], use_cache=True).past_key_values
    with model.disable_adapter():
        model(ids[:, 8:10], past_key_values=cache, use_cache=True)
    with pytest.raises(UsageError, match=r"10 tokens.* saw 8"):
        model(ids[:, 10:12], past_key_values=cache, use_cache=True)
    cache.reset()
    again = model(ids[:, :8], past_key_values=cache, use_cache=True).logits
    assert torch.allclose(again, model(ids[:, :8], use_cache=False).logits, atol=1e-5)


@torch.no_grad()
def test_a_cache_of_a_stage_at_which_a_layer_was_dense_is_refused(expanded):
    model = expanded("llama", "token_and_mean")  # dense in layer 1
    enter_stage(model, "review")
    shake(upcycle(model, (1, 1, 1)))
    ids = ids_of(model)
    select_stage(model, "G1 review")
    cache = model(ids[:, :8], use_cache=True).past_key_values
    select_stage(model, "G2 expand")
    with pytest.raises(UsageError, match="layer 1 did not read"):
        model(ids[:, 8:10], past_key_values=cache, use_cache=True)


@torch.no_grad()
def test_a_refused_pass_leaves_the_cache_as_it_was(expanded):
    model = expanded("llama", "token_and_mean")
    ids = ids_of(model, length=12)
    cache = model(ids[:, :8], use_cache=True).past_key_values
    mask = torch.ones(2, 1, 2, 10, dtype=torch.bool)
    with pytest.raises(UsageError, match="4-D"):
        model(ids[:, 8:10], attention_mask=mask, past_key_values=cache, use_cache=True)
    assert cache.get_seq_length() == 8
    rest = model(ids[:, 8:], past_key_values=cache, use_cache=True).logits
    assert torch.allclose(rest, model(ids, use_cache=False).logits[:, 8:], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("return_dict", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_sums_reach_the_cache_however_it_is_passed_and_returned(given, return_dict, expanded):
    model = expanded("llama", "token_and_mean")
    ids = ids_of(model)
    cache = DynamicCache() if given else None
    output = model(ids[:, :8], past_key_values=cache, use_cache=True, return_dict=return_dict)
    cache = output.past_key_values if return_dict else output[1]
    rest = model(ids[:, 8:], past_key_values=cache, use_cache=True).logits
    assert torch.allclose(rest, model(ids, use_cache=False).logits[:, 8:], atol=1e-4)


@torch.no_grad()
def test_restarts_of_positions_part_documents_only_where_attention_parts_them_too(expanded):
    """With a cache, transformers lets a packed block attend across its documents; a running mean then goes on too."""
    model = expanded("llama", "token_and_mean")
    ids = ids_of(model, length=12)
    positions = torch.cat([torch.arange(7), torch.arange(5)])[None].expand(2, -1)
    context, seen = forward_context(model), {}
    reference = context.running_mean

    def watched(layer, x):
        mean = reference(layer, x)
        seen[layer] = (x.float(), mean)
        return mean

    context.running_mean = watched
    for use_cache, start in ((True, 0), (False, 7)):
        model(ids, position_ids=positions, use_cache=use_cache)
        x, mean = seen[0]
        assert torch.allclose(mean[:, 11], x[:, start:].mean(1), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("router_input", INPUTS)
def test_a_quantized_cache_carries_exact_running_means(router_input, expanded):
    """The keys are rounded to eight bits, so logits differ from those of full passes; the sums are not rounded."""
    model = expanded("llama", router_input)
    ids = ids_of(model, length=16)
    context, seen = forward_context(model), []
    reference = context.running_mean
    context.running_mean = lambda layer, x: seen.append((layer, x.float(), reference(layer, x))) or seen[-1][2]
    cache = QuantizedCache("fp8", model.config)
    for part in ids.split([9, 1, 1, 5], dim=1):
        assert model(part, past_key_values=cache, use_cache=True).logits.isfinite().all()
    assert bool(seen) == (router_input == "token_and_mean")
    for layer in (0, 2) if seen else ():
        inputs = torch.cat([x for where, x, _ in seen if where == layer], dim=1)
        last = [mean for where, _, mean in seen if where == layer][-1]
        assert torch.allclose(last[:, -1], inputs.mean(1), atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="an offloaded cache needs CUDA")
@pytest.mark.parametrize("router_input", INPUTS)
def test_an_offloaded_cache_writes_what_full_passes_write(router_input, expanded):
    model = expanded("llama", router_input).to("cuda")
    ids, mask = (tensor.to("cuda") for tensor in prompt_of(model, "left_padding"))
    assert torch.equal(write(model, ids, mask, cache_implementation="offloaded"), by_full_passes(model, ids, mask))
