"""Contexts of experts are those that a trace of each document gives, one document at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.tiny_corpus import TinyCorpus
from lpr_lab.errors import ComparisonRefusedError, MissingError, UsageError
from lpr_lab.measure.contexts import reading
from lpr_lab.measure.contexts.compute import context_steps, context_tokens, expert_contexts
from lpr_lab.measure.contexts.expert_contexts import BITS, CONTEXT_COLUMNS, EFFECT_COLUMNS, WEIGHT, ExpertContexts
from lpr_lab.measure.contexts.reading import Place
from lpr_lab.measure.contexts.rows import neighbours, strongest
from lpr_lab.measure.documents import choose_documents
from lpr_lab.measure.routing import trace
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import moe_layers
from lpr_lab.model.stages import enter_stage, selected_stage, stage_names
from lpr_lab.model.steering import steer

LANGUAGES = ["en", "el"]
OPTIONS = {
    "languages": LANGUAGES,
    "split": "dev",
    "tokens_per_language": 900,
    "max_document_tokens": 90,
    "precision": "fp32",
}
LEFT_OUT = (0, 2)


@torch.no_grad()
def shaken(base, experts=(2, 1)):
    model = upcycle(base, experts)
    for name in ("expand", "review"):
        if name == "review":
            enter_stage(model, name)
        for layer in moe_layers(model):
            for part in (layer.router, *layer.stacks):
                for parameter in part.parameters():
                    parameter.add_(0.4 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def read(tiny_model, tiny_tokenizer, tiny_corpus):
    """Return the model, what was found, and per language (document, trace, change in bits without `LEFT_OUT`)."""
    model = shaken(tiny_model("llama"))
    found = expert_contexts(model, tiny_tokenizer, tiny_corpus, effects_of=[LEFT_OUT], **OPTIONS)
    traces = {}
    for code in LANGUAGES:
        documents = choose_documents(tiny_corpus.documents("dev", code), 900, 90, tiny_tokenizer)
        traces[code] = []
        for document in documents:
            as_is = trace(model, tiny_tokenizer, document.text, code, base=False)
            with steer(model, ban={LEFT_OUT[0]: LEFT_OUT[1]}):
                without = trace(model, tiny_tokenizer, document.text, code, base=False)
            traces[code].append((document, as_is, (as_is.log_prob - without.log_prob) / np.log(2)))
    return model, found, traces


def weight_of(traced, layer: int, expert: int) -> np.ndarray:
    row = traced.layers.tolist().index(layer)
    return (traced.expert_weights[row] * (traced.expert_ids[row] == expert)).sum(-1)


def test_every_row_says_what_a_trace_of_its_document_says(read):
    model, found, traces = read
    table = found.contexts
    assert list(table.columns) == CONTEXT_COLUMNS and set(table["stage"]) == {selected_stage(model)}
    known = {(code, document.id): (one, change) for code, of in traces.items() for document, one, change in of}
    assert len(table) > 50
    for row in table.itertuples():
        one, change = known[row.language, row.document]
        assert one.token_ids[row.position] == row.token_id
        assert row.weight == pytest.approx(weight_of(one, row.layer, row.expert)[row.position], abs=1e-4)
        assert row.bits == pytest.approx(-one.log_prob[row.position] / np.log(2), abs=1e-3)
        if (row.layer, row.expert) == LEFT_OUT:
            assert row.change_bits == pytest.approx(change[row.position], abs=1e-3)
        else:
            assert np.isnan(row.change_bits) and row.by == WEIGHT


@pytest.mark.parametrize("by", [WEIGHT, BITS])
def test_no_document_has_a_stronger_token_than_those_in_the_list(read, by):
    _, found, traces = read
    mine = found.of(*LEFT_OUT, by)
    for code in LANGUAGES:
        rows = mine[mine["language"] == code]
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1)) and rows["document"].is_unique
        best = [
            float((weight_of(one, *LEFT_OUT)[1:] if by == WEIGHT else abs(change[1:])).max())
            for _, one, change in traces[code]
        ]
        shown = rows["weight"] if by == WEIGHT else rows["change_bits"].abs()
        assert shown.to_numpy() == pytest.approx(sorted(best, reverse=True)[:5], abs=1e-3)


def test_leaving_an_expert_out_changes_something_and_the_model_stands_as_before(read, tiny_tokenizer):
    model, found, traces = read
    assert found.of(*LEFT_OUT, BITS)["change_bits"].abs().max() > 0.01
    document, one, _ = traces["el"][0]
    again = trace(model, tiny_tokenizer, document.text, "el", base=False)
    assert np.array_equal(again.log_prob, one.log_prob, equal_nan=True)


def test_what_a_language_costs_without_an_expert_is_the_mean_over_its_tokens_with_an_interval_over_documents(read):
    _, found, traces = read
    assert list(found.effects.columns) == EFFECT_COLUMNS
    assert found.effects[["language", "layer", "expert"]].to_numpy().tolist() == [
        [code, *LEFT_OUT] for code in LANGUAGES
    ]
    for row in found.effects.itertuples():
        changes = [change[1:] for _, _, change in traces[row.language]]
        assert row.change_bits == pytest.approx(np.concatenate(changes).mean(), abs=1e-4)
        assert (row.n_documents, row.n_tokens) == (len(changes), sum(map(len, changes)))
        assert row.ci_low < row.change_bits < row.ci_high


def test_tokens_are_found_again_without_a_forward_pass(read, tiny_tokenizer, tiny_corpus, monkeypatch):
    model, found, _ = read
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("it read"))
    options = {name: value for name, value in OPTIONS.items() if name != "precision"}
    assert context_tokens(model, tiny_tokenizer, tiny_corpus, found.contexts, **options) == found.tokens
    moved = found.contexts.assign(token_id=found.contexts["token_id"] + 1)
    with pytest.raises(ComparisonRefusedError, match="other text"):
        context_tokens(model, tiny_tokenizer, tiny_corpus, moved, **options)


def test_neighbours_are_the_highest_correlations_of_weights_over_all_tokens(read):
    _, found, traces = read
    every = [one for of in traces.values() for _, one, _ in of]
    places = [(layer, expert) for layer, size in ((0, 3), (1, 2)) for expert in range(size)]
    columns = [np.concatenate([weight_of(one, *place)[1:] for one in every]) for place in places]
    for row in found.neighbours.itertuples():
        mine = places.index((row.layer, row.expert))
        ranked = sorted(
            (np.corrcoef(columns[mine], columns[other])[0, 1] for other in range(len(places)) if other != mine),
            reverse=True,
        )
        other = places.index((row.other_layer, row.other_expert))
        assert row.correlation == pytest.approx(np.corrcoef(columns[mine], columns[other])[0, 1], abs=1e-3)
        assert row.correlation == pytest.approx(ranked[row.rank - 1], abs=1e-3) and row.n_tokens == len(columns[0])


def test_two_experts_of_one_layer_that_share_all_weight_are_opposites(read):
    table = read[1].neighbours
    pair = table[(table["layer"] == 1) & (table["other_layer"] == 1)]
    assert len(pair) == 2 and pair["correlation"].to_numpy() == pytest.approx(-1, abs=1e-4)


def test_an_expert_that_never_moves_is_nobodys_neighbour():
    weights = np.array([[0.5, 0.1, 0.2], [0.5, 0.3, 0.1], [0.5, 0.2, 0.9]], dtype=np.float32)
    rows = neighbours(weights, [Place(0, 0), Place(0, 1), Place(1, 0)])
    assert [row[:2] + row[3:5] for row in rows] == [[0, 1, 1, 0], [1, 0, 0, 1]]


def test_a_document_gives_one_token_and_a_weight_of_nothing_none():
    values, owner = np.array([0.2, 0.9, 0.8, 0.0, 0.9]), np.array([0, 0, 1, 2, 3])
    assert strongest(values, owner, 5) == [1, 4, 2] and strongest(values, owner, 1) == [1]
    assert strongest(np.zeros(3), np.arange(3), 2) == []


def test_tokens_join_to_the_documents_and_stand_in_their_sentence(read):
    _, found, traces = read
    for code, of in traces.items():
        for document, one, _ in of:
            pieces = found.tokens[code, document.id]
            assert b"".join(piece for piece in pieces if piece) == document.text.encode()
            whole = found.in_sentence(code, document.id, 1, width=len(pieces))
            assert whole.before == "" and pieces == one.token_bytes
    with pytest.raises(MissingError, match="was not read"):
        found.in_sentence("el", document.id, 0)


@pytest.mark.parametrize("text", ["مرحبا بالعالم", "สวัสดีชาวโลก", "Καλημέρα κόσμε"])
def test_a_token_that_is_a_piece_of_a_character_shows_its_bytes_in_every_script(text):
    pieces = [bytes([value]) for value in text.encode()]
    found = ExpertContexts(None, None, None, {("ar", "x"): [None, *pieces]})
    shown = found.in_sentence("ar", "x", 1, width=len(pieces))
    assert shown.token == f"⟨{pieces[0].hex().upper()}⟩" and shown.before == ""
    assert shown.after.endswith(text[1:])


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_a_window_ends_between_characters_also_where_tokens_do_not(width):
    text = "Πρέπει να πάω"
    pieces = [bytes([value]) for value in text.encode()]
    whole = ExpertContexts(None, None, None, {("el", "x"): [None, *pieces]}).in_sentence(
        "el", "x", 1 + len("Πρέ".encode()), width
    )
    before, after = whole.before, whole.after.partition("⟩")[2]  # the rest of the token's own character
    assert before and "⟨" not in before + after and text.startswith(f"{before}π{after}", text.index(before))


def test_an_expert_whose_absence_changes_nothing_is_told_from_one_that_was_not_left_out(
    tiny_model, tiny_tokenizer, tiny_corpus
):
    model = upcycle(tiny_model("llama"), (1, 1))  # copies of the original: without one, the other does the same
    found = expert_contexts(model, tiny_tokenizer, tiny_corpus, effects_of=[(0, 1)], **OPTIONS)
    assert abs(found.of(0, 1)["change_bits"]).max() < 1e-4
    none = replace(found, contexts=found.contexts[found.contexts["by"] == WEIGHT])
    with pytest.raises(MissingError, match="changed no token"):
        none.of(0, 1, BITS)
    with pytest.raises(MissingError, match="effects_of"):
        none.of(1, 1, BITS)


def test_an_earlier_stage_is_read_as_that_stage(tiny_model, tiny_tokenizer, tiny_corpus):
    model = shaken(tiny_model("llama"))
    first = stage_names(model)[0]
    found = expert_contexts(model, tiny_tokenizer, tiny_corpus, stage=first, **OPTIONS)
    row = found.of(0, 1).iloc[0]
    documents = choose_documents(tiny_corpus.documents("dev", row["language"]), 900, 90, tiny_tokenizer)
    document = next(one for one in documents if one.id == row["document"])
    one = trace(model, tiny_tokenizer, document.text, stages=[first], base=False)
    assert row["stage"] == first and row["weight"] == pytest.approx(weight_of(one, 0, 1)[row["position"]], abs=1e-4)
    assert selected_stage(model) != first


def test_however_many_documents_are_read_at_once_the_same_is_found(read, tiny_tokenizer, tiny_corpus, monkeypatch):
    model, found, _ = read
    monkeypatch.setattr(reading, "STEP_TOKENS", 1)
    again = expert_contexts(model, tiny_tokenizer, tiny_corpus, effects_of=[LEFT_OUT], batch_documents=3, **OPTIONS)
    assert again.effects["change_bits"].to_numpy() == pytest.approx(found.effects["change_bits"].to_numpy(), abs=1e-5)
    assert again.of(*LEFT_OUT)["weight"].to_numpy() == pytest.approx(found.of(*LEFT_OUT)["weight"].to_numpy(), abs=1e-5)


def test_stopping_between_two_parts_leaves_no_trace(tiny_model, tiny_tokenizer, tiny_corpus, monkeypatch):
    monkeypatch.setattr(reading, "STEP_TOKENS", 1)
    model = shaken(tiny_model("llama"))
    before = trace(model, tiny_tokenizer, "A letter came.", base=False).log_prob
    steps = context_steps(model, tiny_tokenizer, tiny_corpus, effects_of=[LEFT_OUT], **OPTIONS)
    step = next(steps)
    documents = [
        len(choose_documents(tiny_corpus.documents("dev", code), 900, 90, tiny_tokenizer)) for code in LANGUAGES
    ]
    assert (step.done, step.total, step.result) == (1, 2 * sum(-(-number // 4) for number in documents), None)
    steps.close()
    assert np.array_equal(before, trace(model, tiny_tokenizer, "A letter came.", base=False).log_prob, equal_nan=True)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"effects_of": [(0, 3)]}, "expert 3"),
        ({"effects_of": [(7, 0)]}, "Layer 7"),
        ({"stage": "G9 expand"}, "G9 expand"),
        ({"k": 0}, "k is 0"),
        ({"split": "nowhere"}, "nowhere"),
    ],
)
def test_what_the_model_or_corpus_lacks_is_refused_before_anything_is_read(
    tiny_model, tiny_tokenizer, tiny_corpus, monkeypatch, given, named
):
    model = shaken(tiny_model("llama"))
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("it read"))
    with pytest.raises(UsageError, match=named):
        context_steps(model, tiny_tokenizer, tiny_corpus, **{**OPTIONS, **given})


def test_the_test_set_that_says_most_is_read_where_none_is_named(tiny_model, tiny_tokenizer, tiny_corpus, sentences):
    model = shaken(tiny_model("llama"))
    options = {name: value for name, value in OPTIONS.items() if name != "split"}
    dealt = TinyCorpus(sentences, tiny_corpus.languages, ("train", "replay", "dev"))
    for corpus, split in ((tiny_corpus, "heldout"), (dealt, "dev")):
        found = expert_contexts(model, tiny_tokenizer, corpus, **options)
        assert set(found.contexts["dataset"]) == {split}
        assert context_tokens(model, tiny_tokenizer, corpus, found.contexts, **_limits(options))


def _limits(options):
    return {name: options[name] for name in ("languages", "tokens_per_language", "max_document_tokens")}
