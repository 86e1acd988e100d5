"""The continuation choice: the same items in every language, by ids and seed alone."""

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.measure.tasks.choice import MOST_CONTEXT, MOST_CONTINUATION, break_passage, make_choices
from lpr_lab.text.corpus import Corpus, Document

CODES = ("en", "el", "zh")


@pytest.fixture(scope="module")
def corpus(sentences):
    """Forty messages in three languages; one is missing in Greek, and one is too short in English."""
    texts = {}
    for code in CODES:
        own = sentences[code]
        messages = {f"m{number}": f"{own[number % 6]} {number} {own[(number // 6) % 6]}" for number in range(36)}
        messages |= {"short": "Hm." if code == "en" else own[0], "same": own[0], "again": own[0]}
        if code == "el":
            del messages["m7"]
        texts["heldout", code] = tuple(Document(name, code, text, "toy") for name, text in messages.items())
    return Corpus("toy", CODES, texts)


def test_a_passage_breaks_between_words_and_joins_again():
    text = "When the tide goes out, children look for shells, and\nsome of them find a crab."
    passage = break_passage(text)
    assert passage is not None
    joined = passage.context + passage.continuation
    assert " ".join(text.split()).startswith(joined)
    assert passage.continuation.startswith(" ")
    assert len(passage.context) <= MOST_CONTEXT and len(passage.continuation) <= MOST_CONTINUATION


def test_a_long_passage_keeps_what_stands_right_before_the_break():
    text = " ".join(f"word{number}" for number in range(100))
    passage = break_passage(text)
    assert passage is not None
    assert passage.context + passage.continuation in text


def test_a_text_that_is_too_short_is_no_passage():
    assert break_passage("Hm.") is None


def test_the_items_are_the_same_in_every_language(corpus):
    items = make_choices(corpus, "heldout", CODES, 20, seed=0)
    names = [[item.id for item in items[code]] for code in CODES]
    assert names[0] == names[1] == names[2]
    assert len(names[0]) == 20
    assert not {"m7", "short"} & set(names[0])
    # Also the wrong ones: each is some passage's true continuation, the same passage in every language.
    own: dict[str, dict[str, set[str]]] = {code: {} for code in CODES}
    for code in CODES:
        for document in corpus.documents("heldout", code):
            passage = break_passage(document.text)
            if passage is not None:
                own[code].setdefault(passage.continuation, set()).add(document.id)
    for number in range(20):
        for place in range(4):
            assert set.intersection(*(own[code][items[code][number].choices[place]] for code in CODES))


def test_the_four_continuations_differ_in_every_language(corpus):
    for items in make_choices(corpus, "heldout", CODES, 100, seed=0).values():
        for item in items:
            assert len(set(item.choices)) == 4


def test_a_seed_gives_the_same_items_again_and_another_one_others(corpus):
    first, again, other = (make_choices(corpus, "heldout", CODES, 10, seed=seed)["en"] for seed in (0, 0, 1))
    assert first == again != other


def test_languages_without_text_in_common_are_refused(sentences):
    texts = {
        ("heldout", code): tuple(Document(f"{code}{n}", code, text, "toy") for n, text in enumerate(sentences[code]))
        for code in ("en", "el")
    }
    with pytest.raises(UsageError, match=r"0 passages .*id"):
        make_choices(Corpus("toy", ("en", "el"), texts), "heldout", ("en", "el"), 5, seed=0)
