"""Minimal pairs of inflection: two forms of one lemma, asked both ways round."""

import importlib.util

import pytest

from lpr_lab.errors import MissingError
from lpr_lab.measure.tasks import inflection
from lpr_lab.measure.tasks.inflection import make_pairs
from lpr_lab.text import lemmas
from lpr_lab.text.corpus import Document

FORMS = {"bakes": "bake", "baked": "bake", "opens": "open", "opened": "open", "bread": "bread"}
TEXTS = [
    "Every day the baker bakes bread for us all.",
    "Last year the baker baked bread for us all.",
    "The old man opens the shop before the sun is up.",
    "Yesterday he never opened the shop at all, it seems.",
    "Opened again, the shop sells bread.",
]


@pytest.fixture
def documents(monkeypatch):
    def table(words, language):
        return {word: FORMS[word] for word in words if word in FORMS}

    monkeypatch.setattr(inflection, "lemmas_of", table)
    return [Document(f"d{number}", "en", text, "toy") for number, text in enumerate(TEXTS)]


def test_every_two_forms_are_asked_both_ways_round(documents):
    items = make_pairs(documents, "en", 10, seed=0)
    assert len(items) == 4
    for one, other in zip(items[::2], items[1::2], strict=True):
        written = [item.choices[0].split()[0] for item in (one, other)]
        changed = [item.choices[1].split()[0] for item in (one, other)]
        assert written == changed[::-1]
        assert FORMS[written[0]] == FORMS[written[1]]


def test_only_the_word_differs_and_the_sentence_as_written_comes_first(documents):
    for item in make_pairs(documents, "en", 10, seed=0):
        right, wrong = item.choices
        assert right.split()[1:] == wrong.split()[1:]
        assert any(item.context + right in text for text in TEXTS)


def test_so_many_items_as_asked_for_and_the_same_ones_again(documents):
    assert len(make_pairs(documents, "en", 3, seed=0)) == 2
    assert make_pairs(documents, "en", 10, seed=1) == make_pairs(list(documents), "en", 10, seed=1)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"simplemma.*lpr_lab\[lemmas\]"):
        lemmas.has_lemmas("en")


def test_the_tables_know_forms_of_words_and_which_languages_they_have():
    pytest.importorskip("simplemma")
    found = lemmas.lemmas_of(["walked", "walks", "xyzzy"], "en")
    assert found == {"walked": "walk", "walks": "walk"}
    assert [code for code in ("el", "tr", "hr", "bn", "zh") if lemmas.has_lemmas(code)] == ["el", "tr", "hr"]
    with pytest.raises(MissingError, match="'bn'"):
        lemmas.lemmas_of(["কথা"], "bn")
