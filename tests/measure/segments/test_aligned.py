"""Segments are documents with the same id; which languages have one is said, and the longest come first."""

import pytest

from lpr_lab.measure.segments.aligned import MOST_CHARACTERS, aligned_segments
from lpr_lab.text.corpus import Corpus, Document


def corpus_of(texts: dict[tuple[str, str], dict[str, str]]) -> Corpus:
    codes = tuple(dict.fromkeys(code for _, code in texts))
    documents = {
        (split, code): tuple(Document(name, code, text, "toy") for name, text in own.items())
        for (split, code), own in texts.items()
    }
    return Corpus("toy", codes, documents)


@pytest.fixture
def corpus() -> Corpus:
    return corpus_of(
        {
            ("heldout", "en"): {"a": "Short.", "b": "A longer one.", "c": "Two have this.", "alone": "Only here."},
            ("heldout", "el"): {"b": "Ένα πιο μακρύ.", "a": "Μικρό.", "c": "Δύο το έχουν."},
            ("heldout", "ar"): {"a": "قصير.", "b": "واحد أطول."},
            ("dev", "en"): {"page": "Help."},
            ("dev", "el"): {"page": "Βοήθεια."},
        }
    )


def test_those_in_most_languages_come_first_then_the_longest_and_a_language_may_be_missing(corpus):
    found = aligned_segments(corpus, ["en", "el", "ar"])
    assert [segment.id for segment in found] == ["b", "a", "c"]
    assert list(found[0].texts) == ["en", "el", "ar"] and list(found[2].texts) == ["en", "el"]
    assert {segment.split for segment in found} == {"heldout"}
    assert [segment.id for segment in aligned_segments(corpus, ["en", "el", "ar"], most=1)] == ["b"]


def test_dev_text_stands_in_where_held_out_text_has_none_in_common():
    split = corpus_of(
        {("heldout", "en"): {"x": "One."}, ("dev", "en"): {"p": "Help."}, ("dev", "el"): {"p": "Βοήθεια."}}
    )
    (segment,) = aligned_segments(split, ["en", "el"])
    assert (segment.split, segment.id) == ("dev", "p")


def test_nothing_in_common_is_no_segment_and_neither_is_a_whole_document():
    assert aligned_segments(corpus_of({("train", "en"): {"a": "x"}, ("train", "el"): {"a": "x"}}), ["en", "el"]) == []
    long = "word " * (MOST_CHARACTERS // 5 + 1)
    assert aligned_segments(corpus_of({("dev", "en"): {"a": long}, ("dev", "el"): {"a": "λίγο"}}), ["en", "el"]) == []


def test_a_key_is_of_letters_and_digits_whatever_the_id_and_differs_by_split(corpus):
    odd = corpus_of({("dev", "en"): {"../x y": "One."}, ("dev", "el"): {"../x y": "Ένα."}})
    (segment,) = aligned_segments(odd, ["en", "el"])
    assert segment.key.isalnum() and segment.key != type(segment)("../x y", "heldout", segment.texts).key
