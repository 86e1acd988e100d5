"""The papers' own runs from all three doors: the library, a notebook's parameter, and the command line's `-p`.

The numbers here were copied from the papers and their scripts once more, not from `paper_settings`.
"""

import ast
import dataclasses
import json
import re

import pytest

import lpr_lab as lab
from helpers.tiny_corpus import write_corpus
from lpr_lab.errors import UsageError
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import StageBudget, changed
from lpr_lab.experiments.notebooks.parameters import NotebookFile, read_notebook, resolve
from lpr_lab.experiments.notebooks.run import notebooks_dir
from lpr_lab.method import expand, paper_settings, review
from lpr_lab.method.paper_settings import PRESETS

QUICKSTART = read_notebook(notebooks_dir() / "00_quickstart.ipynb")
OPTIMISER = {
    "learning_rate": 5e-5,
    "router_learning_rate": 5e-5,
    "warmup_fraction": 0.0,
    "final_learning_rate_fraction": 0.0,
    "weight_decay": 0.0,
    "adam_beta2": 0.999,
    "max_grad_norm": 1.0,
}
MOE_LPR = {
    "base": "Qwen/Qwen1.5-1.8B",
    "original": ("en", "zh", "es"),
    "expanded": ("el", "hu", "tr"),
    "new_experts_per_layer": 5,
    "allocation": "uniform",
    "top_k": 2,
    "router_input": "token",
    "router_bias": False,
    "router_init": "xavier",
    "expert_init": "copy",
    "load_balancing_coef": 0.01,
    "load_balancing_scope": "step",
    "loss_variant": "paper",
    "lpr_coef": 0.1,
    "replay_share": 1 / 3,
    "precision": "bf16",
    "stage1": {"tokens": 45_856 * 524_288, "block_tokens": 1024, "blocks_per_step": 512, **OPTIMISER},
    "stage2": {"tokens": 414_000_000, "block_tokens": 512, "blocks_per_step": 512, **OPTIMISER},
}
RELEASED = {"loss_variant": "released", "load_balancing_scope": "micro_batch", "classifier_input": "sequence"}
TOTALS = {
    "G1": "5,4,3,5,4,3,2,3,3,2,2,2,2,2,2,2,2,3,3,4,4,4,3,3",
    "G2": "5,5,4,5,4,3,2,3,3,3,2,2,2,2,2,3,3,3,3,3,3,3,2,2",
    "G1 G2": "10,8,6,9,8,5,3,5,5,4,3,3,3,3,3,3,3,5,5,6,6,6,4,4",
    "G2 G1": "9,8,6,8,7,5,3,5,5,4,3,3,3,3,3,5,5,5,6,6,6,6,3,3",
    "MoLA": "2,2,2,2,2,2,4,4,4,4,4,4,6,6,6,6,6,6,8,8,8,8,8,8",
}


def totals(name: str) -> list[int]:
    return [int(word) for word in TOTALS[name].split(",")]


def new(name: str) -> tuple[int, ...]:
    return tuple(count - 1 for count in totals(name))


LAYER_MOE_STAGE1 = {**MOE_LPR["stage1"], "tokens": 6_000_000_000, "blocks_per_forward": 8}
LAYER_MOE_STAGE2 = {**MOE_LPR["stage2"], "blocks_per_step": 768, "blocks_per_forward": 24}
LAYER_MOE = {
    **MOE_LPR,
    "new_experts_per_layer": 2,
    "allocation": new("G1"),
    "allocation_rule": "round_up",
    "similarity_tokens": 100_000,
    "classifiers": (5, 6, 10, 11, 12, 13, 23),
    "classifier_coef": 0.1,
    "stage1": LAYER_MOE_STAGE1,
    "stage2": LAYER_MOE_STAGE2,
}
SMALL_BATCH = {**LAYER_MOE_STAGE2, "blocks_per_step": 320, "blocks_per_forward": 20}
WANTED = {
    "moe_lpr": MOE_LPR,
    "moe_lpr_released": {**MOE_LPR, **RELEASED},
    "layer_moe": LAYER_MOE,
    "layer_moe_released": {**LAYER_MOE, **RELEASED},
    "layer_moe_g2": {**LAYER_MOE, "expanded": ("bn", "hi", "ne"), "allocation": new("G2")},
    "layer_moe_both": {
        **LAYER_MOE,
        "expanded": ("el", "hu", "tr", "bn", "hi", "ne"),
        "stage1": {**LAYER_MOE_STAGE1, "tokens": 12_000_000_000},
        "stage2": {**LAYER_MOE_STAGE2, "tokens": 690_000_000},
        "replay_share": 1 / 5,
    },
    "layer_moe_llama": {
        **LAYER_MOE,
        "base": "meta-llama/Llama-3.2-3B",
        "allocation": "similarity",
        "delta": 70,
        "classifiers": 0,
        "stage2": {**LAYER_MOE_STAGE2, "blocks_per_step": 640, "blocks_per_forward": 20},
    },
    "moe_lpr_as_baseline": {**MOE_LPR, "stage1": LAYER_MOE_STAGE1, "stage2": SMALL_BATCH},
    "mola": {**MOE_LPR, "allocation": new("MoLA"), "stage1": LAYER_MOE_STAGE1, "stage2": SMALL_BATCH},
}


