"""Published figures that follow from arithmetic, counted on a model of the papers' shape without any weights."""

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from lpr_lab.method import baselines, paper_settings
from lpr_lab.method import upcycle as upcycling
from lpr_lab.method.allocation import Allocation, uniform
from lpr_lab.model.bases.families import find_decoder_mlps

NUM_LAYERS = 24
# Experts per layer of the released LayerMoE runs on Qwen1.5-1.8B, the original one counted: group 1, then 2 on it.
RELEASED_G1 = (5, 4, 3, 5, 4, 3, 2, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 3, 3)
RELEASED_G2 = (10, 8, 6, 9, 8, 5, 3, 5, 5, 4, 3, 3, 3, 3, 3, 3, 3, 5, 5, 6, 6, 6, 4, 4)
MOE_LPR = uniform(NUM_LAYERS, paper_settings.NEW_EXPERTS_PER_LAYER)
LAYER_MOE = Allocation(tuple(total - 1 for total in RELEASED_G1))
LAYER_MOE_LIFELONG = Allocation(tuple(total - 1 for total in RELEASED_G2))


def qwen(num_layers: int = NUM_LAYERS):
    """Qwen1.5-1.8B: 24 layers, width 2048, 5504 hidden channels; no numbers, only shapes."""
    config = Qwen2Config(
        hidden_size=2048,
        intermediate_size=5504,
        num_hidden_layers=num_layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=151_936,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return Qwen2ForCausalLM(config)


def num_parameters(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def counted(monkeypatch):
    """Return a function from an allocation to the counts of the upcycled model; there is nothing to hash or to run."""
    monkeypatch.setattr(upcycling, "describe_base", lambda *_: {})
    monkeypatch.setattr(upcycling, "refuse_nonstandard_mlps", lambda *_: None)
    return lambda allocation: upcycling.count_parameters(upcycling.upcycle(qwen(), allocation))


def expert_sizes() -> list[int]:
    return [num_parameters(mlp.module) for mlp in find_decoder_mlps(qwen())]


def test_one_expert_of_qwen_has_33_8_million_parameters():
    assert set(expert_sizes()) == {3 * 2048 * 5504}
    assert expert_sizes()[0] / 1e6 == pytest.approx(33.8, abs=0.05)


def test_moe_lpr_adds_120_experts_and_layer_moe_48():
    assert (MOE_LPR.total, LAYER_MOE.total, LAYER_MOE_LIFELONG.total) == (120, 48, 96)


def test_moe_lpr_adds_4_06_billion_parameters_and_layer_moe_1_62():
    assert MOE_LPR.parameters(expert_sizes()) / 1e9 == pytest.approx(4.06, abs=0.005)
    assert LAYER_MOE.parameters(expert_sizes()) / 1e9 == pytest.approx(1.62, abs=0.005)


def test_layer_moe_needs_60_percent_fewer_experts_and_33_3_percent_fewer_after_a_second_group():
    assert 100 * (1 - LAYER_MOE.total / MOE_LPR.total) == pytest.approx(60)
    baseline = uniform(NUM_LAYERS, 3).total + uniform(NUM_LAYERS, 3).total  # inferred: 144 new experts
    assert 100 * (1 - LAYER_MOE_LIFELONG.total / baseline) == pytest.approx(33.3, abs=0.05)


def test_moe_lpr_grows_a_model_of_1_8_billion_parameters_3_2_fold_of_which_2_6_are_active(counted):
    counts = counted(MOE_LPR)
    total = counts["base"] + counts["new_experts"] + counts["routers"]
    assert counts["base"] / 1e9 == pytest.approx(1.8, abs=0.05)
    assert counts["new_experts"] == MOE_LPR.parameters(expert_sizes())
    assert counts["routers"] == NUM_LAYERS * 6 * 2048
    assert total / 1e9 == pytest.approx(5.9, abs=0.05)  # Table 1 says 5.8B
    assert total / counts["base"] == pytest.approx(3.2, abs=0.05)
    assert counts["active_per_token"] / 1e9 == pytest.approx(2.6, abs=0.05)


def test_active_parameters_do_not_grow_with_the_number_of_experts(counted):
    few, many = (counted(uniform(NUM_LAYERS, number)) for number in (1, 7))
    assert many["new_experts"] == 7 * few["new_experts"]
    assert many["active_per_token"] - few["active_per_token"] == NUM_LAYERS * 6 * 2048  # six rows of each router


def test_llama_pro_has_2_4_billion_parameters():
    deeper = baselines.llama_pro(qwen())
    assert deeper.config.num_hidden_layers == 36
    assert num_parameters(deeper) / 1e9 == pytest.approx(2.4, abs=0.05)


def test_loramoe_has_2_6_billion_parameters():
    """Which settles where its experts stand: on the three maps of every MLP, and nowhere else."""
    base = qwen(num_layers=1)
    added = num_parameters(baselines.lora_moe(base)) - num_parameters(base)
    assert added == 3 * 8 * (180 * (2048 + 5504)) + 8 * (2048 + 2048 + 5504)
    assert (num_parameters(qwen()) + NUM_LAYERS * added) / 1e9 == pytest.approx(2.6, abs=0.05)
