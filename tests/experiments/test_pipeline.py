"""A whole run on a tiny model and text of our own: every promised file, and nothing done twice when interrupted."""

import functools
import json
import shutil

import pytest
import torch

from helpers.tiny_corpus import small_settings
from helpers.tokenizer_kinds import silent
from lpr_lab.errors import MissingError, UsageError
from lpr_lab.experiments import lifelong, measuring, pipeline, recipes, steps
from lpr_lab.experiments.config import Experiment, StageBudget
from lpr_lab.experiments.load import starting_model
from lpr_lab.model.formats.save_load import load_expansion
from lpr_lab.model.stages import stage_names
from lpr_lab.runs.find import find_same_config, list_runs
from lpr_lab.runs.lineage import members_of
from lpr_lab.views.html.run_overview import lost_text, render_tiles

BUDGET = StageBudget(tokens=4 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)

ASKED = {"tasks": ("choice", "generation"), "task_items": 5, "task_prompts": 2}


def experiment(materials, recipe="route_first", **changes) -> Experiment:
    settings = small_settings(materials, BUDGET)
    if recipe == "layer_moe":
        settings["classifiers"] = 1
    return recipes.named(recipe, **{**settings, **changes})


@pytest.fixture(scope="module")
def finished(materials, tmp_path_factory):
    """Return a function that makes a whole run of a recipe, once for all tests that only look at it."""

    def make(recipe):
        asked = ASKED if recipe == "moe_lpr" else {}
        return pipeline.run(experiment(materials, recipe, **asked), root=tmp_path_factory.mktemp(recipe))

    return functools.cache(make)


@pytest.mark.parametrize(
    "recipe",
    [
        "moe_lpr",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("route_first", "layer_moe", "local_review", "guided_review")
        ),
    ],
)
def test_a_run_tells_the_whole_story(finished, recipe):
    run = finished(recipe)
    assert run.status.state == "finished"
    assert run.paths.has_checkpoint
    assert {"retention", "change", "load", "original_weight"} <= set(run.tables.names())
    assert set(run.traces.names()) == {"en", "es", "el", "tr"}
    assert {record["language"] for record in run.generations.read()} == {"en", "es", "el", "tr"}
    results = run.results
    assert results["recipe"] == recipe
    assert all(claim["holds"] for claim in results["claims"] if claim["is_exact"])
    assert results["exactness"]["base_difference"] == 0.0
    metrics = run.metrics.read()
    assert set(metrics["stage"]) == set(run.config["steps"]) & {"expand", "review"}
    assert {"lm_loss", "lr", "grad_norm"} <= set(metrics["name"])
    assert not list((run.path / "stages").glob("*"))  # what only a resume needed is gone
    load_expansion(run.path)


@pytest.mark.slow
def test_what_was_before_and_after_the_review_is_scored_on_the_same_documents(finished):
    run = finished("moe_lpr")
    stages = run.tables.read("stages")
    assert list(dict.fromkeys(stages["stage"])) == ["base", "G1 expand", "G1 review"]
    assert (stages.groupby(["language", "dataset"])["n_documents"].nunique() == 1).all()
    assert set(run.tables.read("retention")["model"]) == {"base", "expanded"}
    answers, changes = run.tables.read("tasks"), run.tables.read("task_changes")
    assert list(dict.fromkeys(answers["stage"])) == ["base", "G1 expand", "G1 review", "people"]
    assert (answers[answers["task"] == "choice"]["n_items"] == 5).all()
    assert list(dict.fromkeys(changes["stage"])) == ["G1 expand", "G1 review"]
    assert set(run.results["tasks"]["meaning"]) == {"choice", "script", "language", "no_repetition"}


def test_a_task_that_cannot_be_asked_is_refused_before_there_is_a_run(materials, tmp_path):
    with pytest.raises(UsageError, match="chioce"):
        experiment(materials, tasks=("chioce",))


