"""What is said about experts holds at the ends: even, idle, language by language, by chance, and the same again."""

from itertools import product

import numpy as np
import pytest
import torch

from lpr_lab.measure import experts
from lpr_lab.measure.bits import evaluate
from lpr_lab.measure.documents import choose_documents
from lpr_lab.measure.expert_counts import TABLES, ExpertCounter, TextSource, read_stage
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.capture import watch_mlp_inputs
from lpr_lab.model.stages import enter_stage, stage_names, use_stage
from lpr_lab.text.packing import pack

OPTIONS = {"languages": ["en", "el"], "original": ["en"], "tokens_per_language": 400, "block_tokens": 64}


@pytest.mark.parametrize("num_experts", [2, 3, 7])
def test_even_load_has_entropy_1_and_a_single_busy_expert_0(num_experts):
    even, one = np.ones(num_experts), np.eye(num_experts)[1]
    assert experts.normalised_entropy(even) == pytest.approx(1)
    assert experts.normalised_entropy(one) == 0
    assert experts.max_over_mean(even) == 1 and experts.max_over_mean(one) == num_experts


def test_one_expert_alone_has_no_entropy_because_there_is_no_choice():
    assert np.isnan(experts.normalised_entropy(np.ones(1)))


def test_idle_is_below_a_hundredth_of_the_even_share_whatever_the_number_of_experts():
    assert experts.is_idle(np.array([0.6, 0.398, 0.002, 0.0])).tolist() == [False, False, True, True]
    assert not experts.is_idle(np.full(200, 1 / 200)).any()


def test_even_load_is_k_over_e_of_the_tokens_and_one_over_e_of_the_weight():
    assert [experts.even_load(number, 5, 2) for number in experts.NUMBERS] == [0.2, 0.4, 0.2]
    assert experts.even_load("chosen", 1, 2) == 1


# ------------------------------------------------------------------------------------- language and expert


def test_an_expert_says_nothing_of_the_language_when_all_languages_use_experts_alike():
    assert experts.information(np.tile([0.7, 0.2, 0.1], (4, 1))) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("number", [2, 3, 5])
def test_one_expert_per_language_says_all_there_is_to_say(number):
    assert experts.information(np.eye(number)) == pytest.approx(np.log2(number))
    assert experts.information_ceiling(number, number) == pytest.approx(np.log2(number))


def test_information_never_exceeds_its_ceiling():
    generator = np.random.default_rng(0)
    for languages, number in ((5, 2), (2, 5), (4, 4)):
        for sharpness in (0.05, 1, 20):
            profiles = generator.dirichlet(np.full(number, sharpness), size=languages)
            assert -1e-9 <= experts.information(profiles) <= experts.information_ceiling(languages, number) + 1e-9


def documents(generator, profiles: np.ndarray, per_language: int, tokens: int):
    language = np.repeat(np.arange(len(profiles)), per_language)
    return np.stack([generator.multinomial(tokens, profiles[code]) for code in language]), language


def found(mass: np.ndarray, tokens: int, language: np.ndarray) -> float:
    sums = np.stack([mass[language == code].sum(0) for code in np.unique(language)])
    return experts.information(sums)


def test_what_chance_alone_gives_lies_within_the_shuffled_documents():
    generator = np.random.default_rng(1)
    outside = 0
    for _ in range(20):
        mass, language = documents(generator, np.tile([0.5, 0.3, 0.2], (4, 1)), 12, 60)
        null = experts.shuffled_information(mass, np.full(len(language), 60), language, 100)
        assert null.mean() > 0  # the bias that a bare number hides
        outside += found(mass, 60, language) > np.quantile(null, 0.95)
    assert outside <= 4


def test_languages_that_have_experts_of_their_own_lie_far_above_the_shuffled_documents():
    mass, language = documents(np.random.default_rng(2), np.array([[0.9, 0.1], [0.1, 0.9]]), 12, 60)
    null = experts.shuffled_information(mass, np.full(len(language), 60), language, 100)
    assert found(mass, 60, language) > 3 * null.max()


def test_shuffling_is_repeatable():
    mass, language = documents(np.random.default_rng(2), np.array([[0.9, 0.1], [0.1, 0.9]]), 5, 20)
    draws = [experts.shuffled_information(mass, np.full(10, 20), language, 10) for _ in range(2)]
    assert (draws[0] == draws[1]).all()


# --------------------------------------------------------------------------------- company, change, vocabulary


def choices(generator, tokens: int, num_experts: int, top_k: int) -> np.ndarray:
    order = generator.random((tokens, num_experts)).argsort(1)
    return order < top_k


