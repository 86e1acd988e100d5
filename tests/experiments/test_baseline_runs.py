"""A baseline is a run as any other: same text and budget, scored beside the base, kept, resumed, and honestly dense."""

import json
from dataclasses import replace

import pytest
import torch

from helpers.tiny_corpus import small_settings
from lpr_lab.errors import UsageError
from lpr_lab.experiments import measuring, pipeline, recipes
from lpr_lab.experiments.config import Experiment, StageBudget
from lpr_lab.experiments.steps import RunContext
from lpr_lab.method import baselines
from lpr_lab.method.baselines.files import load_trained
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.model.formats.save_load import load_tokenizer
from lpr_lab.runs.compare.costs import costs_of
from lpr_lab.runs.model_ref import stages_of
from lpr_lab.runs.summary import summary_lines

BUDGET = StageBudget(tokens=2 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)
OWN = {
    "lora_moe": {"lora_rank": 2, "lora_experts": 2},
    "lora": {"lora_rank": 2},
    "lora_64": {"lora_rank": 4},
    "ssu": {"calibration_tokens": 256},
    "lape": {"calibration_tokens": 256, "neuron_share": 0.1},
}
BASELINES = tuple(name for name, make in recipes.RECIPES.items() if make().is_baseline)
ABLATIONS = ("no_copy", "no_review", "review_without_lpr", "one_stage")
QUICK = ("ssu",)


def slow(names, quick):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def experiment(materials, recipe, **changes) -> Experiment:
    return recipes.named(recipe, **{**small_settings(materials, BUDGET), **OWN.get(recipe, {}), **changes})


@pytest.mark.parametrize("recipe", slow(BASELINES, QUICK))
def test_a_baseline_is_a_run_as_any_other(materials, tmp_path, recipe):
    run = pipeline.run(experiment(materials, recipe), root=tmp_path)
    assert run.status.state == "finished" and run.paths.has_checkpoint and stages_of(run) == ["finetune"]
    results = run.results
    assert (results["recipe"], results["baseline"]) == (recipe, run.config["baseline"])
    assert results["exactness"]["base_difference"] == 0.0
    claims = {claim["name"]: claim for claim in results["claims"]}
    assert all(claim["holds"] for claim in claims.values() if claim["is_exact"])
    assert {"starts_equal", "base_untouched", "training_stable", "gain", "retention"} == set(claims)
    change = run.tables.read("change")
    assert set(change["language"]) == {"en", "es", "el", "tr"} and (change["before"] != change["after"]).all()
    assert list(dict.fromkeys(run.tables.read("stages")["stage"])) == ["base", "finetune"]
    said = run.generations.read()
    assert {record["language"] for record in said} == {"en", "es", "el", "tr"}
    found = results["stages"]["finetune"]
    assert found["steps"] == 4  # both stages' tokens
    assert not list((run.path / "stages").glob("*"))
    assert 0 < results["parameters"]["trained"] <= results["parameters"]["tuned"]
    # Nothing of the method's own stands there, empty or not.
    assert not {"plan", "routing"} & set(results) and not {"plan", "upcycle"} & set(run.phases)
    absent = {"load", "original_weight", "expert_load", "similarity", "router_fit"}
    assert not absent & set(run.tables.names()) and not run.traces.names()
    assert "expert" not in " ".join(summary_lines(results, run.phases.seconds))
    model = load_trained(run.path)
    probe = measuring.probe_of(load_tokenizer(run.path))
    tuned, base = measuring.logits_of(model, probe, ""), measuring.logits_of(model, probe, None)
    assert not torch.equal(tuned, base)
    cost = costs_of(run)
    assert cost["trained_parameters"] == results["parameters"]["trained"] and cost["file_bytes"] > 0
    assert cost["training_seconds"] >= 0 and cost["peak_memory_bytes"] > 0


@pytest.mark.parametrize("recipe", slow(ABLATIONS, ()))
def test_an_ablation_of_the_method_is_a_run_of_an_expansion(materials, tmp_path, recipe):
    run = pipeline.run(experiment(materials, recipe), root=tmp_path)
    results = run.results
    assert run.status.state == "finished" and results["recipe"] == recipe and results["routing"]
    assert set(results["stages"]) == set(run.config["steps"])
    names = {claim["name"] for claim in results["claims"]}
    assert ("starts_equal" in names) == (recipe != "no_copy")
    if recipe == "one_stage":
        stage = results["stages"]["one_stage"]
        assert stage["steps"] == 4 and stage["terms"]["lpr_loss"]["tokens"] > 0
    if recipe == "review_without_lpr":
        assert results["stages"]["review"]["terms"]["lpr_loss"]["coefficient"] == 0