@pytest.mark.slow
def test_layer_moe_plans_by_similarity_and_puts_classifiers_where_languages_are_alike(finished):
    run = finished("layer_moe")
    plan = run.phases["plan"]
    assert sum(plan["new_experts"]) == 4  # two per layer on average
    fewest = plan["similarity"].index(max(plan["similarity"]))
    assert plan["new_experts"][fewest] == min(plan["new_experts"])
    assert len(plan["classifier_layers"]) == 1
    assert "similarity" in run.tables.names()
    assert "classifier_loss" in set(run.metrics.read()["name"])
    classifiers = run.tables.read("classifiers")
    assert sorted(set(classifiers["layer"])) == plan["classifier_layers"]
    assert set(classifiers["language"]) == {"en", "es", "el", "tr"}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["route_first", "moe_lpr"])
def test_a_further_group_goes_on_from_a_run_and_keeps_what_was_there(materials, tmp_path, recipe, monkeypatch):
    first = pipeline.run(experiment(materials, recipe, expanded=("el",)), root=tmp_path)
    second = recipes.further(first, expanded=("tr",))
    assert second.languages == ("en", "es", "el", "tr")
    plain, cuts = measuring.evaluate, []

    def cut_once(*args, **kwargs):
        if not cuts:
            cuts.append(True)
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    monkeypatch.setattr(measuring, "evaluate", cut_once)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(second, root=tmp_path)
    run = pipeline.run(second, root=tmp_path)
    assert run.parents == (first.id,)
    results = run.results
    assert results["earlier"] == ["el"]
    claims = {claim["name"]: claim for claim in results["claims"]}
    assert claims["parent_untouched"]["measured"] == 0.0 == claims["base_untouched"]["measured"]
    assert "earlier_groups_kept" in claims
    assert "starts_equal" not in claims
    own = {"route_first": ["G1 expand", "G2 expand"], "moe_lpr": ["G1 expand", "G1 review", "G2 expand", "G2 review"]}
    assert list(dict.fromkeys(run.tables.read("stages")["stage"])) == ["base", *own[recipe]]
    model = load_expansion(run.path)
    assert stage_names(model) == own[recipe]
    if recipe == "route_first":
        assert results["stages"]["fit_routers"]["earlier_groups_from_statistics"]
    else:
        reviewed = results["stages"]["review"]
        assert (reviewed["original"], reviewed["expanded"]) == (["en", "es"], ["el", "tr"])
        assert results["stages"]["expand"]["languages"] == ["tr"]


def test_a_further_group_needs_its_languages_and_a_run_with_weights(materials, tmp_path):
    run = pipeline.start(experiment(materials), root=tmp_path)
    with pytest.raises(UsageError, match="needs its languages"):
        recipes.further(run)
    with pytest.raises(MissingError, match=f"{run.id} .*no weights"):
        recipes.further(run, expanded=("hu",))


