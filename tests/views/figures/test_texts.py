import re

import pandas as pd

from lpr_lab.views.figures import stages, texts

FERTILITY = pd.DataFrame(
    [("en", "original", 1.0, 1.4), ("el", "expanded", 4.4, 5.8), ("zh", "expanded", 2.0, None)],
    columns=["language", "role", "premium", "tokens_per_word"],
)


def test_the_title_says_who_pays_most_for_the_same_content():
    figure = texts.fertility(FERTILITY)
    assert re.search(r"Greek .*4\.4 times .*English", figure.layout.title.text)
    assert [trace.name for trace in figure.data] == ["Original languages", "Expanded languages"]
    assert figure.layout.xaxis.title.text == "tokens for the same content, English = 1"


def test_languages_without_a_measure_are_left_out():
    figure = texts.fertility(FERTILITY, "tokens_per_word")
    assert [name for trace in figure.data for name in trace.y] == ["English", "Greek"]
    assert figure.layout.title.text == "Tokens per word: English 1.40, Greek 5.80"


def test_the_most_mixed_language_is_named_and_traces_of_a_script_are_not_drawn():
    rows = [("en", "Latin", 0.9999), ("en", "Han", 0.0001), ("el", "Greek", 0.93), ("el", "Latin", 0.07)]
    figure = texts.script_mix(pd.DataFrame(rows, columns=["language", "script", "share"]))
    assert figure.layout.title.text.startswith("Most mixed is Greek: 93")
    assert [trace.name for trace in figure.data] == ["Latin", "Greek"]


def test_starts_that_are_equal_up_to_rounding_are_told_from_others():
    rows = [("copy", "xavier", 2, 6e-5, 1.0), ("copy", "zero", 2, 0.0, 1.0), ("random", "xavier", 2, 42.1, 0.02)]
    columns = ["expert_init", "router_init", "top_k", "max_difference", "same_prediction"]
    figure = texts.starts(pd.DataFrame(rows, columns=columns), 1e-4)
    assert re.search(r"Largest change.* copy 6e-05, random 42$", figure.layout.title.text)
    equal, other = figure.data
    assert list(equal.y) == ["copy, xavier, top-2", "copy, zero, top-2"] and min(equal.x) > 0
    assert list(other.y) == ["random, xavier, top-2"]


def test_what_a_review_did_to_the_original_expert_is_said_by_role():
    rows = [
        (code, role, stage, weight)
        for code, role, weights in (("en", "original", (0.5, 0.8)), ("el", "expanded", (0.5, 0.4)))
        for stage, weight in zip(("G1 expand", "G1 review"), weights, strict=True)
    ]
    figure = stages.original_weight(pd.DataFrame(rows, columns=["language", "role", "stage", "original_weight"]))
    assert figure.layout.title.text.startswith("Weight of the original expert: original languages 50")
    assert [trace.line.dash for trace in figure.data] == ["solid", "dash"]