def from_library(preset, settings):
    recipe, own = PRESETS[preset]
    return changed(recipes.named(recipe, **own), settings)


def from_cell(preset, settings):
    """What a person has who sets both in the notebook's parameters cell."""
    return made_by(QUICKSTART, {"preset": preset, "settings": settings})


def from_command_line(preset, settings):
    values = resolve(QUICKSTART.parameters, [f"preset={preset}", f"settings={json.dumps(settings)}"])
    return made_by(QUICKSTART, values)


def made_by(notebook: NotebookFile, values):
    """Run the statements of a notebook up to its experiment."""
    body = ast.parse(notebook.code[1]).body
    last = next(n for n, node in enumerate(body) if ast.unparse(node).startswith("experiment = "))
    names = {name: parameter.default for name, parameter in notebook.parameters.items()} | values
    exec(compile(ast.Module(body[: last + 1], []), "settings", "exec"), names)
    return names["experiment"]


DOORS = {"library": from_library, "cell": from_cell, "command line": from_command_line}


def test_every_preset_is_compared_with_its_source():
    assert set(WANTED) == set(PRESETS)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("preset", WANTED)
def test_a_preset_resolves_to_the_papers_numbers(preset, door):
    found = DOORS[door](preset, {}).resolved().flat()
    for name, wanted in WANTED[preset].items():
        if isinstance(wanted, dict):
            stage = dataclasses.asdict(found[name])
            assert {key: stage[key] for key in wanted} == wanted
        else:
            assert found[name] == wanted, name


def test_the_released_scripts_hold_as_much_at_once_as_they_did():
    assert paper_settings.MOE_LPR_STAGE1.blocks_per_forward == 16
    assert paper_settings.MOE_LPR_STAGE2.blocks_per_forward == 4


@pytest.mark.parametrize(
    ("first", "second", "order", "classifiers"),
    [
        (paper_settings.LAYER_MOE, paper_settings.LAYER_MOE_G2_AFTER_G1, "G1 G2", (6, 10, 11, 12, 23)),
        (paper_settings.LAYER_MOE_G2, paper_settings.LAYER_MOE_G1_AFTER_G2, "G2 G1", (5, 6, 10, 11, 12, 13, 23)),
    ],
)
def test_the_second_expansion_is_the_papers(tmp_path, monkeypatch, first, second, order, classifiers):
    before = recipes.layer_moe(**first)
    run = lab.start_run(before.to_config(), kind=pipeline.KIND, slug="first", title="first", root=tmp_path)
    monkeypatch.setattr(type(run.paths), "has_checkpoint", True)
    made = recipes.further(run, **second)
    both = [1 + old + added for old, added in zip(before.allocation, made.allocation, strict=True)]
    assert both == totals(order) and sum(made.allocation) == 48
    assert made.classifiers == classifiers and made.review.replay_share == 1 / 5
    assert made.earlier == before.expanded and {*made.earlier, *made.expanded} == {"el", "hu", "tr", "bn", "hi", "ne"}
    assert (made.stage2.blocks_per_step, made.stage2.tokens) == (640, 690_000_000)
    assert made.stage1 == before.stage1


# ------------------------------------------------------------------------------------------- what training receives