# ------------------------------------------------------------------------------------------------- settings of recipes


def test_every_baseline_trains_on_the_tokens_of_both_stages_and_replays_what_its_name_says():
    papers = pytest.approx(20_480 / 3 / 81_920)
    expected = {"full": 0, "full_replay": 0.05, "full_replay_1": 0.01, "interpolate": 0, "ssu": 0, "lape": 0}
    expected |= dict.fromkeys(("lora", "lora_64", "llama_pro", "lora_moe", "sparse_moe"), papers)
    made = {name: recipes.named(name) for name in BASELINES}
    assert {name: one.replay_share_of_both for name, one in made.items()} == expected
    assert {one.both_stages.tokens for one in made.values()} == {81_920}
    assert (made["lora"].finetune.lora_rank, made["lora_64"].finetune.lora_rank) == (8, 64)
    assert recipes.full_replay(finetune_replay_share=0.2).replay_share_of_both == 0.2


def test_low_rank_updates_learn_at_ten_times_the_rate_unless_told_otherwise():
    rates = {name: recipes.named(name).resolved().stage1.learning_rate for name in ("full", "lora", "lora_moe")}
    assert rates["lora"] == rates["lora_moe"] == pytest.approx(10 * rates["full"])
    own = StageBudget(tokens=61_440, learning_rate=1e-3)
    assert recipes.lora(stage1=own).resolved().stage1.learning_rate == 1e-3
    written = recipes.lora().to_config()
    assert Experiment.from_config(written).to_config() == written  # not ten times once more


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"baseline": ""}, "baseline = ''"),
        ({"steps": ("finetune", "review")}, "no others"),
        ({"parent": "2026"}, "dense base"),
        ({"finetune_replay_share": 1.5}, "replay_share = 1.5"),
        ({"recipe": "sparse_moe", "baseline": "sparse_moe", "allocation": "similarity"}, "sparse_moe takes"),
    ],
)
def test_what_a_baseline_cannot_be_is_refused_before_work(changes, problem):
    with pytest.raises(UsageError, match=problem):
        recipes.full(**changes)


def test_a_step_of_a_baseline_is_not_part_of_the_method():
    with pytest.raises(UsageError, match="baseline = ''"):
        replace(recipes.moe_lpr(), steps=("expand", "finetune"))


# ------------------------------------------------------------------------------------------ the text, and interruptions


def test_a_baseline_sees_the_replay_that_its_recipe_says(materials, tmp_path, monkeypatch):
    seen = []
    batch = BlockSchedule.batch
    monkeypatch.setattr(BlockSchedule, "batch", lambda self, step: seen.extend(self.at(step)) or batch(self, step))
    made = experiment(materials, "full_replay", finetune_replay_share=0.25)
    pipeline.train(pipeline.prepare(made, pipeline.start(made, root=tmp_path)))
    languages = [language for language, _ in seen]
    assert {code: languages.count(code) for code in ("en", "es", "el", "tr")} == {"en": 1, "es": 1, "el": 3, "tr": 3}


def trained(context: RunContext) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in context.model.tuned.state_dict().items()}


@pytest.mark.parametrize("recipe", slow(("ssu", "interpolate", "lora"), ()))
def test_a_baseline_that_was_cut_goes_on_and_ends_bit_identical(materials, tmp_path, recipe, monkeypatch):
    made = experiment(materials, recipe)
    whole = pipeline.prepare(made, pipeline.start(made, root=tmp_path / "whole"))
    pipeline.train(whole)
    plain = baselines.finetune

    def cut(*args, settings, **kwargs):
        found = plain(*args, settings=replace(settings, max_minutes=1e-9), **kwargs)
        raise KeyboardInterrupt(found["steps"])

    monkeypatch.setattr(baselines, "finetune", cut)
    with pytest.raises(KeyboardInterrupt, match="1"):
        pipeline.train(pipeline.prepare(made, pipeline.start(made, root=tmp_path / "cut")))
    monkeypatch.setattr(baselines, "finetune", plain)
    if recipe == "ssu":
        monkeypatch.setattr(baselines.kinds, "select", lambda *_, **__: pytest.fail("it was chosen before"))
    again = pipeline.prepare(made, pipeline.start(made, root=tmp_path / "cut"))
    pipeline.train(again)
    assert all(torch.equal(tensor, trained(whole)[name]) for name, tensor in trained(again).items())
    pipeline.train(pipeline.prepare(made, again.run))  # trained before: its weights are read
    manifest = again.run.paths.checkpoint / "MANIFEST.json"
    assert json.loads(manifest.read_text())["recipe"] == recipe
