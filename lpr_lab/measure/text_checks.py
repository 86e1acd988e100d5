"""Automatic checks of generated text: wrong script, and repetition."""

import regex

from lpr_lab.text.languages import find_language

_SCRIPTS = {"Japanese": ("Han", "Hiragana", "Katakana"), "Korean": ("Hangul", "Han")}
_MIN_LETTERS = 8
_WORDS, _CLUSTERS, _TIMES = 3, 8, 3


def script_of(language: str) -> str | None:
    """Return the name of a language's script, or None for a language we do not know."""
    found = find_language(language)
    return found.script if found is not None else None


def foreign_share(text: str, language: str) -> float | None:
    """Return the share of letters that are not of the language's script.

    Args:
        text: digits, spaces, signs and marks shared between scripts do not count.
        language: ISO 639-1 code.

    Returns:
        In [0, 1]; None for an unknown language or fewer than eight letters, of which a share would say nothing.

    >>> foreign_share("ένα small χωριό", "el")
    0.384...
    """
    script = script_of(language)
    letters = regex.findall(r"[\p{L}\p{M}--[\p{Script=Common}\p{Script=Inherited}]]", text, regex.V1)
    if script is None or len(letters) < _MIN_LETTERS:
        return None
    own = "".join(rf"\p{{Script={name}}}" for name in _SCRIPTS.get(script, (script,)))
    return sum(1 for letter in letters if not regex.match(f"[{own}]", letter)) / len(letters)


def repetition(text: str) -> tuple[str, int] | None:
    """Return (what is repeated, how often) when a text goes round in circles, else None.

    That is one to three words that follow themselves, or three words in a row (eight characters where words are not
    divided) that come again and again; at least three times.

    >>> repetition("a small house and a small house and a small house and")
    ('a small house', 3)
    """
    words = text.split()
    characters = regex.findall(r"\X", text)
    divided = len(words) > len(characters) / 15
    units, size, glue = (words, _WORDS, " ") if divided else (characters, _CLUSTERS, "")
    found = [_most_frequent(units, size)]
    found += [_longest_loop(words, length) for length in range(1, _WORDS + 1)] if divided else []
    gram, times = max(found, key=lambda one: one[1])
    return (glue.join(gram), times) if times >= _TIMES else None


def _most_frequent(units: list[str], size: int) -> tuple[tuple[str, ...], int]:
    """Return the sequence of `size` units that occurs most often without overlapping itself."""
    counts: dict[tuple[str, ...], int] = {}
    last: dict[tuple[str, ...], int] = {}
    for start in range(len(units) - size + 1):
        gram = tuple(units[start : start + size])
        if start - last.get(gram, -size) >= size:
            counts[gram] = counts.get(gram, 0) + 1
            last[gram] = start
    best = max(counts, key=lambda gram: counts[gram], default=())
    return best, counts.get(best, 0)


def _longest_loop(units: list[str], size: int) -> tuple[tuple[str, ...], int]:
    """Return the sequence of `size` units that follows itself most often."""
    best, most = (), 0
    for start in range(len(units)):
        gram, times = units[start : start + size], 1
        while gram == units[start + times * size : start + (times + 1) * size]:
            times += 1
        if times > most:
            best, most = tuple(gram), times
    return best, most
