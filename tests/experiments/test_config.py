"""The settings of an experiment, composed from those of the verbs: nothing is said twice, and no flat name is lost."""

import inspect
from dataclasses import fields, replace

import pytest

import lpr_lab as lab
from lpr_lab.errors import UsageError
from lpr_lab.experiments import recipes
from lpr_lab.experiments.config import NAMES, Experiment
from lpr_lab.measure.settings import EvaluateSettings, TaskSettings
from lpr_lab.method.settings import ExpandSettings, ReviewSettings, ScoreSettings, SimilaritySettings, UpcycleSettings

VERBS = [
    (lab.measure_similarity, SimilaritySettings),
    (lab.measure_layer_scores, ScoreSettings),
    (lab.upcycle, UpcycleSettings),
    (lab.expand, ExpandSettings),
    (lab.review, ReviewSettings),
    (lab.evaluate, EvaluateSettings),
]
OF_THE_FIRST_EXPANSION = ("router_input", "router_bias")
"""The verb's default is to keep them."""


def test_tasks_are_asked_only_where_they_are_named_and_otherwise_as_the_verb_asks_them():
    keywords = inspect.signature(lab.evaluate_tasks).parameters
    assert TaskSettings().tasks == ()
    for setting in fields(TaskSettings):
        assert setting.name == "tasks" or keywords[setting.name].default == setting.default


@pytest.mark.parametrize(("verb", "settings"), VERBS)
def test_settings_are_keywords_of_their_verb_with_its_defaults(verb, settings):
    keywords = inspect.signature(verb).parameters
    for setting in fields(settings):
        left_open = setting.name in OF_THE_FIRST_EXPANSION
        assert keywords[setting.name].default == (None if left_open else setting.default), setting.name


def test_every_setting_has_one_flat_name_that_recipes_take_and_a_run_records():
    made = recipes.moe_lpr()
    assert len(set(NAMES)) == len(NAMES) and list(made.flat()) == list(made.to_config()) == list(NAMES)
    assert recipes.moe_lpr(**made.flat()) == made == Experiment.from_config(made.to_config() | made.flat())
    few = SimilaritySettings(tokens_per_language=7)
    assert made.with_settings(lpr_coef=0.2, similarity_tokens=7) == replace(
        made, review=ReviewSettings(lpr_coef=0.2), similarity=few
    )


def test_a_part_has_no_flat_name_of_its_own():
    with pytest.raises(UsageError, match="'review'"):
        recipes.moe_lpr(review=ReviewSettings())


def test_another_precision_for_the_base_is_refused_by_name():
    with pytest.raises(UsageError, match="half"):
        recipes.moe_lpr(base_dtype="half")


def test_unreviewed_languages_are_scored_as_original_ones_and_no_training_reads_them():
    experiment = recipes.moe_lpr(original=("en",), unreviewed=("es",), expanded=("el",))
    assert experiment.languages == ("en", "es", "el") and experiment.originals == ("en", "es")
    assert experiment.original == ("en",) and experiment.taught == ("el",)
    before = {name: value for name, value in recipes.moe_lpr().to_config().items() if name != "unreviewed"}
    assert Experiment.from_config(before).unreviewed == ()
    for wrong in ({"original": ("en", "es")}, {"expanded": ("es",)}):
        with pytest.raises(UsageError, match="es cannot be both"):
            experiment.with_settings(**wrong)


def test_routers_that_are_fitted_with_a_constant_have_one_or_it_is_said_before_anything_is_trained():
    for recipe in (recipes.route_first, recipes.local_review, recipes.guided_review):
        with pytest.raises(UsageError, match="router_bias"):
            recipe(router_bias=False)
        assert recipe(router_bias=False, fit_solver="means").fit.solver == "means"
    assert not recipes.moe_lpr().upcycle.router_bias, "of routers that only learn nothing is asked"
