"""The named settings are the papers' figures, and what follows from them."""

import inspect
from dataclasses import replace

import pytest

from lpr_lab.method import paper_settings as paper
from lpr_lab.method.baselines import llama_pro, lora, lora_moe
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training.budget import StageBudget
from lpr_lab.method.training.train import TrainSettings, train_settings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.bases.embedded import EMBEDDED, learning_rates

STAGES = (
    paper.MOE_LPR_STAGE1,
    paper.MOE_LPR_STAGE2,
    paper.LAYER_MOE_STAGE1,
    paper.LAYER_MOE_STAGE2,
    paper.LAYER_MOE_STAGE2_FURTHER,
    paper.LAYER_MOE_BASELINES_STAGE2,
)


def tokens_per_step(settings: StageBudget) -> int:
    return settings.blocks_per_step * settings.block_tokens


def default(verb, name):
    return inspect.signature(verb).parameters[name].default


def test_stage_1_of_moe_lpr_has_45856_steps_and_24_billion_tokens():
    settings = paper.MOE_LPR_STAGE1
    assert tokens_per_step(settings) == 512 * 1024
    assert settings.num_steps == 45_856
    assert settings.tokens / 1e9 == pytest.approx(24.04, abs=0.005)


def test_stage_2_of_moe_lpr_has_half_the_sequence_length_and_sees_its_replay_in_526_steps_worth():
    settings = paper.MOE_LPR_STAGE2
    assert tokens_per_step(settings) == 512 * 512
    assert paper.REPLAY_TOKENS / tokens_per_step(settings) == pytest.approx(526, abs=1)
    assert settings.num_steps * tokens_per_step(settings) * paper.REPLAY_SHARE == pytest.approx(138e6, rel=0.002)


def test_replay_is_under_one_percent_of_the_text():
    assert paper.REPLAY_TOKENS / paper.MOE_LPR_STAGE1.tokens < 0.01
    assert pytest.approx(0.0057, abs=0.0001) == paper.REPLAY_SHARE_OF_BOTH


def test_stage_1_of_layer_moe_has_a_quarter_of_the_text_in_11400_steps():
    assert tokens_per_step(paper.LAYER_MOE_STAGE1) == 512 * 1024
    assert paper.LAYER_MOE_STAGE1.num_steps == pytest.approx(11_400, abs=60)
    assert paper.LAYER_MOE_STAGE1.tokens / paper.MOE_LPR_STAGE1.tokens == pytest.approx(0.25, abs=0.001)


def test_stage_2_of_layer_moe_has_larger_batches_than_its_baselines():
    batches = (paper.LAYER_MOE_STAGE2, paper.LAYER_MOE_STAGE2_FURTHER, paper.LAYER_MOE_BASELINES_STAGE2)
    assert [settings.blocks_per_step for settings in batches] == [768, 640, 320]
    assert {settings.block_tokens for settings in batches} == {512}


def test_replay_shares_are_those_of_the_documents():
    assert pytest.approx(3 * 50 / (3 * 50 + 3 * 100)) == paper.REPLAY_SHARE
    assert pytest.approx(3 * 50 / (3 * 50 + 6 * 100)) == paper.REPLAY_SHARE_FURTHER
    further = paper.LAYER_MOE_STAGE2_FURTHER.tokens * paper.REPLAY_SHARE_FURTHER
    assert further == pytest.approx(paper.REPLAY_TOKENS)


@pytest.mark.parametrize("settings", STAGES)
def test_every_stage_learns_at_one_rate_with_the_defaults_of_the_papers_code(settings):
    assert (settings.learning_rate, settings.router_learning_rate) == (5e-5, 5e-5)
    assert (settings.warmup_fraction, settings.weight_decay, settings.max_grad_norm) == (0.0, 0.0, 1.0)
    assert (settings.final_learning_rate_fraction, settings.adam_beta2) == (0.0, 0.999)


def test_the_verbs_have_the_papers_coefficients_by_default():
    assert default(upcycle, "top_k") == paper.TOP_K
    assert default(expand, "load_balancing_coef") == paper.LOAD_BALANCING_COEF
    assert default(expand, "lpr_coef") == default(review, "lpr_coef") == paper.LPR_COEF
    assert default(review, "classifier_coef") == paper.CLASSIFIER_COEF
    assert default(review, "replay_share") == paper.REPLAY_SHARE
    assert default(review, "group_coef") == 0  # only lifelong MoE-LPR has it


def test_the_baselines_have_the_papers_sizes_by_default():
    assert default(lora, "rank") == 8
    assert (default(lora_moe, "num_experts"), default(lora_moe, "rank")) == (8, 180)
    assert default(llama_pro, "num_blocks") == 12


@pytest.mark.parametrize("base", [*EMBEDDED, "some/model"])
@pytest.mark.parametrize("given", [None, StageBudget(tokens=4096), TrainSettings(tokens=4096, weight_decay=0.1)])
def test_a_verb_learns_at_the_rates_of_its_models_base_unless_others_are_given(base, given, tiny_model):
    model = tiny_model()
    model.config.name_or_path = base
    made = train_settings(given, model, 8192)
    assert (made.learning_rate, made.router_learning_rate) == learning_rates(base)
    assert made.tokens == (8192 if given is None else 4096) and made.blocks_per_forward == 4
    assert made.weight_decay == (0.1 if isinstance(given, TrainSettings) else 0)
    own = train_settings(replace(given or StageBudget(tokens=4096), learning_rate=0.5), model, 0)
    assert (own.learning_rate, own.router_learning_rate) == (0.5, learning_rates(base)[1])