@pytest.fixture(scope="module")
def materials(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    """A base of as many layers as the papers', and texts in their languages: settings that replace the preset's."""
    folder = tmp_path_factory.mktemp("materials")
    model = tiny_model("qwen2", num_layers=24)
    model.get_input_embeddings().weight.data += 1.0  # so that languages are alike in every layer, as in a real one
    model.save_pretrained(folder / "base")
    tiny_tokenizer.save_pretrained(folder / "base")
    texts = {**sentences, "ne": sentences["hi"], "zh": [" ".join(sentence) for sentence in sentences["zh"]]}
    write_corpus(folder / "corpus.jsonl", texts, ("en", "zh", "es", "el", "hu", "tr", "bn", "hi", "ne"))
    return {"base": str(folder / "base"), "corpus": str(folder / "corpus.jsonl"), "similarity_tokens": 64}


@pytest.fixture
def received(monkeypatch):
    """Stand in for the training loop and keep what it is given: stage -> settings, terms by name, share by language."""
    seen = {}

    def train(model, schedule, terms, settings, *, out, label, log=None, facts=None):
        turns = [language for language, _ in schedule.at(0)]
        shares = {language: turns.count(language) / len(turns) for language in schedule.languages}
        seen[label.split()[-1]] = settings, {term.name: term for term in terms}, shares
        return {"steps": 0, "seconds": 0.0}

    monkeypatch.setattr(expand, "train", train)
    monkeypatch.setattr(review, "train", train)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "door"),
    [*((preset, "library") for preset in WANTED), ("moe_lpr", "cell"), ("layer_moe_released", "command line")],
)
def test_the_training_loop_receives_the_papers_numbers(preset, door, materials, received, tmp_path):
    wanted = WANTED[preset]
    experiment = DOORS[door](preset, materials)
    context = pipeline.prepare(experiment, pipeline.start(experiment, root=tmp_path))
    pipeline.train(context)

    for label, name in (("expand", "stage1"), ("review", "stage2")):
        settings = dataclasses.asdict(received[label][0])
        assert {key: settings[key] for key in wanted[name]} == wanted[name]
        assert settings["precision"] == "bf16"
    _, terms, shares = received["expand"]
    balance = terms["load_balancing_loss"]
    assert (balance.coefficient, balance.form["variant"]) == (0.01, wanted["loss_variant"])
    assert balance.form["scope"] == wanted["load_balancing_scope"] and set(terms) == {"lm_loss", balance.name}
    assert set(shares) == set(wanted["expanded"])

    _, terms, shares = received["review"]
    assert (terms["lpr_loss"].coefficient, terms["lpr_loss"].form["variant"]) == (0.1, wanted["loss_variant"])
    replayed = sum(shares[code] for code in ("en", "zh", "es"))
    assert replayed == pytest.approx(wanted["replay_share"], abs=0.01)
    layers = wanted.get("classifiers") or ()
    assert ("classifier_loss" in terms) == bool(layers)
    if layers:
        assert terms["classifier_loss"].coefficient == 0.1
        assert terms["classifier_loss"].form["variant"] == wanted.get("classifier_input", "token")
    plan = context.run.phases["plan"]
    assert tuple(plan.get("classifier_layers", ())) == layers
    if isinstance(wanted["allocation"], tuple):
        assert tuple(plan["new_experts"]) == wanted["allocation"]
    assert expansion_of(context).top_k == 2


def expansion_of(context):
    return context.model.peft_config["default"]


# ------------------------------------------------------------------------------------- each setting, from every door

EACH = {
    "stage1": {"warmup_fraction": 0.2, "final_learning_rate_fraction": 0.3, "adam_beta2": 0.9, "weight_decay": 0.01},
    "stage2": {"max_grad_norm": 0.7, "warmup_fraction": 0.1, "blocks_per_step": 8, "blocks_per_forward": 2},
    "load_balancing_scope": "micro_batch",
    "load_balancing_coef": 0.03,
    "router_z_coef": 0.001,
    "lpr_coef": 0.2,
    "classifier_coef": 0.4,
    "classifiers": [1],
    "loss_variant": "released",
    "recipe": "moe_lpr",
    "steps": ["expand", "review"],
}


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_every_setting_of_training_can_be_set_from_every_door(door, materials, received, tmp_path):
    settings = {**materials, **EACH, "original": ["en", "zh", "es"], "precision": "fp32", "router_bias": False}
    if door == "library":
        experiment = changed(recipes.moe_lpr(), settings)
    elif door == "cell":
        experiment = made_by(QUICKSTART, {"settings": settings})
    else:
        experiment = made_by(QUICKSTART, resolve(QUICKSTART.parameters, [f"settings={json.dumps(settings)}"]))
    context = pipeline.prepare(experiment, pipeline.start(experiment, root=tmp_path))
    pipeline.train(context)
    for label, name in (("expand", "stage1"), ("review", "stage2")):
        found = dataclasses.asdict(received[label][0])
        assert {key: found[key] for key in EACH[name]} == EACH[name]
    terms = received["expand"][1] | received["review"][1]
    assert {name: term.coefficient for name, term in terms.items() if name != "lm_loss"} == {
        "load_balancing_loss": 0.03,
        "router_z_loss": 0.001,
        "lpr_loss": 0.2,
        "classifier_loss": 0.4,
    }
    assert terms["load_balancing_loss"].form == {"variant": "released", "scope": "micro_batch"}


