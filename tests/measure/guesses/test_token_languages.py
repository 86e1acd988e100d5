"""A token is of a language where its script or its use says so, and of none where neither does."""

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.measure.guesses.count_tokens import count_token_languages
from lpr_lab.measure.guesses.token_languages import TokenLanguages, kind_without_script, script_of_token


@pytest.mark.parametrize(
    ("piece", "script"),
    [
        (" καλ".encode(), "Greek"),
        ("الخ".encode(), "Arabic"),
        ("天".encode(), "Han"),
        ("の".encode(), "Hiragana"),
        ("नि".encode(), "Devanagari"),
        (b" the", "Latin"),
        (b"\xce", ""),
        (b" 14,", ""),
        ("aα".encode(), ""),
        ("ᚠ".encode(), ""),
        (b"", ""),
        (None, ""),
    ],
)
def test_a_script_is_said_of_whole_letters_of_one_script(piece, script):
    assert script_of_token(piece) == script


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        (None, "special token"),
        (b"\xce", "part of a character"),
        (b" 14,", "sign or space"),
        (b"", "sign or space"),
        ("aα".encode(), "letters of several scripts"),
        ("ᚠ".encode(), "letters of another script"),
    ],
)
def test_what_has_no_script_is_named_otherwise(piece, kind):
    assert kind_without_script(piece) == kind


def test_a_script_that_one_language_alone_has_says_the_language():
    known = TokenLanguages(("en", "es", "el", "ja", "zh"))
    assert known.of(1, "και".encode()) == "el" and known.of(2, "の".encode()) == "ja"
    assert known.of(3, b"the") == "" and known.of(4, "天".encode()) == "" and known.of(5, b"\xce") == ""
    assert TokenLanguages().of(1, "και".encode()) == ""


@pytest.mark.parametrize(
    ("uses", "language"), [((90, 1, 0), "en"), ((40, 40, 0), ""), ((2, 2, 0), ""), ((4, 0, 0), ""), ((0, 1, 60), "")]
)
def test_languages_of_one_script_are_told_apart_by_who_uses_the_token_if_it_is_used_enough(uses, language):
    known = TokenLanguages(("en", "es", "el"), (1000, 1000, 1000), {7: uses})
    assert known.of(7, b" the") == language


def test_more_text_of_a_language_does_not_make_its_tokens_more():
    known = TokenLanguages(("en", "es"), (10_000, 100), {7: (90, 9)})
    assert known.of(7, b" casa") == "es"


def test_uses_are_counted_in_the_text_of_every_language(tiny_tokenizer, tiny_corpus):
    known = count_token_languages(tiny_tokenizer, tiny_corpus, ["en", "es", "el"])
    assert all(known.counted) and known.languages == ("en", "es", "el")
    ids = tiny_tokenizer("The baker opens the shop", add_special_tokens=False)["input_ids"]
    the = next(i for i in ids if tiny_tokenizer.decode([i]) == " the")
    assert known.uses[the][0] > 0 and known.of(the, b" the") == "en"
    assert sum(uses[2] for uses in known.uses.values()) == known.counted[2]
    few = count_token_languages(tiny_tokenizer, tiny_corpus, ["en"], tokens=10)
    assert few.counted == (10,)


def test_without_a_corpus_scripts_are_left_and_an_unknown_language_is_refused(tiny_tokenizer):
    assert count_token_languages(tiny_tokenizer, None, ["ell"]) == TokenLanguages(("el",))
    with pytest.raises(UsageError, match="xx"):
        count_token_languages(tiny_tokenizer, None, ["xx"])
