"""A causal map is what one forward pass for every layer and expert gives, computed many at a time."""

import json

import numpy as np
import pytest
import torch

from lpr_lab.errors import DamagedError, UsageError
from lpr_lab.measure.causal import compute
from lpr_lab.measure.causal.causal_map import CausalMap, Cell, finding, finding_in_words, word_in_words
from lpr_lab.measure.causal.compute import causal_map, causal_steps, next_tokens
from lpr_lab.measure.routing import trace
from lpr_lab.method.upcycle import upcycle
from lpr_lab.model.adapter import forward_context, moe_layers
from lpr_lab.model.stages import enter_stage, selected_stage, use_stage
from lpr_lab.model.steering import steer

TEXT = "A letter came. Το πρωί άνοιξα."


@torch.no_grad()
def expanded(base, experts, **options):
    """Return an expansion whose routers, experts and classifiers all differ, at the stage `G1 review`."""
    model = upcycle(base, experts, router_bias=True, **options)
    enter_stage(model, "review", classifiers=[1])
    for layer in moe_layers(model):
        for part in (layer.router, *layer.stacks, layer.classifier):
            for parameter in [] if part is None else part.parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))
    return model


def plainly(model, tokenizer, text):
    """Return bits [T] and change [L, E, T] by one forward pass of `trace` for every layer and expert."""

    def bits():
        found = trace(model, tokenizer, text, base=False).log_prob
        assert found is not None
        return -found / np.log(2)

    as_is, counts = bits(), {layer.layer: layer.num_experts for layer in moe_layers(model)}
    change = np.full((len(counts), max(counts.values()), len(as_is)), np.nan)
    for row, (layer, count) in enumerate(counts.items()):
        for expert in range(count):
            with steer(model, force={layer: expert}):
                change[row, expert] = bits() - as_is
    return as_is, change


def test_every_family_s_map_equals_one_steered_pass_for_every_layer_and_expert(family, tiny_model, tiny_tokenizer):
    model = expanded(tiny_model(family, num_layers=3), (2, 1, 0))
    bits, change = plainly(model, tiny_tokenizer, TEXT)
    found = causal_map(model, tiny_tokenizer, TEXT, "el")
    assert found.layers.tolist() == [0, 1] and found.num_experts.tolist() == [3, 2]
    np.testing.assert_allclose(found.bits, bits, atol=1e-5)
    np.testing.assert_allclose(found.change, change, atol=1e-5)
    assert np.nanmax(abs(found.change)) > 0.1 and np.isnan(found.change[1, 2]).all()


@pytest.fixture(scope="module")
def model(tiny_model):
    torch.manual_seed(0)
    return expanded(tiny_model("llama", num_layers=4), (1, 1, 0, 3), router_input="token_and_mean")


@pytest.fixture(scope="module")
def known(model, tiny_tokenizer):
    return causal_map(model, tiny_tokenizer, TEXT, "el")


@pytest.mark.parametrize("batch_tokens", [1, 100])
def test_small_batches_and_rows_that_are_there_from_the_beginning_give_the_same(
    model, tiny_tokenizer, known, batch_tokens, monkeypatch
):
    bits, change = plainly(model, tiny_tokenizer, TEXT)
    for joins in (True, False):
        monkeypatch.setattr(compute, "_lets_rows_join", lambda _, joins=joins: joins)
        found = causal_map(model, tiny_tokenizer, TEXT, batch_tokens=batch_tokens)
        np.testing.assert_allclose(found.change, change, atol=1e-5)
        np.testing.assert_allclose(found.change, known.change, atol=1e-5)
        np.testing.assert_allclose(found.bits, bits, atol=1e-5)


def test_rows_join_where_their_layer_is_so_that_half_of_the_work_is_left(model, tiny_tokenizer, known):
    seen = []
    layers = model.get_base_model().model.layers
    handles = [layer.register_forward_hook(lambda *given: seen.append(len(given[2]))) for layer in layers]
    try:
        causal_map(model, tiny_tokenizer, TEXT)
    finally:
        for handle in handles:
            handle.remove()
    assert seen[-4:] == [3, 5, 5, 9]


def test_a_model_that_lets_no_rows_join_is_found_out_before_anything_relies_on_it(model, monkeypatch):
    assert compute._lets_rows_join(model)
    monkeypatch.setattr(
        compute, "_grown", lambda states, more: torch.cat([states, states[:1].expand(more, -1, -1) + 1])
    )
    assert not compute._lets_rows_join(model)
    monkeypatch.setattr(compute, "_grown", lambda states, more: states[:, :1])
    assert not compute._lets_rows_join(model)


def test_an_earlier_stage_and_some_experts_can_be_asked_for(model, tiny_tokenizer):
    found = causal_map(model, tiny_tokenizer, TEXT, stage="G1 expand", experts=[0])
    with use_stage(model, "G1 expand"):
        _, change = plainly(model, tiny_tokenizer, TEXT)
    assert found.experts == [0] and selected_stage(model) == "G1 review"
    np.testing.assert_allclose(found.switched_to(0), change[:, 0], atol=1e-5)
    with pytest.raises(UsageError, match="experts of this map: 0"):
        found.switched_to(1)


