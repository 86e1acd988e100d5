"""Minimal pairs of inflection: a sentence as it was written, and with one word in another form of the same lemma.

Which forms belong to one lemma says a table (`text.lemmas`); both forms occur in the held-out text of the language.
Every two forms are asked both ways round, once in a sentence that has the one and once in a sentence that has the
other. What a model thinks of the forms alone, such as which is the more frequent, makes it right once and wrong once.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import regex

from lpr_lab.measure.tasks.items import Item, break_before, in_seeded_order, last_words, one_line
from lpr_lab.text.corpus import Document
from lpr_lab.text.lemmas import lemmas_of

MOST_BEFORE, MOST_AFTER = 80, 25
"""Characters of the sentence around the word."""
_LEAST_BEFORE = 10
_LEAST_PREFIX = 3
"""Letters that two forms have in common: they are forms of one stem, and the table is not wrong about them."""
_WORDS = regex.compile(r"[\p{L}\p{M}]+")


def make_pairs(documents: Sequence[Document], language: str, count: int, seed: int) -> list[Item]:
    """Return the items of one language, at most `count`, in twos; of one lemma one pair of forms.

    Args:
        documents: of this language.
        language: ISO 639-1 code.
        count: how many items to make.
        seed: which ones.

    Raises:
        MissingError: the package of tables is not installed, or has none of this language.
    """
    places = _places(documents)
    forms: dict[str, list[str]] = {}
    for word, lemma in lemmas_of(places, language).items():
        forms.setdefault(lemma, []).append(word)
    items: list[Item] = []
    for lemma in in_seeded_order(forms, seed):
        pair = _most_frequent_pair(forms[lemma], places)
        if pair is None:
            continue
        if len(items) + 2 > count:
            break
        for own, other in (pair, pair[::-1]):
            place = in_seeded_order(places[own], seed)[0]
            items.append(_item(places[own][place], f"{own}/{other}@{place}", own, other, language))
    return items


def _places(documents: Sequence[Document]) -> dict[str, dict[str, tuple[str, str]]]:
    """Return word -> document id -> (text before it, text after it), at the first place of the word in the document.

    Only words in small letters that some text stands before.
    """
    places: dict[str, dict[str, tuple[str, str]]] = {}
    for document in documents:
        text = one_line(document.text)
        for found in _whole_words(text):
            word = found[0]
            if found.start() >= _LEAST_BEFORE and len(word) >= _LEAST_PREFIX and word == word.lower():
                places.setdefault(word, {}).setdefault(document.id, (text[: found.start()], text[found.end() :]))
    return places


def _whole_words(text: str) -> Iterator[regex.Match[str]]:
    """Yield words with a space before them, none that a hyphen or an apostrophe makes part of another."""
    for found in _WORDS.finditer(text):
        after = text[found.end() : found.end() + 1]
        if text[found.start() - 1 : found.start()] == " " and after not in ("-", "'", "’", "_"):
            yield found


def _most_frequent_pair(forms: Sequence[str], places: dict[str, dict[str, tuple[str, str]]]) -> tuple[str, str] | None:
    """Return the two most frequent forms with a common stem, or None."""
    ordered = sorted(forms, key=lambda form: (-len(places[form]), form))[:8]
    pairs = [pair for pair in combinations(ordered, 2) if pair[0][:_LEAST_PREFIX] == pair[1][:_LEAST_PREFIX]]
    return max(pairs, key=lambda pair: min(len(places[form]) for form in pair), default=None)


def _item(around: tuple[str, str], name: str, own: str, other: str, language: str) -> Item:
    before, after = around
    after = after[: break_before(after, MOST_AFTER)]
    context = last_words(before.rstrip(), MOST_BEFORE)
    return Item(name, language, context, (f" {own}{after}", f" {other}{after}"))
