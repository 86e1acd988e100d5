"""Controls that are trainings: the old-only arm reads originals alone, and B0-raw is a base that other runs open."""

import math

import pytest

from helpers.tiny_corpus import small_settings
from lpr_lab.errors import UsageError
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import Experiment, StageBudget
from lpr_lab.experiments.controls import arms
from lpr_lab.measure.controls.self_samples import samples_of
from lpr_lab.method.training.schedule import BlockSchedule
from lpr_lab.model.bases.load import load_base
from lpr_lab.runs.compare.control_runs import excess_forgetting, find_old_only

BUDGET = StageBudget(tokens=2 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)


def test_an_old_only_arm_differs_in_nothing_but_what_it_reads():
    experiment = recipes.moe_lpr(original=("en",), expanded=("el", "tr"))
    arm = arms.old_only(experiment)
    assert arm.to_config() == {**experiment.to_config(), "control": "old_only"}
    assert (arm.taught, experiment.taught) == (("en",), ("el", "tr")) and arm.languages == experiment.languages
    # Both stages on English alone, and of its text 15 / 80 as much is for the second as for the first.
    assert arm.tokens_per_language == math.ceil(experiment.stage2.tokens * 80 / 15)
    assert arm.tokens_per_language > experiment.tokens_per_language
    with pytest.raises(UsageError, match="old-only"):
        arms.old_only(arm)
    with pytest.raises(UsageError, match="control"):
        recipes.moe_lpr(control="new_only")


@pytest.mark.parametrize("recipe", sorted(recipes.RECIPES))
def test_every_recipe_has_an_old_only_arm_that_has_text_for_all_its_tokens(recipe):
    experiment = recipes.named(recipe, original=("en", "es"), expanded=("el", "tr"))
    arm = arms.old_only(experiment)
    assert arm.taught == ("en", "es") and arm.to_config() == {**experiment.to_config(), "control": "old_only"}
    in_one_stage = {"one_stage", "finetune"} & set(experiment.steps)
    tokens = experiment.stage1.tokens + (experiment.stage2.tokens if in_one_stage else 0)
    assert arm.tokens_per_language >= tokens / 2


def test_a_step_that_no_arm_is_known_of_is_refused(monkeypatch):
    monkeypatch.setattr(arms, "_KNOWN_STEPS", ("expand",))
    with pytest.raises(UsageError, match="review"):
        arms.old_only(recipes.moe_lpr())


def test_runs_of_before_have_no_control_and_ask_for_no_samples():
    config = recipes.moe_lpr().to_config()
    before = {name: value for name, value in config.items() if name not in ("control", "self_samples")}
    assert Experiment.from_config(before).to_config() == config


@pytest.mark.slow
def test_a_run_and_its_arm_read_what_they_should_and_give_excess_forgetting(materials, tmp_path, monkeypatch):
    read = []
    batch = BlockSchedule.batch
    monkeypatch.setattr(
        BlockSchedule, "batch", lambda self, step: read.extend(code for code, _ in self.at(step)) or batch(self, step)
    )
    settings = small_settings(materials, BUDGET)
    run = pipeline.run(recipes.moe_lpr(**settings, self_samples=4, self_sample_tokens=8), root=tmp_path)
    assert {"el", "tr"} <= set(read)
    read.clear()
    arm = arms.make_old_only(run)
    assert set(read) == {"en", "es"} and arms.make_old_only(run).id == arm.id and "old-only" in arm.title
    assert find_old_only(run, [arm, run]) is not None
    table = excess_forgetting(run, arm)
    assert list(table["language"]) == ["en", "es", "mean"] and table["ci_low"].notna().all()

    kept, divergence = run.tables.read("self_samples"), run.tables.read("self_divergence")
    assert kept is not None and divergence is not None and len(samples_of(kept)) == divergence["n_samples"].max()
    assert list(dict.fromkeys(divergence["model"])) == ["G1 expand", "G1 review"]
    assert (divergence["kl_bits_per_byte"] > 0).all() and len(run.results["self_divergence"]) == len(divergence)


@pytest.mark.slow
def test_b0_raw_is_a_base_of_its_own_stops_by_its_rule_and_is_made_once(materials, tmp_path):
    options = {"base": str(materials / "base"), "corpus": str(materials / "corpus.jsonl"), "original": ("en", "es")}
    options |= {"budget": BUDGET, "rounds": 2, "eval_tokens_per_language": 200, "precision": "fp32", "root": tmp_path}
    run = arms.raw_base(**options)
    rounds = run.results["rounds"]
    assert [row["round"] for row in rounds] == list(range(len(rounds))) and rounds[-1]["tokens"] <= 2 * BUDGET.tokens
    assert len(rounds) == 3 or rounds[-1]["gain_percent"] < 0.3
    model, _ = load_base(run.path / arms.MODEL)
    before, _ = load_base(materials / "base")
    assert any((a != b).any() for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert arms.raw_base(**options).id == run.id


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["full_replay", "interpolate", "lape", "one_stage"])
def test_the_arm_of_what_is_trained_in_one_stage_reads_originals_alone_too(recipe, materials, tmp_path, monkeypatch):
    run = pipeline.run(recipes.RECIPES[recipe](**small_settings(materials, BUDGET)), root=tmp_path)
    read = []
    batch = BlockSchedule.batch
    monkeypatch.setattr(
        BlockSchedule, "batch", lambda self, step: read.extend(code for code, _ in self.at(step)) or batch(self, step)
    )
    arm = arms.make_old_only(run)
    assert set(read) == {"en", "es"} and find_old_only(run, [arm, run]) == arm
    assert list(excess_forgetting(run, arm)["language"]) == ["en", "es", "mean"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["full", "lora"])
def test_a_baseline_is_compared_with_its_base_on_what_the_base_writes(recipe, materials, tmp_path):
    settings = small_settings(materials, BUDGET) | {"self_samples": 4, "self_sample_tokens": 8}
    run = pipeline.run(recipes.RECIPES[recipe](**settings), root=tmp_path)
    table = run.tables.read("self_divergence")
    assert table is not None and list(dict.fromkeys(table["model"])) == ["finetune"]
    assert (table["kl_bits_per_byte"] > 0).all() and table["n_samples"].max() >= 4