@pytest.mark.parametrize(("num_experts", "top_k"), [(2, 2), (4, 2), (6, 3)])
def test_every_token_of_an_expert_is_shared_with_the_other_choices(num_experts, top_k):
    chosen = choices(np.random.default_rng(0), 200, num_experts, top_k)
    pairs = experts.co_activation(chosen)
    own = np.diagonal(pairs)
    assert (pairs == pairs.T).all() and own.sum() == 200 * top_k
    assert (pairs.sum(1) - own == (top_k - 1) * own).all()
    given = experts.given_expert(pairs)
    assert np.diagonal(given) == pytest.approx(1) and given.sum(1) == pytest.approx(top_k)


def test_an_expert_nobody_chose_has_no_company_rather_than_none():
    assert np.isnan(experts.given_expert(experts.co_activation(np.array([[True, False]])))[1]).all()


def test_identical_routing_is_saturated_disjoint_routing_not_at_all_and_chance_is_k_over_e():
    generator = np.random.default_rng(0)
    one, other = choices(generator, 4000, 6, 2), choices(generator, 4000, 6, 2)
    assert experts.same_choices(one, one) == 1
    assert experts.same_choices(np.array([[True, False]]), np.array([[False, True]])) == 0
    assert experts.same_choices(one, other) == pytest.approx(2 / 6, abs=0.02)


def test_experts_that_a_later_stage_added_are_not_in_common():
    before, after = np.array([[True, True]]), np.array([[True, False, True]])
    assert experts.same_choices(before, after) == 0.5


def test_typical_tokens_are_those_an_expert_gets_and_others_do_not():
    token_ids = np.array([7] * 20 + [8] * 20 + [9] * 2)
    expert = np.array([0] * 20 + [0] * 5 + [1] * 15 + [1] * 2)
    rows = experts.typical_tokens(token_ids, expert, 3)
    assert rows[rows[:, 0] == 0][0].tolist() == [0, 7, 20, 20]
    assert rows[rows[:, 0] == 1][0].tolist() == [1, 8, 15, 20]
    assert 9 not in rows[:, 1], "two sightings are no evidence"
    assert not len(rows[rows[:, 0] == 2])


# ------------------------------------------------------------------------------------------- while a model reads


def two_stages(tiny_model, new_experts=(3, 1)):
    """A model with the stages `G1 expand` and `G1 review`, whose routers differ."""
    model = upcycle(tiny_model("llama"), new_experts)
    for name in ("expand", "review"):
        if name == "review":
            enter_stage(model, "review")
        with torch.no_grad():
            for layer in moe_layers(model):
                layer.router.weight.normal_(std=0.5)
    return model


@pytest.fixture(scope="module")
def counted(tiny_model, tiny_tokenizer, tiny_corpus):
    model = two_stages(tiny_model)
    names = stage_names(model)
    counter = ExpertCounter(names)
    report = evaluate(
        model, tiny_tokenizer, tiny_corpus, splits=["dev"], stages=names[:-1], experts=counter, precision="fp32",
        bootstrap=10, **OPTIONS,
    )  # fmt: skip
    return model, names, report, counter.tables(tiny_tokenizer)


def test_evaluation_fills_every_table_for_every_stage(counted):
    _, names, _, tables = counted
    assert set(tables) == set(TABLES) and all(len(table) for table in tables.values())
    for name in ("expert_load", "expert_pairs", "expert_information"):
        assert list(dict.fromkeys(tables[name]["stage"])) == names
    assert set(tables["expert_agreement"]["before"]) == {names[0]}
    assert set(tables["expert_agreement"]["after"]) == {names[1]}


def test_loads_sum_to_one_and_to_k_and_agree_with_the_load_of_the_report(counted):
    _, names, report, tables = counted
    load = tables["expert_load"]
    sums = load.groupby(["stage", "language", "layer"])[["mass", "first", "chosen"]].sum()
    assert sums["mass"].to_numpy() == pytest.approx(1, abs=1e-4)
    assert sums["first"].to_numpy() == pytest.approx(1, abs=1e-4)
    assert sums["chosen"].to_numpy() == pytest.approx(2, abs=1e-4)
    newest = load[load["stage"] == names[-1]].reset_index(drop=True)
    both = newest.merge(report.load, on=["language", "layer", "expert"], suffixes=("", "_report"))
    assert len(both) == len(newest)
    assert both["mass"].to_numpy() == pytest.approx(both["mass_report"].to_numpy(), abs=1e-4)
    assert both["chosen"].to_numpy() / 2 == pytest.approx(both["share"].to_numpy(), abs=1e-4)