@pytest.mark.slow
def test_a_group_coefficient_reaches_a_further_review(materials, received, tmp_path):
    small = {**materials, "original": ("en",), "precision": "fp32", "eval_tokens_per_language": 100, "bootstrap": 10}
    budget = StageBudget(tokens=64, block_tokens=16, blocks_per_step=4)
    first = recipes.moe_lpr(**small, expanded=("el",), stage1=budget, stage2=budget)
    before = pipeline.start(first, root=tmp_path)
    pipeline.train(pipeline.prepare(first, before))
    experiment = recipes.further(before, expanded=("tr",), group_coef=0.05)
    pipeline.train(pipeline.prepare(experiment, pipeline.start(experiment, root=tmp_path)))
    assert received["review"][1]["group_loss"].coefficient == 0.05


@pytest.mark.parametrize(
    "given", ["base=x", "stage1_tokens=61440", "learning_rate=0.1", "recipe=layer_moe", "allocation=[1,2]"]
)
def test_a_parameter_that_a_preset_decides_is_refused_with_the_way_to_change_it(given):
    with pytest.raises(UsageError, match=rf"decides {given.partition('=')[0]}.*settings"):
        resolve(QUICKSTART.parameters, ["preset=moe_lpr", given])


@pytest.mark.parametrize("preset", WANTED)
def test_parameters_show_what_a_preset_decides_and_give_the_same_again(preset):
    values = resolve(QUICKSTART.parameters, [f"preset={preset}"])
    assert values["base"] == WANTED[preset]["base"] and values["expanded"] == list(WANTED[preset]["expanded"])
    assert values["stage1_tokens"] == WANTED[preset]["stage1"]["tokens"] and values["learning_rate"] == 5e-5
    assert values["recipe"] == PRESETS[preset][0]
    again = resolve(QUICKSTART.parameters, values=values)
    assert again == values and made_by(QUICKSTART, again) == from_library(preset, {})


def test_what_a_preset_leaves_open_can_be_given_beside_it():
    values = resolve(QUICKSTART.parameters, ["preset=moe_lpr", "corpus=texts", "seed=3", "max_minutes=5"])
    made = made_by(QUICKSTART, values)
    assert (made.corpus, made.seed, made.stage1.max_minutes) == ("texts", 3, 5.0)
    assert made.stage1.tokens == paper_settings.MOE_LPR_STAGE1.tokens


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"stage1": {"warm_up": 0}}, "stage1.warm_up"),
        ({"stage1": {"warmup_fraction": "0"}}, "warmup_fraction = '0'"),
        ({"stage1": {"adam_beta2": 1.0}}, "adam_beta2 = 1.0"),
        ({"top_k": 2.5}, "top_k = 2.5"),
        ({"lpr_coeff": 0.1}, "'lpr_coef'"),
        ({"router_bias": 1}, "router_bias = 1"),
        ({"expanded": [3]}, "expanded"),
    ],
)
def test_a_setting_that_is_unknown_or_of_another_type_is_refused_by_name(settings, named):
    with pytest.raises(UsageError, match=re.escape(named)):
        changed(recipes.moe_lpr(), settings)


def test_an_unknown_preset_is_refused_with_the_closest():
    with pytest.raises(UsageError, match="mean 'moe_lpr'"):
        resolve(QUICKSTART.parameters, ["preset=moe_lrp"])
    with pytest.raises(UsageError, match="mean 'mola'"):
        recipes.from_notebook("moe_lpr", {}, preset="mol")
