import pytest

from lpr_lab.text.fertility import measure_fertility, premium, script_mix


def test_characters_bytes_words_and_tokens_are_counted(tiny_tokenizer):
    found = measure_fertility(tiny_tokenizer, ["Ένα γράμμα.", "a b"])
    assert (found.num_words, found.num_characters, found.num_bytes) == (4, 14, 23)
    ids = tiny_tokenizer(["Ένα γράμμα.", "a b"], add_special_tokens=False)["input_ids"]
    assert found.num_tokens == sum(map(len, ids)) and found.num_unknown == 0
    assert found.tokens_per_word == found.num_tokens / 4


def test_a_token_that_begins_inside_a_character_is_seen(tiny_tokenizer):
    thai = measure_fertility(tiny_tokenizer, ["ยาย"])  # the vocabulary has none of it: three tokens for each character
    assert thai.num_tokens == 9 and thai.inside_share == pytest.approx(2 / 3)
    assert measure_fertility(tiny_tokenizer, ["abc"]).inside_share == 0


def test_scripts_without_spaces_have_no_words_though_a_foreign_character_changes_nothing(tiny_tokenizer):
    assert measure_fertility(tiny_tokenizer, ["退潮的时候,孩子们去找贝壳。"]).tokens_per_word is None
    assert measure_fertility(tiny_tokenizer, ["The word 退 in a sentence."]).num_words == 6


def test_the_premium_compares_translations_only():
    assert premium({"a": 30, "b": 50, "c": 9}, {"a": 10, "b": 30, "d": 99}) == 2.0
    assert premium({"a": 30}, {"b": 10}) is None


def test_letters_are_counted_by_script_and_nothing_else_is():
    assert script_mix(["αβγ, abc 123!", "дд"]) == {"Greek": 3 / 8, "Latin": 3 / 8, "Cyrillic": 2 / 8}
    assert script_mix(["ꦀꦄ"]) == {"Other": 1.0}  # Javanese, which is not in our table
    assert script_mix(["12"]) == {}
