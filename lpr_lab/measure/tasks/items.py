"""One question of a task: a context, and what may come after it. Torch-free; no tokenizer decides what is asked."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import regex

from lpr_lab.text.splits import is_unspaced

_WORD_STARTS = regex.compile(r"(?<=\s)\S")


@dataclass(frozen=True)
class Item:
    """A question.

    Attributes:
        id: the same for the same item in every language, where a task is aligned.
        language: ISO 639-1 code.
        context: what is given.
        choices: what may come after it, the right one first; each with the space that divides it from the context.
    """

    id: str
    language: str
    context: str
    choices: tuple[str, ...]


def fingerprint_of_items(items: Sequence[Item]) -> str:
    """Return SHA-256 over ids and texts, by which two sets of items are known to be the same."""
    digest = hashlib.sha256()
    for item in items:
        digest.update("\0".join([item.id, item.context, *item.choices, ""]).encode())
    return digest.hexdigest()


def in_seeded_order(names: Iterable[str], seed: int) -> list[str]:
    """Return names in an order that depends on each of them and the seed alone, the same on every machine.

    >>> in_seeded_order(["a", "b", "c"], 0) == in_seeded_order(["c", "b", "a"], 0)
    True
    """
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())


def one_line(text: str) -> str:
    r"""Return a text without line breaks and repeated spaces.

    >>> one_line("a  b\n c")
    'a b c'
    """
    return " ".join(text.split())


def break_before(text: str, most: int) -> int:
    """Return the last place at or before `most` where a text may be broken off; 0 where there is none.

    That is before a space, or in scripts without spaces between two characters.

    >>> break_before("one two three", 8), break_before("雨停了", 2), break_before("three", 3)
    (7, 2, 0)
    """
    if len(text) <= most:
        return len(text)
    space = text.rfind(" ", 0, most + 1)
    if space > 0:
        return space
    return most if is_unspaced(text[: most + 1]) else 0


def last_words(text: str, most: int) -> str:
    """Return the end of a text, at most so many characters, from where a word begins.

    >>> last_words("one two three", 9), last_words("one", 9)
    ('two three', 'one')
    """
    if len(text) <= most:
        return text
    end = text[-most - 1 :]
    start = _WORD_STARTS.search(end)
    return end[start.start() :] if start and not is_unspaced(end) else end[1:]
