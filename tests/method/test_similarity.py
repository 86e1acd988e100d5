"""Similarity is the mean cosine over all pairs of tokens, measured in one pass, for every family of models."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.tiny_corpus import TinyCorpus
from lpr_lab.errors import DamagedError, UnsupportedModelError, UsageError
from lpr_lab.method.similarity import measure_similarity
from lpr_lab.method.similarity_table import STATES, SimilarityTable
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import decoder_of, watch_attention_outputs, watch_mlp_inputs
from lpr_lab.model.cosines import mean_cosines
from lpr_lab.text.packing import pack

OPTIONS = {
    "original": ["en", "es"],
    "expanded": ["el", "tr"],
    "tokens_per_language": 300,
    "block_tokens": 48,
    "batch_blocks": 2,
    "precision": "fp32",
}


def all_pairs(a: torch.Tensor, b: torch.Tensor) -> float:
    """The mean cosine over every pair of rows, from the full matrix that the papers' script builds."""
    return float((F.normalize(a.double(), dim=1) @ F.normalize(b.double(), dim=1).T).mean())


def table_of(pairs, original=("en", "es"), expanded=("el", "tr")) -> SimilarityTable:
    n = len(original) + len(expanded)
    return SimilarityTable(
        original=original,
        expanded=expanded,
        pairs=np.array(pairs, dtype=float),
        num_tokens=(100,) * n,
        expert_parameters=(10,) * len(pairs),
        state="mlp_input",
    )


@pytest.fixture
def known() -> SimilarityTable:
    """Two layers; en, es, el, tr."""
    lower = [[0.9, 0.8, 0.1, 0.2], [0.8, 0.9, 0.3, 0.4], [0.1, 0.3, 0.9, 0.7], [0.2, 0.4, 0.7, 0.9]]
    return table_of([lower, 0.5 * np.ones((4, 4))])


def test_claim_5_the_dot_product_of_mean_unit_vectors_is_the_mean_over_all_token_pairs():
    torch.manual_seed(0)
    tokens = [torch.randn(count, 16) + shift for count, shift in ((200, 0.3), (150, 0.0), (90, -0.2))]
    means = np.stack([F.normalize(x.double(), dim=1).mean(0)[None].numpy() for x in tokens])
    pairs = mean_cosines(means, [len(x) for x in tokens])[0]
    for a in range(3):
        for b in range(a):
            assert pairs[a, b] == pairs[b, a] == pytest.approx(all_pairs(tokens[a], tokens[b]), abs=1e-5)
    cosines = F.normalize(tokens[0].double(), dim=1) @ F.normalize(tokens[0].double(), dim=1).T
    without_self = cosines[~torch.eye(200, dtype=torch.bool)]
    assert pairs[0, 0] == pytest.approx(float(without_self.mean()), abs=1e-9)


@pytest.mark.parametrize("state", STATES)
def test_one_streaming_pass_measures_what_the_full_matrix_of_token_pairs_gives(
    tiny_model, tiny_tokenizer, tiny_corpus, state
):
    """Also that separators, padding, first tokens of blocks and tokens over the limit do not count."""
    model = tiny_model("llama")
    table = measure_similarity(model, tiny_tokenizer, tiny_corpus, state=state, **OPTIONS)
    vectors: dict[str, list[torch.Tensor]] = {}
    for language in table.languages:
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()
        documents = [tiny_corpus.documents("train", language)[index] for index in order]
        blocks = pack(documents[:16], tiny_tokenizer, 48, languages=[language])  # as many as go into one part
        seen: dict[int, torch.Tensor] = {}
        watch = watch_mlp_inputs if state == "mlp_input" else watch_attention_outputs
        with torch.no_grad(), watch(model, seen.__setitem__):
            model(input_ids=blocks.input_ids, position_ids=blocks.position_ids, use_cache=False)
        real = ((blocks.language_id >= 0) & (blocks.position_ids > 0)).flatten()
        vectors[language] = [seen[layer].flatten(0, 1)[real][:300] for layer in range(2)]
    assert table.num_tokens == (300,) * 4
    for layer in range(2):
        for a, first in enumerate(table.languages):
            for b, second in enumerate(table.languages):
                if a != b:
                    expected = all_pairs(vectors[first][layer], vectors[second][layer])
                    assert table.pairs[layer, a, b] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("state", STATES)
