"""One segment in many languages: every number is what separate traces and the full matrix of token pairs give."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import lpr_lab as lab
from helpers.small_expansion import shake
from lpr_lab.errors import UsageError
from lpr_lab.measure.segments.comparison import COLUMNS, choose_reference, finding_in_words
from lpr_lab.measure.segments.compute import compare_languages, compare_steps
from lpr_lab.measure.segments.divergence import jensen_shannon_bits
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import expansion_config
from lpr_lab.model.capture import watch_mlp_inputs
from lpr_lab.model.stages import enter_stage, use_stage

TEXTS = {"en": "I heard the sea.", "el": "Άκουσα τη θάλασσα.", "ar": "سمعت البحر."}


@pytest.fixture(scope="module")
def model(tiny_model):
    """Three layers with one, no and two new experts, at two stages that route otherwise."""
    torch.manual_seed(0)
    model = shake(upcycle(tiny_model("llama", num_layers=3), (1, 0, 2), router_bias=True))
    enter_stage(model, "expand")
    shake(model)
    enter_stage(model, "review")
    return shake(model)


@pytest.fixture(scope="module")
def found(model, tiny_tokenizer):
    return compare_languages(model, tiny_tokenizer, TEXTS)


def test_divergence_is_that_of_the_mean_weights_of_separate_traces(model, tiny_tokenizer, found):
    traces = {code: lab.trace(model, tiny_tokenizer, text, code) for code, text in TEXTS.items()}
    assert (found.reference, found.languages, found.others) == ("en", ["en", "el", "ar"], ["el", "ar"])
    assert found.layers.tolist() == [0, 2] and found.all_layers.tolist() == [0, 1, 2]
    for row, code in enumerate(TEXTS):
        expected = jensen_shannon_bits(traces[code].mass(), traces["en"].mass())
        np.testing.assert_allclose(found.divergence[row], expected, atol=1e-6)
    assert (found.divergence[0] == 0).all() and (found.divergence[1:] > 0).all()
    assert np.isnan(found.chance[0]).all() and (found.chance[1:] <= found.chance_high[1:]).all()


@pytest.mark.parametrize("stage", ["G1 expand", "G1 review"])
def test_similarity_is_the_mean_over_all_token_pairs_of_what_routers_read_at_that_stage(model, tiny_tokenizer, stage):
    found = compare_languages(model, tiny_tokenizer, TEXTS, stage=stage, shuffles=0)
    vectors: dict[str, dict[int, torch.Tensor]] = {code: {} for code in TEXTS}
    for code, text in TEXTS.items():
        ids = torch.tensor([found.traces[code].token_ids])
        see = lambda layer, x, code=code: vectors[code].update({layer: x[0, 1:].double()})  # noqa: E731
        with use_stage(model, stage), torch.no_grad(), watch_mlp_inputs(model, see):
            model(input_ids=ids)
        assert found.num_tokens(code) == ids.shape[1] - 1 and found.traces[code].text == text
    for layer in range(3):
        unit = {code: F.normalize(of[layer], dim=1) for code, of in vectors.items()}
        for row, code in enumerate(("el", "ar"), start=1):
            assert found.similarity[row, layer] == pytest.approx(float((unit[code] @ unit["en"].T).mean()), abs=1e-5)
        pairs = unit["en"] @ unit["en"].T
        inside = float(pairs[~torch.eye(len(pairs), dtype=torch.bool)].mean())
        assert found.similarity[0, layer] == pytest.approx(inside, abs=1e-5)


def test_the_same_text_twice_is_routed_alike_and_chance_alone_gives_more(model, tiny_tokenizer):
    found = compare_languages(model, tiny_tokenizer, {"en": TEXTS["en"], "es": TEXTS["en"]})
    assert (found.divergence == 0).all() and (found.chance[1] > 0).all()
    assert found.summary("es").above_chance == 0


def test_a_table_has_a_row_for_every_language_and_layer_and_json_says_the_same(found):
    table = found.to_frame()
    assert table.columns.tolist() == COLUMNS and len(table) == 3 * 3
    assert table[table["layer"] == 1]["divergence_bits"].isna().all()
    row = table[(table["language"] == "ar") & (table["layer"] == 2)].iloc[0]
    assert (row["divergence_bits"], row["similarity"]) == (found.divergence[2, 1], found.similarity[2, 2])
    plain = json.loads(json.dumps(found.to_plain(), allow_nan=False))
    assert plain["divergence"]["ar"] == found.divergence[2].tolist() and plain["chance"]["en"] == [None, None]
    assert plain["texts"] == TEXTS


def test_the_sentence_names_the_language_routed_least_like_the_reference_and_chance(found):
    most = max(found.others, key=lambda code: found.summary(code).divergence)
    said = finding_in_words(found)
    assert {"el": "Greek", "ar": "Arabic"}[most] in said.split(";")[0]
    assert (
        f"{found.summary(most).divergence:.2f} bits" in said and f"by chance {found.summary(most).chance:.2f}" in said
    )


def test_the_reference_is_english_or_the_first_that_no_expansion_taught_or_whichever_is_asked_for(
    model, tiny_tokenizer
):
    assert choose_reference(["el", "en"]) == "en"
    assert choose_reference(["el", "tr"]) == "el"
    texts = {"el": TEXTS["el"], "es": "Oí el mar."}
    groups = expansion_config(model).groups
    groups.append(["el"])
    try:
        assert compare_languages(model, tiny_tokenizer, texts, shuffles=0).reference == "es"
    finally:
        groups.pop()
    assert compare_languages(model, tiny_tokenizer, TEXTS, reference="ar", shuffles=0).reference == "ar"


def test_the_same_seed_gives_the_same_chance_and_any_label_of_a_language_is_taken(model, tiny_tokenizer, found):
    again = compare_languages(model, tiny_tokenizer, {"eng": TEXTS["en"], "ell_Grek": TEXTS["el"], "ar": TEXTS["ar"]})
    np.testing.assert_array_equal(again.chance_high, found.chance_high)
    assert again.languages == found.languages


@pytest.mark.parametrize(
    ("texts", "options", "said"),
    [
        ({"en": "One."}, {}, "Only en has a text"),
        ({"en": "One.", "xx": "?"}, {}, "xx"),
        ({"en": "One.", "el": "  "}, {}, "empty"),
        (TEXTS, {"reference": "fr"}, "reference = 'fr'"),
        (TEXTS, {"stage": "G9"}, "stage = 'G9'"),
        (TEXTS, {"shuffles": -1}, "shuffles = -1"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_computed(model, tiny_tokenizer, texts, options, said):
    with pytest.raises(UsageError, match=said):
        compare_steps(model, tiny_tokenizer, texts, **options)


def test_a_comparison_gets_on_language_by_language(model, tiny_tokenizer):
    steps = list(compare_steps(model, tiny_tokenizer, TEXTS, shuffles=0))
    assert [(step.done, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert [step.result is None for step in steps] == [True, True, False]
