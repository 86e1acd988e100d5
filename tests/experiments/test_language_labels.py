"""Settings take any label of a language, and mean one and the same."""

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.experiments.recipes import moe_lpr
from lpr_lab.experiments.studies.evaluation import EvaluationSettings
from lpr_lab.experiments.studies.plan import PlanSettings
from lpr_lab.experiments.studies.routing import RoutingSettings
from lpr_lab.experiments.studies.text import SurveySettings


@pytest.mark.parametrize("settings", [moe_lpr, PlanSettings, SurveySettings])
def test_labels_of_a_language_make_the_same_settings(settings):
    given = settings(original=("eng", "es-MX"), expanded=("ell_Grek", "no"))
    assert (given.original, given.expanded) == (("en", "es"), ("el", "nb"))
    assert given == settings(original=("en", "es"), expanded=("el", "nb"))


@pytest.mark.parametrize("settings", [EvaluationSettings, RoutingSettings])
def test_languages_to_look_at_are_chosen_by_any_label(settings):
    assert settings(languages=("ell", "zh-CN")).languages == ("el", "zh")


def test_one_language_under_two_labels_cannot_be_kept_and_learned():
    with pytest.raises(UsageError, match="el cannot be both"):
        moe_lpr(original=("el",), expanded=("ell_Grek",))
