"""Slices of a test set by rule: which tokens are digits, names, punctuation, another script, first, or rare.

Each rule is data: a name, what people call it, the rule in words, and the function that marks tokens. Rules look at the
text alone, so a slice is the same whichever model reads it. A token may be in several slices; `rest` has those in none.
A rule that a script or a language cannot have (names, without capitals) marks nothing and says so.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import regex

from lpr_lab.text.language_filter import letters_of
from lpr_lab.text.languages import Language

FIRST_TOKENS = 16
ALL, REST = "all", "rest"
WITH_CAPITALS = ("Latin", "Greek", "Cyrillic", "Armenian")
"""Scripts in which a capital letter tells a name from another word."""
ALL_NOUNS_CAPITAL = ("de", "ltz_Latn")
"""Languages in which it does not, because every noun has one."""

_DIGIT = regex.compile(r"\d")  # of any script
_MARK = regex.compile(r"[\p{P}\p{S}]")
_WORDLIKE = regex.compile(r"[\p{L}\p{M}\p{N}]")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}'’]+")
_NAME = regex.compile(r"\p{Lu}\p{M}*['’]?\p{L}[\p{L}\p{M}\p{N}'’]*")
_NEW_SENTENCE = regex.compile(r"[\p{Sentence_Terminal}\n\r:;…·•«»“”„‟\"‹›‘–—―]")
_ANY_LETTER = regex.compile(r"(?=\p{L})[^\p{Script=Common}\p{Script=Inherited}]")


@dataclass(frozen=True)
class TokenizedText:
    """One document as a tokenizer cut it.

    Attributes:
        text: the document.
        ids: its T tokens in the vocabulary.
        pieces: the UTF-8 bytes of each; joined they are the text. None counts as none.
    """

    text: str
    ids: Sequence[int]
    pieces: Sequence[bytes | None]
    _ends: np.ndarray = field(init=False, repr=False, compare=False)
    _bytes_of_characters: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(len(piece or b"") for piece in self.pieces)])
        sizes = np.array([len(character.encode()) for character in self.text], dtype=np.int64)
        object.__setattr__(self, "_ends", ends)
        object.__setattr__(self, "_bytes_of_characters", sizes)

    @property
    def num_bytes(self) -> np.ndarray:
        """UTF-8 bytes of each token, int [T]."""
        return np.diff(self._ends)

    def touching(self, characters: np.ndarray) -> np.ndarray:
        """Return which tokens have a byte of one of these characters, bool [T].

        Args:
            characters: bool [characters].
        """
        marked = np.concatenate([[0], np.cumsum(np.repeat(characters, self._bytes_of_characters))])
        ends = np.minimum(self._ends, len(marked) - 1)
        return marked[ends[1:]] > marked[ends[:-1]]

    def matching(self, pattern: "regex.Pattern[str]") -> np.ndarray:
        """Return which tokens have a byte of a match, bool [T]."""
        return self.touching(self._covered(match.span() for match in pattern.finditer(self.text)))

    def names(self) -> np.ndarray:
        """Return which tokens are of a capitalised word inside a sentence, bool [T]."""
        found, before = [], 0
        for word in _WORD.finditer(self.text):
            gap = self.text[before : word.start()]
            if before and not _NEW_SENTENCE.search(gap) and _NAME.fullmatch(word[0]):
                found.append(word.span())
            before = word.end()
        return self.touching(self._covered(found))

    def _covered(self, spans: Iterable[tuple[int, int]]) -> np.ndarray:
        covered = np.zeros(len(self.text), dtype=bool)
        for start, end in spans:
            covered[start:end] = True
        return covered


@dataclass(frozen=True)
class Reading:
    """What a rule is given: one document, its language, and how often each token is in the whole test set."""

    tokens: TokenizedText
    language: Language
    counts: Counter[int]


@dataclass(frozen=True)
class Slice:
    """Tokens that a rule picks out.

    Attributes:
        name: in tables and addresses.
        title: for people.
        rule: in words, with what it misses.
        marks: which tokens of a document it picks, bool [T]; None for `all` and `rest`, which need no rule.
        absent: why there is no such rule in a language, in a sentence; empty where there is one.
    """

    name: str
    title: str
    rule: str
    marks: Callable[[Reading], np.ndarray] | None = None
    absent: Callable[[Language], str] = lambda language: ""


def _no_names(language: Language) -> str:
    if language.script not in WITH_CAPITALS:
        return f"{language.name} has no capital letters, so this rule cannot tell names from other words."
    if language.code in ALL_NOUNS_CAPITAL:
        return f"{language.name} writes every noun with a capital letter, so this rule cannot tell names from them."
    return ""


def _marked_digits(reading: Reading) -> np.ndarray:
    return reading.tokens.matching(_DIGIT)


def _marked_names(reading: Reading) -> np.ndarray:
    return reading.tokens.names()


def _marked_punctuation(reading: Reading) -> np.ndarray:
    return reading.tokens.matching(_MARK) & ~reading.tokens.matching(_WORDLIKE)


def _marked_other_script(reading: Reading) -> np.ndarray:
    own, text = letters_of(reading.language.script), reading.tokens.text
    other = [bool(_ANY_LETTER.match(one)) and not own.match(one) for one in text]
    return reading.tokens.touching(np.array(other, dtype=bool))


def _marked_first(reading: Reading) -> np.ndarray:
    return np.arange(len(reading.tokens.ids)) < FIRST_TOKENS


def _marked_rare(reading: Reading) -> np.ndarray:
    return np.array([reading.counts[token] == 1 for token in reading.tokens.ids], dtype=bool)


SLICES = (
    Slice("digits", "Digits", "Tokens with a decimal digit of any script.", _marked_digits),
    Slice(
        "names",
        "Names",
        "Tokens of words that begin with a capital letter inside a sentence. Names at the beginning of one are missed, "
        "and other words that are written so are counted.",
        _marked_names,
        _no_names,
    ),
    Slice(
        "punctuation",
        "Punctuation",
        "Tokens with punctuation or symbols and without a letter or digit.",
        _marked_punctuation,
    ),
    Slice(
        "other_script",
        "Code-switched spans",
        "Tokens with a letter of another script than the language's. Another language in the same script is not seen.",
        _marked_other_script,
    ),
    Slice("first", f"First {FIRST_TOKENS} tokens", "The tokens at the beginning of each document.", _marked_first),
    Slice("rare", "Rare tokens", "Entries of the vocabulary that are once in the whole test set.", _marked_rare),
)
"""The rules, in the order in which they are shown."""

EVERYTHING = Slice(ALL, "All tokens", "All of the test set.")
REMAINDER = Slice(REST, "Everything else", "Tokens in none of these slices.")
BY_NAME = {one.name: one for one in (EVERYTHING, *SLICES, REMAINDER)}


def slices_of(documents: Sequence[TokenizedText], language: Language) -> dict[str, list[np.ndarray]]:
    """Return which tokens of each document are in each slice, by its name: bool [T] for each document.

    Args:
        documents: a whole test set, since rarity is counted over all of it.
        language: theirs.

    >>> from lpr_lab.text.languages import get_language
    >>> words = ["We", " met", " Maria", " in", " ", "1", "9", "8", "4", "."]
    >>> text = TokenizedText("".join(words), list(range(10)), [word.encode() for word in words])
    >>> found = slices_of([text], get_language("en"))
    >>> {name: [word for word, mark in zip(words, found[name][0]) if mark] for name in ("names", "digits")}
    {'names': [' Maria'], 'digits': ['1', '9', '8', '4']}
    """
    counts = Counter(token for document in documents for token in document.ids)
    readings = [Reading(document, language, counts) for document in documents]
    found = {ALL: [np.ones(len(document.ids), dtype=bool) for document in documents]}
    for one in SLICES:
        assert one.marks is not None
        if one.absent(language):
            found[one.name] = [np.zeros(len(document.ids), dtype=bool) for document in documents]
        else:
            found[one.name] = [one.marks(reading) for reading in readings]
    by_rule = [found[one.name] for one in SLICES]
    found[REST] = [~np.any(marks, axis=0) for marks in zip(*by_rule, strict=True)]
    return found