@pytest.mark.slow
def test_an_interrupted_run_resumes_and_ends_as_one_that_was_not(finished, materials, tmp_path, monkeypatch):
    whole = finished("route_first")
    plain = measuring.evaluate

    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "evaluate", cut)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(experiment(materials), root=tmp_path / "cut")
    monkeypatch.setattr(measuring, "evaluate", plain)
    monkeypatch.setattr(steps, "expand", cut)  # trained before: must not be trained again
    monkeypatch.setattr(steps, "fit_routers", cut)
    resumed = pipeline.run(experiment(materials), root=tmp_path / "cut")
    assert len([path for path in (tmp_path / "cut").iterdir() if path.name != "latest"]) == 1
    assert resumed.results["change"] == whole.results["change"]
    assert resumed.results["routing"] == whole.results["routing"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_results_twice(finished, materials, tmp_path):
    first, second = finished("route_first"), pipeline.run(experiment(materials), root=tmp_path)
    assert (first.path / "results.json").read_bytes() == (second.path / "results.json").read_bytes()
    assert first.phases["expand"]["tokens_per_second"] > 0 and set(first.phases.seconds) >= {"expand", "measure"}


def test_a_recipe_survives_its_configuration_file(materials):
    made = experiment(materials, "moe_lpr")
    assert Experiment.from_config(json.loads(json.dumps(made.to_config()))) == made.resolved()


def test_recipes_differ_in_what_their_names_say():
    assert recipes.moe_lpr().steps == ("expand", "review")
    assert recipes.moe_lpr().upcycle.router_input == "token"
    assert recipes.route_first().steps == ("fit_routers", "expand")


def test_unknown_recipes_settings_and_languages_are_refused_before_work(materials):
    with pytest.raises(UsageError, match="mean 'route_first'"):
        recipes.named("route_frist")
    with pytest.raises(UsageError, match="mean 'original'"):
        Experiment.from_config({"orignal": ["en"]})
    with pytest.raises(UsageError, match="cannot be both"):
        experiment(materials, original=("en",), expanded=("en", "el"))
    with pytest.raises(UsageError, match="at least one original"):
        experiment(materials, original=())


@pytest.mark.slow
def test_retention_of_every_group_is_known_after_every_stage(materials, tmp_path, monkeypatch):
    made = experiment(materials, stage1=BUDGET)
    groups = [["el"], ["tr"]]
    run = lifelong.start(made, groups, root=tmp_path)
    children = lifelong.run_groups(made, groups, run)
    results = lifelong.finish(run, children)
    table = run.tables.read("retention_by_stage")
    assert list(dict.fromkeys(table["stage"])) == ["base", "G1 expand", "G2 expand"]
    assert dict(zip(table["language"], table["group"], strict=True)) == {"en": "G0", "es": "G0", "el": "G1", "tr": "G2"}
    assert (table[table["stage"] == "base"]["change_percent"] == 0).all()
    known = table[table["change_low"].notna()]  # fewer than six documents give no interval
    assert set(known["stage"]) >= {"base"} and known["change_high"].notna().all()
    assert (known["change_low"] <= known["change_percent"] + 1e-9).all()
    assert (known["change_percent"] <= known["change_high"] + 1e-9).all()
    assert len(table) == 4 * 2 * 3
    assert results["groups"] == groups and members_of(run) == [child.id for child in children]
    assert run.status.state == "finished"
    monkeypatch.setattr(pipeline, "run", None)
    assert [child.id for child in lifelong.run_groups(made, groups, run)] == [child.id for child in children]


@pytest.mark.parametrize("groups", [[["el"]], [["el"], []]])
def test_one_group_or_an_empty_one_is_refused(materials, tmp_path, groups):
    with pytest.raises(UsageError, match="at least two groups"):
        lifelong.start(experiment(materials), groups, root=tmp_path)


@pytest.mark.slow
def test_a_run_is_the_same_run_with_and_without_trackers_who_get_what_it_logged(materials, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = pipeline.run(experiment(materials, "moe_lpr"), root=tmp_path, trackers=("tensorboard",))
    assert "trackers" not in run.config
    assert find_same_config(tmp_path, experiment(materials, "moe_lpr").to_config(), pipeline.KIND).id == run.id
    for stage in ("expand", "review"):
        events = EventAccumulator(str(run.paths.tracking / "tensorboard" / stage))
        events.Reload()
        logged = run.metrics.read().query("stage == @stage and name == 'lm_loss'")
        assert [event.step for event in events.Scalars("lm_loss")] == logged["step"].tolist()
        assert [event.value for event in events.Scalars("lm_loss")] == pytest.approx(logged["value"].tolist())


@pytest.mark.slow
def test_how_a_machine_computes_is_recorded_and_changes_no_setting(materials, tmp_path, monkeypatch):
    monkeypatch.setenv("LPR_LAB_TRAIN_WITH", "activation_checkpointing")
    run = pipeline.run(experiment(materials), root=tmp_path)
    wanted = {"attention": "sdpa", "activation_checkpointing": True, "compile": False}
    assert run.phases["expand"]["computed_with"] == wanted
    assert Experiment.from_config(run.config) == experiment(materials).resolved()


def test_an_unknown_way_to_compute_is_refused_before_work_starts(materials, tmp_path, monkeypatch):
    monkeypatch.setenv("LPR_LAB_TRAIN_WITH", "compiled")
    with pytest.raises(UsageError, match="Did you mean 'compile'"):
        pipeline.run(experiment(materials), root=tmp_path)
    monkeypatch.setenv("LPR_LAB_TRAIN_WITH", "activation_checkpointing,expert_checkpointing")
    with pytest.raises(UsageError, match="excludes"):
        pipeline.run(experiment(materials), root=tmp_path)


@pytest.mark.slow
def test_a_base_in_four_bits_goes_through_a_whole_run_and_the_next_group(materials, tmp_path):
    run = pipeline.run(experiment(materials, quantization="nf4", expanded=("el",)), root=tmp_path)
    assert all(claim["holds"] for claim in run.results["claims"] if claim["is_exact"])
    assert load_expansion(run.path).peft_config["default"].base_quantization == "nf4"
    following = pipeline.run(recipes.further(run, expanded=("tr",)), root=tmp_path)
    assert following.results["exactness"]["base_difference"] == 0.0


def test_a_tokenizer_that_loses_the_text_is_refused_before_anything_is_trained(materials, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(materials / "base", base)
    silent().save_pretrained(base)
    wanted = experiment(materials, base=str(base))
    with pytest.raises(UsageError, match=r"loses [\d.]+% .* \w+ \(train\)"):
        pipeline.run(wanted, root=tmp_path / "runs")
    [run] = list_runs(tmp_path / "runs")
    assert not run.paths.has_checkpoint and run.metrics.read().empty


@pytest.mark.slow
def test_what_a_tokenizer_loses_stands_in_the_results_and_on_the_page(materials, tmp_path, monkeypatch):
    plain = measuring.evaluate

    def losing(*args, **kwargs):
        report = plain(*args, **kwargs)
        report.lost.loc[0] = ["el", "expanded", "dev", 1000, 21, 0.021, "'漢'"]
        return report

    monkeypatch.setattr(measuring, "evaluate", losing)
    run = pipeline.run(experiment(materials), root=tmp_path)
    [row] = run.results["lost_text"]
    assert (row["language"], row["lost_share"]) == ("el", 0.021)
    assert "2.10% of Greek (dev)" in lost_text(run) and lost_text(run) in render_tiles(run)


@pytest.mark.slow
def test_a_run_on_a_base_in_bfloat16_keeps_its_promises_and_opens_so(materials, tmp_path):
    """Also where a processor has no instructions for bfloat16, and is slow."""
    made = experiment(materials, "moe_lpr", base_dtype="bfloat16", precision="bf16")
    run = pipeline.run(made, root=tmp_path)
    assert all(claim["holds"] for claim in run.results["claims"] if claim["is_exact"])
    assert run.results["exactness"]["base_difference"] == 0.0
    assert run.phases["expand"]["precision"] == run.phases["review"]["precision"] == "bf16"
    model = load_expansion(run.path)
    assert {p.dtype for name, p in model.named_parameters() if "moe_lpr_" in name} == {torch.float32}
    assert {p.dtype for name, p in model.named_parameters() if "moe_lpr_" not in name} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("chosen", "begun", "expected"),
    [
        ("bfloat16", None, torch.bfloat16),
        ("float32", None, torch.float32),
        ("float32", {"base_dtype": "bfloat16"}, torch.bfloat16),
        ("bfloat16", {}, torch.float32),  # begun by an earlier version, which knew no other
    ],
)
def test_a_run_goes_on_with_its_base_as_it_was_held_at_the_beginning(materials, tmp_path, chosen, begun, expected):
    made = experiment(materials, base_dtype=chosen)
    run = pipeline.start(made, root=tmp_path)
    if begun is not None:
        run.phases.record("upcycle", begun)
    _, model, _ = starting_model(made, run)
    assert model.dtype == expected
