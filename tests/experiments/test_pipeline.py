"""The whole story on a tiny model and text of our own: every promised file, and nothing done twice when interrupted."""

import json

import numpy as np
import pytest

from lpr_lab.errors import UsageError
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import Experiment, StageBudget
from lpr_lab.model.files import load_expansion

BUDGET = StageBudget(tokens=4 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def materials(tiny_model, tiny_tokenizer, sentences, tmp_path_factory):
    """A base model and a corpus on disk."""
    folder = tmp_path_factory.mktemp("materials")
    tiny_model("llama").save_pretrained(folder / "base")
    tiny_tokenizer.save_pretrained(folder / "base")
    generator = np.random.default_rng(0)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for language in ("en", "es", "el", "tr"):
            for number in range(80):
                words = " ".join(sentences[language]).split()
                text = " ".join(generator.choice(words, size=30))
                split = ("train", "train", "train", "replay", "dev", "heldout")[number % 6]
                record = {"id": f"{number}", "language": language, "text": text, "split": split}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return folder


def experiment(materials, recipe="route_first", **changes) -> Experiment:
    settings = {
        "base": str(materials / "base"),
        "corpus": str(materials / "corpus.jsonl"),
        "original": ("en", "es"),
        "expanded": ("el", "tr"),
        "fit_tokens_per_language": 512,
        "stage1": BUDGET,
        "stage2": BUDGET,
        "eval_tokens_per_language": 300,
        "bootstrap": 50,
        "precision": "fp32",
    }
    return recipes.named(recipe, **{**settings, **changes})


@pytest.mark.parametrize("recipe", ["route_first", "moe_lpr"])
def test_a_run_tells_the_whole_story(materials, tmp_path, recipe):
    run = pipeline.run(experiment(materials, recipe), root=tmp_path)
    assert run.status.state == "finished"
    assert run.has_checkpoint
    assert {"retention", "change", "load", "original_weight"} <= set(run.table_names())
    assert set(run.trace_names()) == {"en", "es", "el", "tr"}
    assert {record["language"] for record in run.generations()} == {"en", "es", "el", "tr"}
    results = run.results
    assert results["recipe"] == recipe
    assert all(claim["holds"] for claim in results["claims"] if claim["is_exact"])
    assert results["exactness"]["base_difference"] == 0.0
    metrics = run.metrics()
    assert set(metrics["stage"]) == {step for step in run.config["steps"] if step != "fit_routers"}
    assert {"lm_loss", "lr", "grad_norm"} <= set(metrics["name"])
    assert not list((run.path / "stages").glob("*"))  # what only a resume needed is gone
    load_expansion(run.path)


def test_an_interrupted_run_resumes_and_ends_as_one_that_was_not(materials, tmp_path, monkeypatch):
    whole = pipeline.run(experiment(materials), root=tmp_path / "whole")

    plain = pipeline.evaluate

    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "evaluate", cut)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(experiment(materials), root=tmp_path / "cut")
    monkeypatch.setattr(pipeline, "evaluate", plain)
    monkeypatch.setattr(pipeline, "expand", cut)  # trained before: must not be trained again
    monkeypatch.setattr(pipeline, "fit_routers", cut)
    resumed = pipeline.run(experiment(materials), root=tmp_path / "cut")
    assert len([path for path in (tmp_path / "cut").iterdir() if path.name != "latest"]) == 1
    assert resumed.results["change"] == whole.results["change"]
    assert resumed.results["routing"] == whole.results["routing"]


def test_the_same_seed_gives_the_same_results_twice(materials, tmp_path):
    first, second = (pipeline.run(experiment(materials), root=tmp_path / name).results for name in ("a", "b"))
    for results in (first, second):
        results.pop("seconds")
        for stage in results["stages"].values():
            for key in ("seconds", "tokens_per_second"):
                stage.pop(key, None)
            stage.get("last", {}).pop("tokens_per_second", None)
    assert first == second


def test_a_recipe_survives_its_configuration_file(materials):
    made = experiment(materials, "moe_lpr")
    assert Experiment.from_config(json.loads(json.dumps(made.to_config()))) == made


def test_recipes_differ_in_what_their_names_say():
    assert recipes.moe_lpr().steps == ("expand", "review")
    assert recipes.moe_lpr().router_input == "token"
    assert recipes.route_first().steps == ("fit_routers", "expand")


def test_unknown_recipes_settings_and_languages_are_refused_before_work(materials):
    with pytest.raises(UsageError, match="Did you mean 'route_first'"):
        recipes.named("route_frist")
    with pytest.raises(UsageError, match="Did you mean 'original'"):
        Experiment.from_config({"orignal": ["en"]})
    with pytest.raises(UsageError, match="cannot be both"):
        experiment(materials, original=("en",), expanded=("en", "el"))
    with pytest.raises(UsageError, match="at least one original"):
        experiment(materials, original=())