@torch.no_grad()
def test_the_probability_of_expert_0_is_the_routers_own_before_any_expert_is_chosen(
    counted, tiny_tokenizer, tiny_corpus
):
    """Recomputed block by block, from what the router reads and its matrix, without separators and padding."""
    model, names, _, tables = counted
    table = tables["original_probability"]
    assert set(table["num_experts"]) == {2, 4} and list(dict.fromkeys(table["stage"])) == names
    for language, stage in product(("en", "el"), names):
        documents = choose_documents(tiny_corpus.documents("dev", language), 400, 256, tiny_tokenizer)
        blocks = pack(documents, tiny_tokenizer, 64, languages=[language])
        found = {0: [], 1: []}
        with use_stage(model, stage):
            routers = {layer.layer: layer.router.weight for layer in moe_layers(model)}
            for block in (blocks[number] for number in range(len(blocks))):
                inputs = {}
                with watch_mlp_inputs(model, inputs.__setitem__):
                    ids, positions = block["input_ids"][None], block["position_ids"][None]
                    model(input_ids=ids, position_ids=positions, use_cache=False)
                counts = (block["language_id"] >= 0) & (block["input_ids"] != blocks.separator_id)
                for layer, x in inputs.items():
                    scores = (x[0, counts].double() @ routers[layer].double().T).exp()
                    found[layer] += (scores[:, 0] / scores.sum(-1)).tolist()
        for layer, probs in found.items():
            rows = table[(table["language"] == language) & (table["stage"] == stage) & (table["layer"] == layer)]
            assert rows["n_tokens"].item() == len(probs)
            assert rows["probability"].item() == pytest.approx(sum(probs) / len(probs), abs=1e-4)
    load = tables["expert_load"]
    wide = load[(load["layer"] == 0) & (load["expert"] == 0)]["mass"].to_numpy()
    assert abs(wide - table[table["layer"] == 0]["probability"].to_numpy()).max() > 0.01, "not the weight among chosen"


def test_pairs_are_kept_only_where_there_is_a_choice_and_count_every_token(counted):
    _, names, _, tables = counted
    pairs, load = tables["expert_pairs"], tables["expert_load"]
    assert set(pairs["layer"]) == {0}  # layer 1 has two experts, and top-2 takes both
    alone = pairs[(pairs["stage"] == names[0]) & (pairs["expert_a"] == pairs["expert_b"])]
    rows = load[(load["stage"] == names[0]) & (load["layer"] == 0) & (load["expert"] == 0)]
    assert alone["n_tokens"].sum() == 2 * rows["n_tokens"].sum()


def test_vocabulary_counts_are_bounded_and_spelled(counted, tiny_tokenizer):
    tokens = counted[3]["expert_tokens"]
    assert (tokens["count"] <= tokens["total"]).all() and tokens["count"].min() >= 3
    assert tokens.groupby(["language", "layer", "expert"]).size().max() <= 8
    text = tiny_tokenizer.decode([int(tokens["token_id"].iloc[0])])
    assert bytes.fromhex(tokens["bytes"].iloc[0]).decode(errors="replace") == text


def test_the_same_router_at_both_stages_is_saturated(tiny_model, tiny_tokenizer, tiny_corpus):
    model = upcycle(tiny_model("llama"), (2, 2))
    enter_stage(model, "review")
    counter = ExpertCounter(stage_names(model))
    documents = choose_documents(tiny_corpus.documents("dev", "el"), 200, 64, tiny_tokenizer)
    blocks = pack(documents, tiny_tokenizer, 64, languages=["el"])
    for stage in stage_names(model):
        read_stage(counter, model, blocks, stage, TextSource("el", "expanded", "dev"))
    agreement = counter.tables(tiny_tokenizer)["expert_agreement"]
    assert agreement["same_choices"].to_numpy() == pytest.approx(1)
    assert agreement["same_first"].to_numpy() == pytest.approx(1)


def test_reading_without_the_head_counts_the_same_as_evaluating(counted, tiny_tokenizer, tiny_corpus):
    model, names, _, tables = counted
    counter = ExpertCounter(names)
    for language, role in (("en", "original"), ("el", "expanded")):
        documents = choose_documents(tiny_corpus.documents("dev", language), 400, 256, tiny_tokenizer)
        blocks = pack(documents, tiny_tokenizer, 64, languages=[language])
        for stage in names:
            read_stage(counter, model, blocks, stage, TextSource(language, role, "dev"), precision="fp32")
    again = counter.tables(tiny_tokenizer)
    keys = ["stage", "language", "layer", "expert"]
    for name in ("expert_load", "expert_information"):
        keys_here = [key for key in keys if key in again[name]]
        one, other = (table[name].sort_values(keys_here).reset_index(drop=True) for table in (tables, again))
        numbers = one.select_dtypes("number").columns
        assert one[numbers].to_numpy() == pytest.approx(other[numbers].to_numpy(), abs=1e-5)
