"""The papers' ablations: each takes one piece away or moves it, and this is what then differs."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from helpers.tiny_corpus import TinyCorpus, steps_of_four_blocks
from lpr_lab.errors import UsageError
from lpr_lab.measure.expert_counts import ExpertCounter, TextSource, read_stage
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training import train as training
from lpr_lab.method.training.terms import Forward, group_term
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import expansion_config, moe_layers
from lpr_lab.model.capture import record_routing
from lpr_lab.model.stages import select_stage, stage_names
from lpr_lab.text.packing import pack

SETTINGS = steps_of_four_blocks(6)
IDS = torch.arange(20)[None] + 5


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits.clone()


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture
def shown(monkeypatch):
    """Blocks per language that training was given, as it goes."""
    seen: Counter[str] = Counter()
    batch = training.BlockSchedule.batch

    def see(self, step):
        seen.update(language for language, _ in self.at(step))
        return batch(self, step)

    monkeypatch.setattr(training.BlockSchedule, "batch", see)
    return seen


@pytest.fixture
def stages(tiny_tokenizer, sentences, tmp_path):
    """Both stages with everything filled in that these tests do not look at."""
    material = TinyCorpus(sentences, ("en", "es", "el", "hu", "tr"))

    class Stages:
        corpus = material

        @staticmethod
        def expand(model, *, languages=("el", "tr"), out="1", **options):
            options = {"settings": SETTINGS, **options}
            return expand(model, tiny_tokenizer, material, languages=languages, out=tmp_path / out, **options)

        @staticmethod
        def review(model, *, original=("en",), expanded=("el", "tr"), out="2", **options):
            options = {"settings": SETTINGS, **options}
            languages = {"original": original, "expanded": expanded}
            return review(model, tiny_tokenizer, material, **languages, out=tmp_path / out, **options)

    return Stages


# ------------------------------------------------------------------------------------------ w/o expert-copy, w/o review


def test_without_expert_copy_the_start_is_not_the_base(tiny_model):
    dense = logits(tiny_model())
    assert torch.allclose(logits(upcycle(tiny_model(), [1, 2])), dense, atol=1e-4)
    assert not torch.allclose(logits(upcycle(tiny_model(), [1, 2], expert_init="random")), dense, atol=1e-1)


def test_without_review_is_the_stage_before_it_bit_for_bit(tiny_model, stages):
    model = upcycle(tiny_model(), [1, 2])
    stages.expand(model)
    before = logits(model.eval())
    stages.review(model, lpr_coef=1.0)
    assert not torch.equal(logits(model.eval()), before)
    assert stage_names(model) == ["G1 expand", "G1 review"]
    select_stage(model, "G1 expand")
    assert torch.equal(logits(model), before)


# ------------------------------------------------------------------------------------------------------------- w/o LPR


def test_without_lpr_the_loss_is_logged_and_has_no_part_in_training(tiny_model, stages):
    logged = []
    model = upcycle(tiny_model(), [1, 2])
    stages.expand(model)
    result = stages.review(model, lpr_coef=0, log=logged.append)
    assert all(metrics["lpr_loss"] > 0 and metrics["loss"] == pytest.approx(metrics["lm_loss"]) for metrics in logged)
    assert result["terms"]["lpr_loss"]["coefficient"] == 0


def test_lpr_sends_original_tokens_to_expert_0_where_the_language_model_loss_alone_does_not(tiny_model, stages):
    last = {}
    for coefficient in (0.0, 1.0):
        model = upcycle(tiny_model(), [1, 2])
        stages.expand(model, out=f"1 {coefficient}")
        longer = replace(SETTINGS, tokens=12 * 4 * 32, router_learning_rate=0.1)
        result = stages.review(model, out=f"2 {coefficient}", lpr_coef=coefficient, settings=longer)
        last[coefficient] = result["last"]["lpr_loss"]
    assert last[1.0] < 0.6 * last[0.0]


# ----------------------------------------------------------------------------------------------------------- one-stage


def test_one_stage_sees_both_kinds_of_text_in_the_shares_asked_for(tiny_model, stages, shown):
    model = upcycle(tiny_model(), [1, 2])
    longer = replace(SETTINGS, tokens=12 * 4 * 32)
    result = stages.expand(model, original=["en", "es"], replay_share=0.25, settings=longer)
    assert shown == {"en": 6, "es": 6, "el": 18, "tr": 18}
    assert (result["original"], expansion_config(model).original) == (["en", "es"], ["en", "es"])
    assert result["terms"]["lpr_loss"]["tokens"] == pytest.approx(result["tokens"] / 4, rel=0.1)


def test_one_stage_trains_experts_and_routers_together_on_every_loss(tiny_model, stages):
    logged = []
    model = upcycle(tiny_model(), [1, 2])
    before = snapshot(model)
    options = {"original": ["en"], "replay_share": 0.5, "lpr_coef": 0.3, "load_balancing_coef": 0.5}
    stages.expand(model, **options, log=logged.append)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in before if "moe_lpr_experts" in name or "moe_lpr_router" in name}
    assert stage_names(model) == ["G1 expand"]
    for metrics in logged:
        parts = metrics["lm_loss"] + 0.5 * metrics["load_balancing_loss"] + 0.3 * metrics["lpr_loss"]
        assert metrics["loss"] == pytest.approx(parts, rel=1e-6)


def test_one_stage_moves_original_tokens_to_the_original_expert(tiny_model, stages):
    losses = []
    longer = replace(SETTINGS, tokens=16 * 4 * 32, router_learning_rate=0.1)
    options = {"replay_share": 0.5, "lpr_coef": 1.0, "log": lambda metrics: losses.append(metrics["lpr_loss"])}
    stages.expand(upcycle(tiny_model(), [1, 2]), original=["en"], settings=longer, **options)
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])


def test_one_stage_needs_routers_that_learn(tiny_model, stages):
    with pytest.raises(UsageError, match="none learns"):
        stages.expand(upcycle(tiny_model(), [1, 1]), original=["en"], train_routers=False)


@pytest.mark.parametrize(
    ("original", "share", "problem"),
    [(["en"], 0.0, "replay_share = 0"), (["en"], 1.5, "replay_share = 1.5"), (["el"], 0.5, "el cannot be both")],
)
def test_replay_that_makes_no_sense_is_refused_before_work(original, share, problem, tiny_model, stages, tmp_path):
    with pytest.raises(UsageError, match=problem):
        stages.expand(upcycle(tiny_model(), [1, 1]), original=original, replay_share=share)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------- the review's loss and size


@pytest.mark.parametrize("classifier_layers", [(), (1,)])
def test_the_loss_of_a_review_is_the_language_models_plus_a_tenth_of_each_routing_loss_and_nothing_else(
    classifier_layers, tiny_model, stages
):
    """MoE-LPR eq. 11, and with classifiers that of LayerMoE; the balance loss of stage 1 is gone."""
    logged = []
    model = upcycle(tiny_model(), [1, 2])
    stages.expand(model)
    result = stages.review(model, classifier_layers=classifier_layers, log=logged.append)
    names = ["lm_loss", "lpr_loss", *(["classifier_loss"] if classifier_layers else [])]
    assert list(result["terms"]) == names
    assert [term["coefficient"] for term in result["terms"].values()] == [1.0, *[0.1] * (len(names) - 1)]
    for metrics in logged:
        expected = metrics["lm_loss"] + 0.1 * sum(metrics[name] for name in names[1:])
        assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps", [3, 6, 12])
def test_fig_4_a_review_of_any_size_keeps_one_original_block_to_two_expanded_ones(steps, tiny_model, stages, shown):
    model = upcycle(tiny_model(), [1, 2])
    settings = replace(SETTINGS, tokens=steps * 4 * 32)
    result = stages.review(model, original=("en", "es"), settings=settings)
    assert result["steps"] == steps
    assert shown == dict.fromkeys(("en", "es"), steps * 4 // 6) | dict.fromkeys(("el", "tr"), steps * 4 // 3)
    assert result["terms"]["lpr_loss"]["tokens"] == pytest.approx(result["tokens"] / 3, rel=0.1)


@pytest.mark.slow
def test_fig_3_a_review_raises_expert_0_on_original_languages_and_more_with_the_lpr_loss_than_without(
    tiny_model, tiny_tokenizer, stages
):
    """In every layer: w/o review < with LPR, and w/o LPR < with LPR; on tokens of original languages."""
    longer = replace(SETTINGS, tokens=20 * 4 * 32, router_learning_rate=3e-2)
    found = {}
    for name, coefficient in (("without LPR", 0.0), ("full", 1.0)):
        model = upcycle(tiny_model(), [1, 3])
        stages.expand(model, out=f"{name} 1", settings=longer)
        stages.review(model, out=f"{name} 2", settings=longer, lpr_coef=coefficient)
        counter = ExpertCounter(stage_names(model))
        documents = stages.corpus.documents("replay", "en")
        blocks = pack(documents, tiny_tokenizer, 32, languages=["en"])
        for stage in stage_names(model):
            read_stage(counter, model, blocks, stage, TextSource("en", "original", "replay"))
        table = counter.tables(tiny_tokenizer)["original_probability"].set_index(["stage", "layer"])["probability"]
        found[name] = table["G1 review"]
        found["without review"] = table["G1 expand"]
    assert (found["full"] > found["without review"] + 0.05).all()
    assert (found["full"] > found["without LPR"] + 0.05).all()


# ------------------------------------------------------------------------------- lifelong MoE-LPR: the earlier groups


@pytest.fixture
def third_group(tiny_model):
    """Three groups: el with 1 expert in both layers, hu with 2 in the second alone, then tr with 1 in both."""
    model = upcycle(tiny_model(), [1, 1])
    for language, allocation in (("el", [0, 2]), ("hu", [1, 1])):
        expansion_config(model).groups[-1] = [language]
        upcycle(model, allocation)
    expansion_config(model).groups[-1] = ["tr"]
    assert [layer.num_experts for layer in moe_layers(model)] == [3, 5]
    return model


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_group_term_asks_of_each_layer_only_for_groups_that_have_experts_there(third_group, variant):
    term = group_term(third_group, ["en", "el", "hu", "tr"], 1.0, variant)
    language_id = torch.tensor([[0, 1, 1, 2, 2, 2, 3, -1]])
    batch = {"language_id": language_id}
    with torch.no_grad(), record_routing(third_group) as record:
        third_group(input_ids=IDS[:, :8], use_cache=False)
    first, second = (record.routing[layer].router_logits for layer in (0, 1))

    def summed(layer_logits, experts, language):
        log_probs = layer_logits.log_softmax(-1)[(language_id == language).flatten()]
        return -(log_probs[:, experts].sum() if variant == "released" else log_probs[:, experts].logsumexp(-1).sum())

    expected = (summed(first, [1], 1) + summed(second, [1], 1)) / 2 + summed(second, [2, 3], 2)
    # As released a mean over all tokens (there are 7), else over those of earlier groups.
    assert term.count(batch) == (7 if variant == "released" else 5)
    assert term.total(Forward(batch, torch.empty(0), record.routing)) == pytest.approx(float(expected), rel=1e-5)


def test_a_review_with_the_group_loss_sends_earlier_groups_to_their_own_experts(third_group, stages):
    losses = []
    longer = replace(SETTINGS, tokens=20 * 4 * 32, router_learning_rate=0.1)
    options = {"group_coef": 1.0, "lpr_coef": 0.0, "settings": longer}
    before = snapshot(third_group)
    result = stages.review(
        third_group,
        expanded=["el", "hu", "tr"],
        log=lambda metrics: losses.append(metrics["group_loss"]),
        **options,
    )
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])
    earlier = result["tokens"] * 2 / 3 * 2 / 3  # two of three expanded languages, which have two thirds
    assert result["terms"]["group_loss"]["tokens"] == pytest.approx(earlier, rel=0.1)
    assert result["terms"]["group_loss"]["variant"] == "paper"
    after = snapshot(third_group)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())  # new routers alone learned


def test_the_group_loss_is_off_unless_asked_for_and_refused_without_an_earlier_group(tiny_model, stages):
    model = upcycle(tiny_model(), [1, 1])
    stages.expand(model)
    assert "group_loss" not in stages.review(model)["terms"]
    fresh = upcycle(tiny_model(), [1, 1])
    expansion_config(fresh).groups[-1] = ["el", "tr"]
    with pytest.raises(UsageError, match=r"en, el, tr .*earlier group"):
        stages.review(fresh, group_coef=0.1)
    assert stage_names(fresh) == ["G1 expand"]
