"""What recipes resolve to: budgets as the papers count them, shares that follow depth and languages, rates by base."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from helpers.tiny_corpus import small_settings, write_corpus
from lpr_lab.errors import UsageError
from lpr_lab.experiments import pipeline, recipes, steps
from lpr_lab.experiments.config import Experiment, StageBudget, completed
from lpr_lab.method.settings import num_classifiers
from lpr_lab.method.similarity_table import SimilarityTable
from lpr_lab.model.bases.embedded import EMBEDDED, OTHER_LEARNING_RATES
from lpr_lab.runs.files import Paths
from lpr_lab.runs.find import find_same_config
from lpr_lab.runs.run import Run

BUDGET = StageBudget(tokens=4 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)
QWEN = (5, 4, 3, 5, 4, 3, 2, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 3, 3)
"""Experts per layer of Qwen1.5-1.8B for el, hu, tr, expert 0 counted (LayerMoE's scripts)."""
SECOND = (5, 4, 3, 4, 4, 2, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 1, 1)
"""What its second expansion adds."""


def planned(monkeypatch, tmp_path, values, experiment):
    """Plan with similarities that stand for a list: each layer's value of the formula is half below its number."""
    similarity = [1 / (value - 0.5) for value in values]
    pairs = np.array([[[1.0, s], [s, 1.0]] for s in similarity])
    layers = len(values)
    table = SimilarityTable(
        original=("en",),
        expanded=("el",),
        pairs=pairs,
        num_tokens=(9, 9),
        expert_parameters=(7,) * layers,
        state="mlp_input",
    )
    monkeypatch.setattr(steps, "measure_similarity", lambda *_, **__: table)
    text_config = SimpleNamespace(num_hidden_layers=layers)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text_config))
    run = Run.create(tmp_path, kind="expansion", slug="plan", title="plan", config=experiment.to_config())
    return steps.plan(experiment, run, model, None, None).new_experts, run.phases["plan"]


@pytest.mark.parametrize("delta", [None, sum(QWEN) - 12])
def test_rounding_up_gives_the_published_list_by_its_total_and_by_its_delta(monkeypatch, tmp_path, delta):
    experiment = recipes.layer_moe(allocation_rule="round_up", delta=delta, expanded=("el",))
    new, facts = planned(monkeypatch, tmp_path, QWEN, experiment)
    assert [count + 1 for count in new] == list(QWEN) and sum(new) == 48 == 2 * len(QWEN)
    assert 59 < facts["delta"] < 61 and len(facts["classifier_layers"]) == 7


@pytest.mark.parametrize("delta", [None, sum(SECOND) - 12])
def test_in_a_further_expansion_the_value_is_what_is_added(monkeypatch, tmp_path, delta):
    experiment = recipes.layer_moe(allocation_rule="round_up", delta=delta, expanded=("el",), parent="before")
    new, _ = planned(monkeypatch, tmp_path, SECOND, experiment)
    assert new == SECOND and sum(new) == 48


def test_84_experts_of_28_layers_are_56_new_ones(monkeypatch, tmp_path):
    values = [2 + layer % 3 for layer in range(28)]  # 84 would be 3 per layer
    values[0] += 84 - sum(values)
    new, _ = planned(monkeypatch, tmp_path, values, recipes.layer_moe(allocation_rule="round_up", expanded=("el",)))
    assert sum(new) == 56


def test_a_delta_without_rounding_up_and_an_unknown_rule_are_refused():
    with pytest.raises(UsageError, match="delta = 70"):
        recipes.layer_moe(delta=70)
    with pytest.raises(UsageError, match="mean 'round_up'"):
        recipes.layer_moe(allocation_rule="roundup")
    with pytest.raises(UsageError, match=r"no setting 'detla'.*'delta'"):
        recipes.layer_moe(detla=70)


@pytest.mark.parametrize(("layers", "wanted"), [(18, 5), (24, 7), (28, 8), (30, 9), (2, 1)])
def test_layer_moe_has_classifiers_in_the_papers_share_of_layers_at_any_depth(monkeypatch, tmp_path, layers, wanted):
    values = [2 + layer % 3 for layer in range(layers)]
    _, facts = planned(monkeypatch, tmp_path, values, recipes.layer_moe(expanded=("el",)))
    assert len(facts["classifier_layers"]) == wanted == num_classifiers(recipes.layer_moe().classifiers, layers)


