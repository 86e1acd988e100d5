"""Stage 1 and stage 2: what learns, what stays, how a step is split, and what an interrupted stage leaves."""

import dataclasses
import json

import pytest
import torch

from helpers.tiny_corpus import steps_of_four_blocks
from lpr_lab import storage
from lpr_lab.errors import UnsupportedModelError, UsageError
from lpr_lab.method.expand import expand
from lpr_lab.method.review import review
from lpr_lab.method.training import train as training
from lpr_lab.method.training.train import TrainSettings
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers

SETTINGS = steps_of_four_blocks(6)


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(model, before):
    return {
        name
        for name, parameter in model.named_parameters()
        if name not in before or not torch.equal(parameter, before[name])
    }


def expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, out, settings=SETTINGS, allocation=(1, 3), **options):
    model = upcycle(tiny_model("llama"), allocation)
    result = expand(model, tiny_tokenizer, tiny_corpus, languages=["el", "tr"], out=out, settings=settings, **options)
    return model, result


def test_claim_2_expand_changes_every_new_expert_and_router_and_nothing_else(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model = upcycle(tiny_model("llama"), [1, 3])
    before = snapshot(model)
    expand(model, tiny_tokenizer, tiny_corpus, languages=["el", "tr"], out=tmp_path, settings=SETTINGS)
    assert changed(model, before) == {name for name in before if "moe_lpr_experts" in name or "moe_lpr_router" in name}


def test_claim_2_expand_leaves_every_tensor_of_the_base_bit_identical(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    dense = tiny_model("llama")
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    model = upcycle(dense, [1, 3])
    expand(model, tiny_tokenizer, tiny_corpus, languages=["el", "tr"], out=tmp_path, settings=SETTINGS)
    state = {name.replace(".base_layer.", "."): tensor for name, tensor in model.get_base_model().state_dict().items()}
    assert all(torch.equal(state[name], tensor) for name, tensor in before.items())


def test_expand_lowers_the_loss_on_what_it_sees(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    losses = []
    longer = dataclasses.replace(SETTINGS, tokens=40 * 4 * 32, learning_rate=3e-2)
    expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, longer, log=lambda m: losses.append(m["lm_loss"]))
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])


def test_expand_sees_no_token_of_an_original_language(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch):
    seen = []
    original = training.BlockSchedule.batch
    monkeypatch.setattr(
        training.BlockSchedule, "batch", lambda self, step: seen.append(self.languages) or original(self, step)
    )
    expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path)
    assert set(seen) == {("el", "tr")}


@pytest.mark.parametrize("classifier_layers", [[], [1]])
def test_claim_2_review_changes_routers_and_classifiers_and_nothing_else(
    classifier_layers, tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model, _ = expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path / "1")
    before = snapshot(model)
    options = {"out": tmp_path / "2", "settings": SETTINGS, "classifier_layers": classifier_layers}
    review(model, tiny_tokenizer, tiny_corpus, original=["en"], expanded=["el"], **options)
    reviewed = changed(model, before)
    assert all("moe_lpr_router" in name or "moe_lpr_classifier" in name for name in reviewed)
    assert sum("moe_lpr_router" in name for name in reviewed) == 2
    assert sum("moe_lpr_classifier" in name for name in reviewed) == len(classifier_layers)
    assert not reviewed & set(before)  # the routers of stage 1 stay too: the review has its own


def test_review_moves_original_tokens_to_the_original_expert(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    model, _ = expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path / "1")
    losses = []
    longer = dataclasses.replace(SETTINGS, tokens=20 * 4 * 32, router_learning_rate=0.1)
    options = {"settings": longer, "log": lambda m: losses.append(m["lpr_loss"])}
    review(
        model,
        tiny_tokenizer,
        tiny_corpus,
        original=["en"],
        expanded=["el"],
        out=tmp_path / "2",
        lpr_coef=1.0,
        **options,
    )
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])


