"""Tells languages apart by script and letter triples, counted from the texts at hand; nothing is fetched.

`LanguageFilter` finds English that was left untranslated, `LanguageGuess` tells which of several languages a text has.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import regex

from lpr_lab.text.languages import Language, get_language
from lpr_lab.text.splits import words_of

_SCRIPTS = {"Japanese": r"[\p{Han}\p{Hiragana}\p{Katakana}]"}
_LETTERS = regex.compile(r"\p{L}")
_MODEL_CHARACTERS = 400_000


class LanguageFilter:
    """Tells the text of one language from English that was left untranslated among it.

    Three questions per block: is it the same as its English source, are most of its letters of another script, and, for
    languages in Latin script, do its letter triples look more like the English source than like the rest of this text.
    The last two models are counted from the texts at hand; nothing is fetched.
    """

    MIN_SCRIPT_SHARE = 0.3
    """Low, because technical prose is full of Latin names; a sentence left in English has a share near 0."""

    def __init__(self, language: str, texts: Iterable[str], english: Iterable[str]):
        """Learn from the blocks of a language and from English ones of the same kind."""
        self.language = get_language(language)
        self._log_odds: dict[str, float] | None = None
        if self.language.script == "Latin" and self.language.code != "en":
            english = list(english)
            untranslated = set(english)
            own = [text for text in texts if text not in untranslated]
            self._log_odds = _log_odds(_count_triples(own), _count_triples(english))

    def reason_to_drop(self, text: str, english: str | None = None) -> str | None:
        """Return `same_as_english`, `wrong_script` or `looks_english`, or None for a text to keep.

        Args:
            text: one block.
            english: the block that it translates, when that is known.
        """
        if self.language.code != "en" and text == english:
            return "same_as_english"
        if script_share(text, self.language) < self.MIN_SCRIPT_SHARE:
            return "wrong_script"
        if self._log_odds is not None and sum(self._log_odds.get(triple, 0.0) for triple in _triples(text)) < 0:
            return "looks_english"
        return None


class LanguageGuess:
    """Tells which of some languages a text is in."""

    def __init__(self, texts: Mapping[str, Sequence[str]]):
        """Learn from texts by language."""
        self._counts = {code: _count_triples(own) for code, own in texts.items()}

    def guess(self, text: str) -> str | None:
        """Return the language whose letter triples a text has, or None for a text without a word.

        >>> LanguageGuess({"en": ["the ferry leaves at seven"], "es": ["el niño compró tres libros"]}).guess("the tree")
        'en'
        """
        if not words_of(text):
            return None
        found = list(_triples(text))
        return max(self._counts, key=lambda code: _likelihood(found, self._counts[code]))


def _likelihood(found: Sequence[str], counts: Counter[str]) -> float:
    """Return the log-likelihood of some triples, with add-one smoothing."""
    total = counts.total() + len(counts) + 1
    return sum(math.log((counts[triple] + 1) / total) for triple in found)


def script_share(text: str, language: Language) -> float:
    """Return the share of a text's letters that belong to its language's script; 0 for a text without letters."""
    letters = len(_LETTERS.findall(text))
    return len(letters_of(language.script).findall(text)) / letters if letters else 0.0


@cache
def letters_of(script: str) -> regex.Pattern[str]:
    """Return the pattern of one letter of a script, by the names of `languages`."""
    letters = _SCRIPTS.get(script, rf"\p{{Script={script}}}")
    return regex.compile(rf"(?=\p{{L}}){letters}")


def _count_triples(texts: Sequence[str]) -> Counter[str]:
    """Count letter triples in about `_MODEL_CHARACTERS` of text, taken evenly from all of it."""
    every = max(1, sum(map(len, texts)) // _MODEL_CHARACTERS)
    counts: Counter[str] = Counter()
    for text in texts[::every]:
        counts.update(_triples(text))
    return counts


def _triples(text: str) -> Iterable[str]:
    line = " " + " ".join(words_of(text.lower())) + " "
    return map("".join, zip(line, line[1:], line[2:], strict=False))


def _log_odds(own: Counter[str], english: Counter[str]) -> dict[str, float]:
    """Return triple -> log odds for `own` against `english`, with add-one smoothing; 0 for a triple in neither."""
    num_own = own.total() + len(own) + 1
    num_english = english.total() + len(english) + 1
    return {
        triple: math.log((own[triple] + 1) / num_own) - math.log((english[triple] + 1) / num_english)
        for triple in own.keys() | english.keys()
    }