def test_classifier_layers_can_be_named_and_need_no_similarity_then(monkeypatch, tmp_path):
    named = recipes.moe_lpr(classifiers=(5, 6, 10), allocation=(1,) * 24)
    monkeypatch.setattr(steps, "measure_similarity", None)
    text_config = SimpleNamespace(num_hidden_layers=24)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text_config))
    run = Run.create(tmp_path, kind="expansion", slug="plan", title="plan", config=named.to_config())
    steps.plan(named, run, model, None, None)
    assert run.phases["plan"]["classifier_layers"] == [5, 6, 10]


@pytest.mark.parametrize("classifiers", [-1, 1.5, -0.2])
def test_a_number_of_classifiers_that_is_none_is_refused(classifiers):
    with pytest.raises(UsageError, match=f"classifiers = {classifiers}"):
        recipes.moe_lpr(classifiers=classifiers)


# ---------------------------------------------------------------------------------------------------- further groups


@pytest.fixture(scope="module")
def materials(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    """A base model, and texts of which only the original languages have a replay split."""
    folder = tmp_path_factory.mktemp("materials")
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer.save_pretrained(folder / "base")
    write_corpus(folder / "all.jsonl", sentences, ("en", "es", "el", "tr"))
    with (folder / "all.jsonl").open() as before, (folder / "corpus.jsonl").open("w") as after:
        for line in before:
            record = json.loads(line)
            if record["split"] != "replay" or record["language"] in ("en", "es"):
                after.write(line)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name, make in recipes.RECIPES.items() if not make().is_baseline])
def test_every_recipe_teaches_a_further_group_where_only_original_languages_have_replay(materials, tmp_path, recipe):
    settings = small_settings(materials, BUDGET) | ({"classifiers": 1} if recipe == "layer_moe" else {})
    first = pipeline.run(recipes.named(recipe, **settings | {"expanded": ("el",)}), root=tmp_path)
    second = pipeline.run(recipes.further(first, expanded=("tr",)), root=tmp_path)
    assert second.status.state == "finished"
    assert all(claim["holds"] for claim in second.results["claims"] if claim["is_exact"])
    if recipe == "layer_moe":
        assert set(second.tables.read("similarity")["language_a"]) == {"en", "es", "el", "tr"}


@pytest.mark.parametrize(
    ("before", "taught", "new", "after"),
    [(1 / 3, 3, 3, 1 / 5), (1 / 3, 3, 1, 3 / 11), (1 / 4, 2, 2, 1 / 7), (1.0, 3, 3, 1.0), (0.5, 1, 1, 1 / 3)],
)
def test_a_further_review_replays_as_much_of_each_original_language_beside_each_other(
    tmp_path, monkeypatch, before, taught, new, after
):
    codes = ("el", "hu", "tr", "bn", "hi", "ne")
    first = recipes.moe_lpr(replay_share=before, expanded=codes[:taught])
    run = Run.create(tmp_path, kind="expansion", slug="first", title="first", config=first.to_config())
    monkeypatch.setattr(Paths, "has_checkpoint", True)
    second = recipes.further(run, expanded=codes[3 : 3 + new])
    assert second.review.replay_share == pytest.approx(after)
    assert recipes.further(run, expanded=codes[3:], replay_share=0.3).review.replay_share == 0.3


# ------------------------------------------------------------------------------------------------- rates and records


@pytest.mark.parametrize("recipe", [*recipes.RECIPES])
@pytest.mark.parametrize("base", [*EMBEDDED, "some/model"])
def test_every_recipe_learns_at_the_rates_of_its_base_and_records_them(recipe, base):
    known = EMBEDDED.get(base)
    experts, routers = (known.learning_rate, known.router_learning_rate) if known else OTHER_LEARNING_RATES
    experts *= 10 if recipe in ("lora", "lora_64", "lora_moe") else 1
    config = recipes.named(recipe, base=base, stage2=StageBudget(tokens=2048, learning_rate=0.5)).to_config()
    assert (config["stage1"]["learning_rate"], config["stage1"]["router_learning_rate"]) == (experts, routers)
    assert (config["stage2"]["learning_rate"], config["stage2"]["router_learning_rate"]) == (0.5, routers)