def test_the_base_is_bit_identical_after_training(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    dense = tiny_model("llama")
    ids = torch.arange(20)[None] + 5
    expected = dense(ids).logits.detach().clone()
    model = upcycle(dense, [1, 1])
    expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=tmp_path, settings=SETTINGS)
    with model.disable_adapter(), torch.no_grad():
        assert torch.equal(model(ids).logits, expected)


def test_training_in_bfloat16_leaves_the_models_own_precision_alone(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    dense = tiny_model("llama")
    ids = torch.arange(20)[None] + 5
    expected = dense(ids).logits.detach().clone()
    model = upcycle(dense, [1, 1])
    settings = dataclasses.replace(SETTINGS, precision="bf16")
    expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=tmp_path, settings=settings)
    with model.disable_adapter(), torch.no_grad():
        assert torch.equal(model(ids).logits, expected)


def test_disabling_the_adapter_does_not_make_frozen_parts_learn(tiny_model):
    model = upcycle(tiny_model("llama"), [1, 1])
    for layer in moe_layers(model):
        layer.router.weight.requires_grad_(False)
    with model.disable_adapter():
        pass
    assert not any(layer.router.weight.requires_grad for layer in moe_layers(model))


def test_results_say_of_every_term_its_coefficient_its_variant_and_how_many_tokens_it_saw(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path
):
    model, result = expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path / "1", router_z_coef=0.001)
    tokens = result["tokens"]
    assert result["terms"] == {
        "lm_loss": {"coefficient": 1.0, "tokens": result["terms"]["lm_loss"]["tokens"]},
        "load_balancing_loss": {"coefficient": 0.01, "variant": "paper", "scope": "step", "tokens": tokens},
        "router_z_loss": {"coefficient": 0.001, "tokens": tokens},
    }
    assert 0.9 * tokens < result["terms"]["lm_loss"]["tokens"] <= tokens
    options = {"lpr_variant": "released", "classifier_layers": [0], "classifier_input": "sequence"}
    options |= {"out": tmp_path / "2", "settings": SETTINGS}
    result = review(model, tiny_tokenizer, tiny_corpus, original=["en"], expanded=["el"], **options)
    lpr, classifier = result["terms"]["lpr_loss"], result["terms"]["classifier_loss"]
    assert lpr == {"coefficient": 0.1, "variant": "released", "tokens": lpr["tokens"]}
    assert lpr["tokens"] == pytest.approx(result["tokens"] / 3, rel=0.1)  # the share of replay
    assert classifier == {"coefficient": 0.1, "variant": "sequence", "blocks": 24}


def test_the_logged_loss_is_the_weighted_sum_of_the_unweighted_terms(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    logged = []
    expand_tiny(
        tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, load_balancing_coef=0.5, router_z_coef=0.1, log=logged.append
    )
    for metrics in logged:
        terms = metrics["lm_loss"] + 0.5 * metrics["load_balancing_loss"] + 0.1 * metrics["router_z_loss"]
        assert metrics["loss"] == pytest.approx(terms, rel=1e-6)


def test_a_stage_that_was_cut_and_resumed_ends_bit_identical(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    whole, expected = expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path / "whole")

    class Cut(Exception):
        pass

    def cut_after_three(metrics):
        if metrics["step"] == 4:
            raise Cut

    every_step = dataclasses.replace(SETTINGS, checkpoint_minutes=0.0)
    with pytest.raises(Cut):
        expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path / "cut", every_step, log=cut_after_three)
    assert (tmp_path / "cut" / "checkpoint-000003").is_dir()
    steps = []
    resumed, result = expand_tiny(
        tiny_model, tiny_tokenizer, tiny_corpus, tmp_path / "cut", every_step, log=lambda m: steps.append(m["step"])
    )
    assert steps == [4, 5, 6]
    other = snapshot(resumed)
    assert all(torch.equal(tensor, other[name]) for name, tensor in snapshot(whole).items())
    assert result["terms"] == expected["terms"]  # what each term saw counts from the beginning


