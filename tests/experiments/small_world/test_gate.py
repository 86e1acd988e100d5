"""The competence gate: its bar is a proper model of characters, and a base that learned nothing is below it."""

import math

import pytest

from lpr_lab.experiments.small_world import gate
from lpr_lab.text.corpus import Document

PASSING = {"below_ngram_percent": 15, "above_twin_percent": 5, "swaps_found": 0.7, "repetition": 0.2}


def test_the_probabilities_of_what_follows_sum_to_one():
    model = gate.CharacterModel(["abracadabra", "abba"])
    for context in ("\n\n\n\n", "abra", "cadx", "zzzz"):
        total = sum(model.probability(context, letter) for letter in "abcdr")
        assert total < 1 and total + (65_536 - 5) * model.probability(context, "✗") == pytest.approx(1)


def test_text_that_was_seen_costs_less_than_any_other_and_bytes_are_counted():
    model = gate.CharacterModel(["the cat sat on the mat. " * 20])
    seen, other = (model.bits_per_byte([text]) for text in ("the cat sat on the mat. ", "xylophon quiz jumping vow"))
    assert seen < 0.5 < other
    assert gate.CharacterModel([]).bits_per_byte(["ά"]) == pytest.approx(16 / 2)  # two bytes, one in 65,536
    assert math.isfinite(model.bits_per_byte([""]))


def test_a_swap_keeps_words_and_bytes_and_never_swaps_two_equal_words():
    documents = [Document(str(n), "en", f"{n} the the old clock is late again", "t") for n in range(30)]
    documents.append(Document("short", "en", "too short to swap", "t"))
    pairs = gate.swapped_pairs(documents)
    assert len(pairs) == 30 and pairs == gate.swapped_pairs(documents) != gate.swapped_pairs(documents, seed=1)
    for good, bad in pairs:
        assert good.text != bad.text and sorted(good.text.split()) == sorted(bad.text.split())


@pytest.mark.parametrize(
    ("name", "value"),
    [("below_ngram_percent", 14.9), ("above_twin_percent", 5.1), ("swaps_found", 0.69), ("repetition", 0.21)],
)
def test_each_check_fails_alone_and_a_missing_twin_fails_nothing(name, value):
    assert gate.failed(PASSING) == [] == gate.failed({**PASSING, "above_twin_percent": None})
    assert gate.failed({**PASSING, name: value}) == [name]


@pytest.mark.slow
def test_a_base_that_learned_nothing_does_not_pass(tiny_model, tiny_tokenizer, tiny_corpus):
    model = tiny_model()
    found = gate.check(model, tiny_tokenizer, tiny_corpus, ["en"], twins={"en": model}, tokens_per_language=256)
    row = found["languages"]["en"]
    assert not found["passes"] and found["split"] == "heldout"
    assert "below_ngram_percent" in row["fails"] and row["above_twin_percent"] == 0
    assert row["ngram_bits_per_byte"] < row["bits_per_byte"] and 0 <= row["swaps_found"] <= 1