def test_every_family_can_be_measured_dense_and_expanded(family, tiny_model, tiny_tokenizer, tiny_corpus, state):
    options = {**OPTIONS, "tokens_per_language": 60}
    model = tiny_model(family)
    dense = measure_similarity(model, tiny_tokenizer, tiny_corpus, state=state, **options)
    expanded = upcycle(model, (1, 2))
    again = measure_similarity(expanded, tiny_tokenizer, tiny_corpus, state=state, **options)
    assert dense.layers == (0, 1) and np.isfinite(dense.pairs).all()
    assert len(np.unique(dense.pairs.round(9))) == 2 * 10  # no two layers, no two pairs of languages alike
    assert again.pairs == pytest.approx(dense.pairs, abs=1e-4)  # expanded, but not yet trained
    stacks = [sum(p.numel() for p in layer.stacks[0].parameters()) for layer in moe_layers(expanded)]
    assert dense.expert_parameters == again.expert_parameters == (stacks[0], stacks[1] // 2)


def test_a_second_expansion_is_planned_on_the_model_as_it_is_now(tiny_model, tiny_tokenizer, tiny_corpus):
    model = upcycle(tiny_model("llama"), (1, 1))
    before = measure_similarity(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
    with torch.no_grad():
        for layer in moe_layers(model):
            for parameter in layer.stacks[0].parameters():
                parameter.normal_(std=0.5)
    after = measure_similarity(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
    with model.disable_adapter():
        base = measure_similarity(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
    assert after.pairs[0] == pytest.approx(before.pairs[0], abs=1e-6)  # what layer 0 reads comes before any expert
    assert abs(after.pairs[1] - before.pairs[1]).max() > 0.01
    assert base.pairs == pytest.approx(before.pairs, abs=1e-5)


def test_the_head_is_not_computed_and_the_model_is_left_as_it_was(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model("gpt2").train()
    calls = []
    handle = model.lm_head.register_forward_hook(lambda *_: calls.append(1))
    one = measure_similarity(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
    handle.remove()
    assert not calls
    assert model.training and not any(module._forward_hooks for module in model.modules())
    two = measure_similarity(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
    assert np.array_equal(one.pairs, two.pairs)  # dropout was off


def test_the_seed_draws_the_documents(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model()
    tables = [measure_similarity(model, tiny_tokenizer, tiny_corpus, seed=seed, **OPTIONS) for seed in (0, 0, 1)]
    assert np.array_equal(tables[0].pairs, tables[1].pairs)
    assert not np.array_equal(tables[0].pairs, tables[2].pairs)


def test_a_pass_in_bfloat16_gives_the_same_similarities(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model()
    exact = measure_similarity(model, tiny_tokenizer, tiny_corpus, **OPTIONS)
    rounded = measure_similarity(model, tiny_tokenizer, tiny_corpus, **{**OPTIONS, "precision": "bf16"})
    assert not np.array_equal(exact.pairs, rounded.pairs)
    assert rounded.pairs == pytest.approx(exact.pairs, abs=0.005)


def test_less_text_than_asked_for_is_said(tiny_model, tiny_tokenizer, tiny_corpus):
    table = measure_similarity(tiny_model(), tiny_tokenizer, tiny_corpus, **{**OPTIONS, "tokens_per_language": 10**6})
    assert all(300 < count < 10_000 for count in table.num_tokens)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"original": []}, "at least one original"),
        ({"expanded": ["en"]}, "en is named twice"),
        ({"expanded": ["zh"]}, "no train text .*'zh'"),
        ({"state": "mlp_output"}, "mlp_input, attention_output"),
        ({"tokens_per_language": 1}, "expected at least 2"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(tiny_model, tiny_tokenizer, sentences, options, reason):
    corpus = TinyCorpus({**sentences, "zh": sentences["zh"]}, ("en", "es", "el", "tr", "zh"))
    corpus._documents["zh"] = ()
    model = tiny_model()
    model.model.forward = None  # never called
    with pytest.raises(UsageError, match=reason):
        measure_similarity(model, tiny_tokenizer, corpus, **{**OPTIONS, **options})


def test_a_model_that_mixes_packed_documents_is_refused(tiny_model, tiny_tokenizer, tiny_corpus, monkeypatch):
    model = tiny_model()
    forward = model.model.forward

    def deaf_to_positions(input_ids, position_ids, use_cache):
        return forward(input_ids=input_ids, use_cache=use_cache)

    monkeypatch.setattr(model.model, "forward", deaf_to_positions)
    with pytest.raises(UnsupportedModelError, match="attends across packed documents"):
        measure_similarity(model, tiny_tokenizer, tiny_corpus, **OPTIONS)


def test_a_layer_with_two_candidates_for_its_attention_is_refused_by_name(tiny_model):
    model = tiny_model()
    model.model.layers[1].extra = torch.nn.Linear(4, 4)
    with pytest.raises(UnsupportedModelError, match=r"Layer 1 .* 2 parts .*self_attn, mlp.*extra.*state='mlp_input'"):
        with watch_attention_outputs(model, lambda *_: None):
            pass


def test_the_decoder_alone_gives_the_states_that_the_head_reads(family_model):
    ids = torch.arange(1, 7)[None]
    with torch.no_grad():
        states = decoder_of(family_model)(input_ids=ids).last_hidden_state
        seen = []
        handle = family_model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        family_model(input_ids=ids)
        handle.remove()
    assert torch.equal(states, seen[0])


# ------------------------------------------------------------------------------------------------------ the table


def test_the_rule_weighs_both_averages_alike_however_many_pairs_each_has(known):
    assert known.expanded_to_original == pytest.approx([0.25, 0.5])
    assert known.between_expanded == pytest.approx([0.7, 0.5])
    assert known.similarity == pytest.approx([(0.25 + 0.7) / 2, 0.5])
    three = table_of(known.pairs, original=("en",), expanded=("es", "el", "tr"))
    assert three.between_expanded[0] == pytest.approx((0.3 + 0.4 + 0.7) / 3)
    assert three.similarity[0] == pytest.approx(((0.8 + 0.1 + 0.2) / 3 + (0.3 + 0.4 + 0.7) / 3) / 2)


def test_a_single_expanded_language_is_compared_with_the_original_ones_only(known):
    one = table_of(known.pairs, original=("en", "es", "el"), expanded=("tr",))
    assert one.between_expanded is None
    assert one.similarity == pytest.approx(one.expanded_to_original)
    with pytest.raises(UsageError, match="one expanded language"):
        one.most_similar_layers(1, by="between_expanded")
    assert one.curves()["between_expanded"].isna().all()


def test_the_most_similar_layers_come_in_decoder_order_and_ties_go_to_the_earlier():
    values = [0.2, 0.5, 0.5, 0.9, 0.5]
    table = table_of([value * np.ones((4, 4)) for value in values])
    assert table.most_similar_layers(3) == (1, 2, 3)
    assert table.most_similar_layers(0) == ()
    assert table.most_similar_layers(2, among=(0, 1, 4)) == (1, 4)
    with pytest.raises(UsageError, match=r"4 most similar.* 3"):
        table.most_similar_layers(4, among=(0, 1, 4))
    with pytest.raises(UsageError, match="6 most similar"):
        table.most_similar_layers(6)
    with pytest.raises(UsageError, match="expected one of"):
        table.most_similar_layers(1, by="pairs")


def test_where_to_put_classifiers_is_told_by_old_and_new_and_not_by_the_rules_own_curve(known):
    assert known.most_similar_layers(1) == (1,)
    assert known.most_similar_layers(1, by="between_expanded") == (0,)


def test_the_frame_has_each_pair_once_with_its_roles(known):
    frame = known.to_frame()
    assert len(frame) == 2 * 10
    row = frame[(frame["layer"] == 0) & (frame["language_a"] == "es") & (frame["language_b"] == "tr")]
    assert row["similarity"].item() == 0.4 and row["roles"].item() == "mixed"
    assert frame["roles"].value_counts().to_dict() == {"mixed": 8, "within": 8, "original": 2, "expanded": 2}


def test_a_table_survives_json_and_a_damaged_one_is_refused(known):
    values = json.loads(json.dumps(known.to_json()))
    again = SimilarityTable.from_json(values)
    assert np.array_equal(again.pairs, known.pairs) and again.to_json() == known.to_json()
    with pytest.raises(DamagedError, match="state"):
        SimilarityTable.from_json({key: value for key, value in values.items() if key != "state"})
    with pytest.raises(DamagedError, match="4 languages"):
        SimilarityTable.from_json(values | {"pairs": [[[1.0]]]})