def test_resume_refuses_a_damaged_checkpoint_by_name_and_takes_the_one_before(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, capsys
):
    every_step = dataclasses.replace(SETTINGS, checkpoint_minutes=0.0)
    expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, every_step)
    newest = tmp_path / "checkpoint-000006" / "optimizer.safetensors"
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    steps = []
    expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, every_step, log=lambda m: steps.append(m["step"]))
    assert steps == [6]
    assert "optimizer.safetensors" in capsys.readouterr().out
    assert (tmp_path / ".quarantine" / "checkpoint-000006.reason.txt").exists()


def test_a_checkpoint_of_before_by_another_number_of_processes_is_continued_and_said_to_round_otherwise(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, capsys
):
    """Earlier versions had their number among what must be equal."""
    begun = dataclasses.replace(SETTINGS, max_minutes=1e-9)
    expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, begun)
    checkpoint = tmp_path / "checkpoint-000001"
    state = storage.read_json_object(checkpoint / "state.json")
    del state["environment"]["processes"]
    state["facts"]["world_size"] = 2
    storage.write_json(checkpoint / "state.json", state)
    storage.seal(checkpoint, {"kind": "training-checkpoint", "step": 1})
    _, result = expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path)
    assert result["steps"] == SETTINGS.num_steps
    assert "processes 2 then, 1 now" in capsys.readouterr().out


def test_resume_refuses_other_settings(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path)
    hotter = dataclasses.replace(SETTINGS, learning_rate=0.1)
    with pytest.raises(UsageError, match="settings"):
        expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, hotter)
    with pytest.raises(UsageError, match="terms"):
        expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, load_balancing_variant="released")


def test_the_clock_stops_a_stage_cleanly_with_a_checkpoint(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path):
    capped = dataclasses.replace(SETTINGS, tokens=400 * 4 * 32, max_minutes=0.001)
    _, result = expand_tiny(tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, capped)
    assert result["stopped_by"] == "max_minutes"
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert json.loads((checkpoint / "MANIFEST.json").read_text())["step"] == result["steps"]


def test_a_loss_that_is_not_finite_stops_before_anything_is_updated(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch
):
    model = upcycle(tiny_model("llama"), [1, 1])
    moe_layers(model)[0].stacks[0].up.data[0, 0, 0] = 3e38  # overflows on its way up
    before = snapshot(model)
    with pytest.raises(Exception, match="Step 1 gave loss nan"):
        expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=tmp_path, settings=SETTINGS)
    assert all("moe_lpr_experts.default.0.up" in name for name in changed(model, before))
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize(
    "options", [{"tokens": 10}, {"blocks_per_step": 3, "blocks_per_forward": 2}, {"precision": "fp8"}]
)
def test_settings_that_make_no_sense_are_refused_before_work(options):
    with pytest.raises(UsageError):
        TrainSettings(**{"tokens": 100_000, **options})


def test_a_base_that_mixes_packed_documents_is_refused_before_training(
    tiny_model, tiny_tokenizer, tiny_corpus, tmp_path, monkeypatch
):
    base = tiny_model("llama")
    plain = base.forward

    def forward(input_ids, **given):  # a mask of its own, as some models build it: whatever came before is read
        length = input_ids.shape[1]
        mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
        return plain(input_ids=input_ids, **given | {"attention_mask": mask.expand(len(input_ids), 1, -1, -1)})

    monkeypatch.setattr(base, "forward", forward)
    model = upcycle(base, [1] * base.config.num_hidden_layers)
    with pytest.raises(UnsupportedModelError, match="attends across packed documents"):
        expand(model, tiny_tokenizer, tiny_corpus, languages=["el"], out=tmp_path, settings=SETTINGS)
    assert not list(tmp_path.glob("checkpoint-*"))