def test_a_stopped_map_keeps_what_it_has_and_leaves_nothing_on_the_model(model, tiny_tokenizer, known):
    model.train()
    try:
        steps = causal_steps(model, tiny_tokenizer, TEXT, batch_tokens=2 * known.num_tokens)
        step = next(steps)
        assert (step.done, step.total) == (1, 8)
        assert model.training and forward_context(model).steering is None
        del steps
    finally:
        model.eval()
    assert step.result.experts == [0] and np.isfinite(step.result.change[0, 0, 1:]).all()
    assert np.isnan(step.result.change[1:]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": " "}, "empty"),
        ({"stage": "G1 reviews"}, "G1 review"),
        ({"experts": [4]}, "0 to 3"),
        ({"experts": []}, "no expert"),
        ({"batch_tokens": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(model, tiny_tokenizer, options, said):
    with pytest.raises(UsageError, match=said):
        causal_steps(model, tiny_tokenizer, **{"text": TEXT, **options})


def test_both_distributions_of_a_cell_explain_its_number(model, tiny_tokenizer, known):
    cell = Cell(layer=3, expert=2, token=4)
    found = next_tokens(model, tiny_tokenizer, known, cell, k=3)
    row = known.layers.tolist().index(3)
    assert found.bits[0] == pytest.approx(known.bits[4], abs=1e-4)
    assert found.bits[1] - found.bits[0] == pytest.approx(known.change[row, 2, 4], abs=1e-4)
    assert 3 <= len(found.token_ids) <= 6 and len(found.as_is) == len(found.switched) == len(found.token_bytes)
    assert (np.diff(found.as_is) <= 0).all()
    with steer(model, force={3: 2}), torch.no_grad():
        logits = model(input_ids=torch.tensor([known.token_ids])).logits[0, 3]
    np.testing.assert_allclose(found.switched, logits.softmax(-1)[found.token_ids], atol=1e-5)
    with pytest.raises(UsageError, match="no cell"):
        next_tokens(model, tiny_tokenizer, known, Cell(2, 0, 4))


def test_a_map_goes_through_json_and_a_table_and_says_what_matters_most(known):
    again = CausalMap.from_dict(json.loads(json.dumps(known.to_dict(), allow_nan=False)))
    np.testing.assert_allclose(again.change, known.change, atol=1e-6)
    assert (again.text, again.token_bytes, again.experts) == (known.text, known.token_bytes, [0, 1, 2, 3])
    table = known.to_frame()
    assert len(table) == 8 * (known.num_tokens - 1) and table["text"].iloc[:3].tolist() == known.tokens[1:4]
    assert b"".join(filter(None, again.token_bytes)).decode() == TEXT
    found = finding(known, 0)
    assert found is not None
    totals = table[table["expert"] == 0].groupby("layer")["change_bits"].sum()
    assert found.layer == totals.abs().idxmax() and found.layer_bits == pytest.approx(totals[found.layer])
    largest = table[table["expert"] == 0]["change_bits"].abs().max()
    assert abs(found.token_bits) == pytest.approx(largest)
    assert f"Layer {found.layer}" in finding_in_words(known, 0)
    with pytest.raises(DamagedError, match="not a causal map"):
        CausalMap.from_dict({"format": 1})


def of_pieces(pieces: list[bytes | None]) -> CausalMap:
    """A map of two layers over these tokens, of which each layer changes token t by t and 10 - 3 t bits."""
    change = np.full((2, 2, len(pieces)), np.nan)
    change[0, 0, 1:] = np.arange(1, len(pieces))
    change[1, 0, 1:] = 10 - 3 * np.arange(1, len(pieces))
    return CausalMap(
        text="",
        language=None,
        stage="G1 review",
        token_ids=list(range(len(pieces))),
        token_bytes=pieces,
        layers=np.array([2, 5]),
        num_experts=np.array([2, 2]),
        bits=np.ones(len(pieces)),
        change=change,
    )


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([None, b"One", b" wo", b"rd", b"."], [[1], [2, 3], [4]]),
        (
            [None, "Το".encode(), " π".encode(), "ρ".encode()[:1], "ρ".encode()[1:], b" ", b"a("],
            [[1], [2, 3, 4], [5], [6]],
        ),
        ([None, b"a(", b"b1", b"'s", b") ", b"c"], [[1], [2, 3], [4], [5]]),
        ([None, b"a\n", b"b", None, b"c"], [[1], [2, 3, 4]]),  # a special token stands for no byte
        ([None, b"\xce", b"\xce", b"ab"], [[1], [2], [3]]),  # bytes that are no text
        ([None, *["ก".encode()] * 20], [[place] for place in range(1, 21)]),
    ],
)
def test_a_word_is_letters_in_a_row_whatever_pieces_they_are_in(pieces, words):
    found = of_pieces(pieces)
    assert [list(found.word_at(token)) for token in range(1, len(pieces))] == [word for word in words for _ in word]


def test_what_matters_to_a_word_is_the_sum_over_its_tokens_and_the_largest_comes_first():
    found = of_pieces([None, b"One", b" wo", b"rd"])
    said = word_in_words(found, Cell(2, 0, 3))
    assert "the word “word” changes most by layer 2 (+5.00 bits), then layer 5 (+5.00 bits)" in said
    said = word_in_words(found, Cell(2, 0, 1))
    assert "“One” changes most by layer 5 (+7.00 bits), then layer 2 (+1.00 bits)" in said
    assert "the original expert" in said
    assert "“wo” of the word “word” (token 2)" in finding_in_words(of_pieces([None, b"wo", b"rd", b" a"]), 0)
    for token in (0, 4):
        with pytest.raises(UsageError, match="no token"):
            found.word_at(token)


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([None, b"a", " θ".encode()[:2], " θ".encode()[2:], "ά".encode()], "the word “θά”"),
        ([None, "ก".encode()[:2], "ก".encode()[2:]], "the word “ก”"),
        ([None, b"a", b" \xe0\xb8"], "“⟨E0 B8⟩”"),  # a lone piece of a character, as bytes
    ],
)
def test_a_word_is_named_whole_and_a_lone_piece_of_a_character_by_its_bytes(pieces, said):
    found = of_pieces(pieces)
    last = len(pieces) - 1
    assert said in word_in_words(found, Cell(2, 0, last)) and "�" not in finding_in_words(found, 0)