LATER = ("delta", "load_balancing_scope", "router_z_coef", "classifier_coef", "group_coef")
LATER_OF_STAGE = (
    "blocks_per_forward",
    "warmup_fraction",
    "final_learning_rate_fraction",
    "weight_decay",
    "adam_beta2",
    "max_grad_norm",
)


def as_before(config):
    """Return a configuration as a version recorded it that had fewer settings."""
    old = {name: value for name, value in config.items() if name not in LATER}
    for stage in ("stage1", "stage2"):
        old[stage] = {name: value for name, value in config[stage].items() if name not in LATER_OF_STAGE}
    return old


def test_a_run_of_an_earlier_version_opens_resumes_and_is_found(tmp_path):
    made = recipes.moe_lpr(classifiers=7)
    old = as_before(made.to_config())
    assert completed(old) == made.to_config()
    run = Run.create(tmp_path, kind=pipeline.KIND, slug="old", title="old", config=old)
    assert Experiment.from_config(run.config) == made.resolved()
    assert find_same_config(tmp_path, made.to_config(), pipeline.KIND, completed).id == run.id
    assert pipeline.start(made, run_dir=run.path).id == run.id


def test_a_run_of_an_earlier_version_with_other_settings_is_not_taken_for_this_one(tmp_path):
    old = as_before(recipes.moe_lpr().to_config())
    run = Run.create(tmp_path, kind=pipeline.KIND, slug="old", title="old", config=old)
    with pytest.raises(UsageError, match="load_balancing_scope differ"):
        pipeline.start(recipes.moe_lpr(load_balancing_scope="micro_batch"), run_dir=run.path)


def test_a_baseline_takes_no_further_group(tmp_path):
    experiment = recipes.full()
    run = Run.create(tmp_path, kind="expansion", slug="full", title="full", config=experiment.to_config())
    with pytest.raises(UsageError, match="trained a baseline"):
        recipes.further(run, expanded=("hi",))


@pytest.mark.parametrize(
    ("parameters", "settings"),
    [
        (
            {"stage1_tokens": 512, "stage2_tokens": 256},
            {"stage1": {"block_tokens": 64}, "stage2": {"block_tokens": 64}},
        ),
        ({"stage1_tokens": 4096, "blocks_per_step": 8}, {"stage1": {"tokens": 16_384}}),
        ({"stage1_tokens": 61_440, "blocks_per_step": 3}, {"stage1": {"blocks_per_step": 4, "blocks_per_forward": 2}}),
    ],
)
def test_settings_and_parameters_of_a_notebook_are_judged_together(parameters, settings):
    made = recipes.from_notebook("moe_lpr", parameters, settings=settings)
    for stage, own in settings.items():
        assert {name: getattr(getattr(made, stage), name) for name in own} == own


def test_settings_that_belong_together_may_come_from_both_sides_of_a_notebook():
    made = recipes.from_notebook("moe_lpr", {"delta": 60}, settings={"allocation_rule": "round_up"})
    assert (made.delta, made.allocation_rule) == (60, "round_up")


def test_settings_of_a_notebook_may_be_all_that_a_run_recorded():
    whole = recipes.layer_moe(seed=3).to_config() | {"recipe": "of my own"}
    assert recipes.from_notebook("moe_lpr", {"stage1_tokens": 4096}, settings=whole).to_config() == whole


def test_a_budget_that_cannot_be_is_refused_by_the_name_of_its_stage():
    with pytest.raises(UsageError, match=r"^stage2: "):
        recipes.from_notebook("moe_lpr", {"stage2_tokens": 512})
    with pytest.raises(UsageError, match=r"^stage1: "):
        recipes.moe_lpr(stage1={"tokens": 4096, "block_tokens": 2048})
