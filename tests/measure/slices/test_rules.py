"""Rules of slices: what is marked follows from characters alone, in every script, however a tokenizer cuts the text."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.measure.slices.rules import ALL, FIRST_TOKENS, REST, SLICES, WITH_CAPITALS, TokenizedText, slices_of
from lpr_lab.text.languages import LANGUAGES, get_language

SCRIPTS = "aZé1 .,Ж9яΑγά΄ωبسم٣،ไทย๕ำ中文。अनि४।がカ한글ՀայA\n“”«»—-'’"
texts = st.text(st.sampled_from(SCRIPTS), min_size=1, max_size=40)
codes = st.sampled_from(sorted(LANGUAGES))


def cut(text: str, places: set[int]) -> TokenizedText:
    """Cut a text at bytes, also inside characters."""
    data = text.encode()
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    pieces = [data[start:end] for start, end in pairwise(ends) if end > start]
    return TokenizedText(text, [hash(piece) % 1000 for piece in pieces], pieces)


def marked(document: TokenizedText, code: str, name: str) -> str:
    """Return the tokens of a slice with bars between them."""
    marks = slices_of([document], get_language(code))[name][0]
    return "|".join(piece.decode() for piece, mark in zip(document.pieces, marks, strict=True) if mark)


def by_word(text: str) -> TokenizedText:
    words = [word if number == 0 else f" {word}" for number, word in enumerate(text.split(" "))]
    return TokenizedText(text, list(range(len(words))), [word.encode() for word in words])


@given(texts, st.sets(st.integers(0, 200), max_size=30), codes)
def test_every_token_is_in_all_and_in_rest_exactly_where_it_is_in_no_rule(text, places, code):
    document = cut(text, places)
    found = {name: marks[0] for name, marks in slices_of([document], get_language(code)).items()}
    assert found[ALL].all() and all(len(marks) == len(document.ids) for marks in found.values())
    assert (found[REST] == ~np.any([found[one.name] for one in SLICES], axis=0)).all()


@given(texts, st.sets(st.integers(0, 200), max_size=30), codes)
def test_digits_and_punctuation_are_what_unicode_says_of_the_characters_a_token_has_part_in(text, places, code):
    document = cut(text, places)
    found = {name: marks[0] for name, marks in slices_of([document], get_language(code)).items()}
    owner = [number for number, one in enumerate(text) for _ in one.encode()]
    start = 0
    for token, piece in enumerate(document.pieces):
        kinds = {unicodedata.category(text[owner[byte]]) for byte in range(start, start + len(piece))}
        start += len(piece)
        assert found["digits"][token] == ("Nd" in kinds)
        has_mark, is_wordlike = (any(kind[0] in group for kind in kinds) for group in ("PS", "LMN"))
        assert found["punctuation"][token] == (has_mark and not is_wordlike)


@given(texts, codes)
def test_what_a_rule_marks_does_not_depend_on_how_the_text_is_cut(text, code):
    fine, coarse = cut(text, set(range(200))), TokenizedText(text, [1], [text.encode()])
    language = get_language(code)
    many, one = slices_of([fine], language), slices_of([coarse], language)
    for name in ("digits", "names", "other_script"):
        assert many[name][0].any() == one[name][0].any()


@given(texts, st.sets(st.integers(0, 200), max_size=30), codes)
def test_names_are_only_where_a_script_tells_them_by_capitals(text, places, code):
    language = get_language(code)
    rule = next(one for one in SLICES if one.name == "names")
    marks = slices_of([cut(text, places)], language)["names"][0]
    if language.script not in WITH_CAPITALS or code == "de":
        assert not marks.any() and language.name in rule.absent(language)
    else:
        assert not rule.absent(language)


@pytest.mark.parametrize(
    ("code", "text", "names"),
    [
        ("en", "We met Maria in Athens. She left.", " Maria| Athens."),
        ("el", "Ο Γιάννης πήγε. Η Αθήνα «Καλά» είπε ο Νίκος", " Γιάννης| Αθήνα| Νίκος"),
        ("bg", "Тя видя Иван. Той", " Иван."),
        ("tr", "Bugün İstanbul çok güzel", " İstanbul"),
        ("en", "So I did. — There it is", ""),
        ("de", "Das Haus von Maria", ""),
        ("ar", "ذهب محمد إلى London", ""),
        ("th", "ฉัน พบ สมชาย", ""),
    ],
)
def test_names_are_capitalised_words_inside_sentences(code, text, names):
    assert marked(by_word(text), code, "names") == names


@pytest.mark.parametrize(
    ("code", "text", "found"),
    [
        ("el", "Το Windows και το Linux τρέχει", " Windows| Linux"),
        ("ar", "نظام Windows جديد", " Windows"),
        ("ja", "これは Windows です 日本 カタカナ", " Windows"),
        ("th", "ใช้ Windows ๕ 5", " Windows"),
        ("en", "the word λόγος and café", " λόγος"),
        ("tr", "bu bir English kelime", ""),
    ],
)
def test_code_switched_spans_are_letters_of_another_script(code, text, found):
    assert marked(by_word(text), code, "other_script") == found


def test_the_first_tokens_are_those_of_each_document_and_rare_ones_are_once_in_the_whole_set():
    ids = [list(range(30)), [0, 1, 99]]
    documents = [TokenizedText("a" * len(own), own, [b"a"] * len(own)) for own in ids]
    found = slices_of(documents, get_language("en"))
    assert [int(marks.sum()) for marks in found["first"]] == [FIRST_TOKENS, 3]
    assert found["rare"][0].tolist() == [number > 1 for number in range(30)]
    assert found["rare"][1].tolist() == [False, False, True]


def test_every_slice_has_a_name_a_title_and_its_rule_in_words():
    assert len({one.name for one in SLICES} | {one.title for one in SLICES}) == 2 * len(SLICES)
    assert all(one.rule.endswith(".") and one.marks is not None for one in SLICES)
