"""Languages told apart by script and letter triples: untranslated English, and which of several languages."""

import pytest

from lpr_lab.text.language_filter import LanguageFilter, LanguageGuess, script_share
from lpr_lab.text.languages import get_language


def test_untranslated_english_is_found_in_every_script(sentences):
    english = sentences["en"] * 3
    for code in ("es", "hu", "tr", "el", "ru", "zh", "hi", "th", "ar"):
        judge = LanguageFilter(code, [*sentences[code], *english[:3]], english)
        assert [judge.reason_to_drop(text) for text in sentences[code]] == [None] * len(sentences[code]), code
        reasons = {judge.reason_to_drop(text) for text in english}
        assert reasons == ({"looks_english"} if get_language(code).script == "Latin" else {"wrong_script"}), code


def test_a_block_equal_to_its_english_source_is_untranslated(sentences):
    judge = LanguageFilter("es", sentences["es"], sentences["en"])
    name = "Los Angeles, San Francisco"
    assert judge.reason_to_drop(name, english=name) == "same_as_english"


def test_english_itself_is_kept(sentences):
    judge = LanguageFilter("en", sentences["en"], sentences["en"])
    assert {judge.reason_to_drop(text, english=text) for text in sentences["en"]} == {None}
    assert judge.reason_to_drop("1 + 1 = 2") == "wrong_script"


def test_a_greek_sentence_full_of_latin_names_is_kept():
    judge = LanguageFilter("el", [], [])
    assert judge.reason_to_drop("Ανοίξτε το Writer ή το Calc και πατήστε Ctrl+S.") is None


@pytest.mark.parametrize(
    ("text", "code", "share"),
    [
        ("αβγδ", "el", 1.0),
        ("αβ ab", "el", 0.5),
        ("日本語のテキスト", "ja", 1.0),
        ("1234 !?", "en", 0.0),
        ("한국어 a", "ko", 0.75),
    ],
)
def test_script_share_counts_letters_only(text, code, share):
    assert script_share(text, get_language(code)) == share


def test_a_sentence_is_found_in_its_language_after_a_few_others(sentences):
    codes = ("en", "es", "el", "hu", "tr")
    judge = LanguageGuess({code: sentences[code][:-1] for code in codes})
    assert [judge.guess(sentences[code][-1]) for code in codes] == list(codes)


def test_a_text_without_a_word_is_in_no_language(sentences):
    judge = LanguageGuess({"en": sentences["en"], "el": sentences["el"]})
    assert judge.guess("") is None
    assert judge.guess(" … !") is None
