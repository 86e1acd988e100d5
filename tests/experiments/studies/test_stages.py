"""The stages of the method as runs of their own, on a tiny model: each finds or makes what it goes on from."""

import pytest
import torch
from safetensors.torch import load_file

from helpers.tiny_notebooks import write_materials
from lpr_lab.errors import UsageError
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.studies import stages as stage_runs
from lpr_lab.experiments.studies import upcycle as upcycling
from lpr_lab.experiments.studies.upcycle import UpcyclingSettings
from lpr_lab.method.settings import UpcycleSettings
from lpr_lab.model.formats.save_load import TENSORS, load_expansion
from lpr_lab.model.stages import stage_names
from lpr_lab.runs.find import list_runs

BUDGET = StageBudget(tokens=4 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)
SETTINGS = {"stage1": BUDGET, "eval_tokens_per_language": 256, "bootstrap": 50, "precision": "fp32"}
SETTINGS |= {"fit_tokens_per_language": 256}
PAPER = UpcycleSettings(router_input="token", router_bias=False)


@pytest.fixture(scope="module")
def text(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    folder = tmp_path_factory.mktemp("materials")
    written = write_materials(folder, tiny_model("llama"), tiny_tokenizer, sentences, ("en", "el"), 24)
    return {**written, "original": ("en",), "expanded": ("el",)}


def weights_of(run):
    return load_file(run.paths.checkpoint / TENSORS)


@pytest.mark.slow
def test_stage_after_stage_ends_with_the_very_weights_of_the_whole_story(text, tmp_path):
    whole = pipeline.run(recipes.moe_lpr(**text, **SETTINGS, stage2=BUDGET), root=tmp_path / "whole")
    root = tmp_path / "stages"
    base, on = text["base"], {key: text[key] for key in ("corpus", "original", "expanded")}
    first = upcycling.make(UpcyclingSettings(base=base, upcycle=PAPER), root=root)
    second = pipeline.run(recipes.stage1(first, **on, **SETTINGS), root=root)
    third = pipeline.run(recipes.stage2(second, stage2=BUDGET), root=root)
    assert [run.kind for run in (first, second, third)] == ["upcycle", "stage1", "stage2"]
    assert (second.parents, third.parents) == ((first.id,), (second.id,))
    wanted, found = weights_of(whole), weights_of(third)
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    change = [run.tables.read("change") for run in (whole, third)]
    assert change[0] is not None and change[0].equals(change[1])
    claims = {run.kind: run.results["claims"] for run in (first, second, third)}
    names = {kind: {claim["name"] for claim in found} for kind, found in claims.items()}
    assert names["stage1"] == {"starts_equal", "training_stable", "base_untouched", "gains"}
    stage2 = {"training_stable", "base_untouched", "parent_untouched", "retention", "originals_return"}
    assert names["stage2"] == stage2
    assert all(claim["holds"] for found in claims.values() for claim in found if claim["is_exact"])
    assert set(second.metrics.read()["stage"]) == {"expand"} and set(third.metrics.read()["stage"]) == {"review"}


@pytest.mark.slow
def test_what_is_missing_is_made_once_and_linked(text, tmp_path):
    def find(how="local_review", from_run=""):
        return stage_runs.after_stage1(from_run, root=tmp_path, how=how, **text, **SETTINGS)

    begun = find()
    assert [run.kind for run in list_runs(tmp_path)].count("upcycle") == 1
    (upcycled,) = [run for run in list_runs(tmp_path) if run.kind == "upcycle"]
    assert begun.parents == (upcycled.id,)
    assert find().id == begun.id == find("review").id == find(from_run=begun.id).id
    reviewed = pipeline.run(recipes.stage2(begun, "local_review"), root=tmp_path)
    assert stage_names(load_expansion(reviewed.path)) == ["G1 expand", "G1 local review"]
    with pytest.raises(UsageError, match=r"stage 1.* would do"):
        find(from_run=upcycled.id)


@pytest.mark.slow
def test_a_closed_form_review_does_not_go_on_from_routers_without_a_constant(text, tmp_path):
    settings = UpcyclingSettings(base=text["base"], upcycle=PAPER)
    upcycled = upcycling.make(settings, root=tmp_path)
    on = {key: text[key] for key in ("corpus", "original", "expanded")}
    begun = pipeline.run(recipes.stage1(upcycled, **on, **SETTINGS), root=tmp_path)
    with pytest.raises(UsageError, match="constant per expert"):
        stage_runs.after_stage1(begun.id, root=tmp_path, how="local_review", **text)
    assert stage_runs.after_stage1(begun.id, root=tmp_path, how="review", **text).id == begun.id


def test_a_review_that_does_not_exist_is_refused(text, tmp_path):
    with pytest.raises(UsageError, match="mean 'local_review'"):
        recipes.stage2(upcycling.start(UpcyclingSettings(base=text["base"]), root=tmp_path), how="lokal_review")


def test_a_run_taken_up_again_keeps_to_what_it_began_with(text, tmp_path):
    settings = UpcyclingSettings(base=text["base"])
    first = upcycling.make(settings, root=tmp_path)
    on = {key: text[key] for key in ("corpus", "original", "expanded")}
    begun = pipeline.start(recipes.stage1(first, **on, **SETTINGS), root=tmp_path)
    begun.stop("interrupted")
    upcycling.make(UpcyclingSettings(base=text["base"], seed=1), root=tmp_path)
    assert stage_runs.upcycled(run_dir=begun.path, settings=settings).id == first.id
