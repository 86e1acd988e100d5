"""An MLP with the usual maps can do more with them: then it is refused, and nothing is left behind."""

import copy

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn import functional as F

from helpers import tiny_families
from lpr_lab.errors import UnsupportedModelError
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers, trainable_parameters
from lpr_lab.model.bases.families import find_decoder_mlps
from lpr_lab.model.bases.load import load_base

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=tiny_families.IDS).logits


def plain(mlp, x):
    return mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x))


def normed(mlp, x):
    hidden = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
    return mlp.down_proj(F.rms_norm(hidden, hidden.shape[-1:]))


def clamped(mlp, x):
    gate, up = mlp.gate_proj(x).clamp(max=7.0), mlp.up_proj(x).clamp(-7.0, 7.0)
    return mlp.down_proj(mlp.act_fn(gate) * up)


def sparse(mlp, x):
    hidden = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
    return mlp.down_proj(hidden * (hidden.abs() >= hidden.abs().median(-1, keepdim=True).values))


def dropped_inside(mlp, x):
    return mlp.down_proj(F.dropout(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x), 0.1, mlp.training))


MORE = {
    "a norm between the maps": normed,
    "a norm before": lambda mlp, x: plain(mlp, F.rms_norm(x, x.shape[-1:])),
    "a norm after": lambda mlp, x: F.rms_norm(plain(mlp, x), x.shape[-1:]),
    "a factor": lambda mlp, x: 1.01 * plain(mlp, x),
    "a constant": lambda mlp, x: plain(mlp, x) + 0.01,
    "the residual": lambda mlp, x: x + plain(mlp, x),
    "a clamp": clamped,
    "a clamp of the output": lambda mlp, x: plain(mlp, x).clamp(-30, 30),
    "sparse activations": sparse,
    "gate and up exchanged": lambda mlp, x: mlp.down_proj(mlp.act_fn(mlp.up_proj(x)) * mlp.gate_proj(x)),
    "the activation on both": lambda mlp, x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.act_fn(mlp.up_proj(x))),
    "the map down not used": lambda mlp, x: x * 2,
    "dropout between the maps": dropped_inside,
    "dropout nobody says": lambda mlp, x: F.dropout(plain(mlp, x), 0.1, mlp.training),
    "a look at the token before": lambda mlp, x: plain(mlp, x + x.roll(1, -2)),
    "a look at the whole text": lambda mlp, x: plain(mlp, x - x.mean(-2, keepdim=True)),
    "a tuple": lambda mlp, x: (plain(mlp, x), None),
    "numbers that are not finite": lambda mlp, x: plain(mlp, x) * torch.nan,
}


def doing(model, forward, layer=1):
    """Let one layer's MLP compute `forward(mlp, x)`."""
    mlp = model.model.layers[layer].mlp
    mlp.__class__ = type("StrangeMLP", (type(mlp),), {"forward": forward})
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("more", MORE)
def test_whatever_an_mlp_does_more_is_refused_and_nothing_is_left_behind(tiny_model, more, dtype):
    model = doing(tiny_model("llama"), MORE[more]).to(dtype).train()
    before = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    with pytest.raises(UnsupportedModelError, match=r"StrangeMLP of llama, layer 1"):
        upcycle(model, (1, 1))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_same_sum_written_otherwise_is_taken(tiny_model, dtype):
    def in_halves(mlp, x):
        return torch.cat([plain(mlp, part) for part in x.split(5, dim=-2)], dim=-2)

    upcycle(doing(tiny_model("llama"), in_halves).to(dtype), (1, 1))


@pytest.mark.parametrize("more", ["a norm between the maps", "a clamp", "sparse activations", "the residual"])
def test_it_is_refused_on_four_bits_too(tiny_model, tiny_tokenizer, tmp_path, more):
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    model, _ = load_base(tmp_path, quantization="nf4")
    with pytest.raises(UnsupportedModelError, match="StrangeMLP"):
        upcycle(doing(model, MORE[more]), (1, 1))


def test_layers_that_stay_dense_may_do_what_they_like(tiny_model):
    model = doing(tiny_model("llama"), MORE["a clamp"])
    expected = logits(model)
    torch.testing.assert_close(logits(upcycle(model, (2, 0))), expected, atol=1e-4, rtol=1e-4)


def test_a_bias_on_one_of_two_maps_is_seen(tiny_model):
    model = tiny_model("llama")
    model.model.layers[0].mlp.up_proj.bias = nn.Parameter(torch.ones(48))
    with pytest.raises(UnsupportedModelError, match="LlamaMLP of llama, layer 0"):
        upcycle(model, (1, 1))


def test_a_base_that_is_not_in_memory_is_refused(tiny_model):
    with pytest.raises(UnsupportedModelError, match="meta device"):
        upcycle(tiny_model("llama").to("meta"), (1, 1))


# -- families that have such structure ---------------------------------------------------------------------------------


def strange(family):
    """One model of each family in transformers whose MLP does more, as it does it."""
    match family:
        case "bitnet":
            return hf.BitNetForCausalLM(hf.BitNetConfig(**SMALL))
        case "gemma3n":
            config = hf.Gemma3nTextConfig(
                **SMALL, activation_sparsity_pattern=[0.95, 0.0], layer_types=["full_attention"] * 2,
                vocab_size_per_layer_input=64, hidden_size_per_layer_input=8, num_kv_shared_layers=0,
            )  # fmt: skip
            return hf.Gemma3nForCausalLM(config)
        case "mpt":
            return hf.MptForCausalLM(hf.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=64))
        case "moshi":
            return hf.MoshiForCausalLM(hf.MoshiConfig(**SMALL, ffn_dim=48, sliding_window=16))
        case "falcon_h1":
            config = hf.FalconH1Config(**SMALL, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8)
            config.mlp_multipliers = [0.5, 0.25]
            return hf.FalconH1ForCausalLM(config)
    raise ValueError(family)


@pytest.mark.parametrize(
    ("family", "word"),
    [("bitnet", "BitNetMLP"), ("gemma3n", "layer 0"), ("mpt", "residual"), ("moshi", "maps"), ("falcon_h1", "layer 0")],
)
def test_families_whose_mlp_does_more_are_refused_by_name(family, word):
    with pytest.raises(UnsupportedModelError, match=word):
        upcycle(strange(family), (1, 1))


@pytest.mark.parametrize("make", [hf.Starcoder2Config, hf.SeedOssConfig])
def test_a_dropout_kept_as_a_number_is_the_new_experts_too(make):
    model = hf.AutoModelForCausalLM.from_config(make(**SMALL, residual_dropout=0.25))
    assert {layer.stacks[0].dropout for layer in moe_layers(upcycle(model, (1, 1)))} == {0.25}


def test_an_activation_with_numbers_of_its_own_stays_the_base_s():
    model = hf.ApertusForCausalLM(hf.ApertusConfig(**SMALL))
    upcycled = upcycle(model, (1, 2))
    assert all("moe_lpr_" in name for name, _ in trainable_parameters(upcycled))


def test_the_text_decoder_is_upcycled_and_not_a_vision_tower_of_equal_depth():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = hf.Gemma3Config(text_config=SMALL, vision_config={**sizes, "image_size": 28, "patch_size": 14})
    model = hf.Gemma3ForConditionalGeneration(config)
    assert [type(mlp.module).__name__ for mlp in find_decoder_mlps(model)] == ["Gemma3MLP"] * 2


def test_layers_that_share_one_mlp_are_refused(tiny_model):
    model = tiny_model("llama")
    model.model.layers[1].mlp = model.model.layers[0].mlp
    with pytest.raises(UnsupportedModelError, match="shares one feed-forward block"):
        upcycle(model, (1, 1))
