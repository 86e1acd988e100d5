"""Which language a single token is of, as far as that can be said: by its script, and by who uses it.

A script says it all where only one of the languages in question is written so. Languages that share a script are told
apart by how often the text of each uses the token; a token that several use, or that none was seen to use, is of no
language here, only of a script.

No torch here: the dashboard reads this.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import regex

from lpr_lab.text.corpus import Corpus
from lpr_lab.text.draw import first_documents
from lpr_lab.text.languages import LANGUAGES, get_languages

MIN_USES = 5
"""Occurrences of a token in all counted text together, below which its use says nothing."""
MIN_SHARE = 0.8
"""Of a token's uses per counted token, the part that one language has to have."""
COUNTED_TOKENS = 50_000
"""Of every language."""
_CHARACTERS_PER_TOKEN = 5
"""Of text that is tokenized, to have about as many tokens as are counted."""
_PARTS = {"Japanese": ("Han", "Hiragana", "Katakana")}


@dataclass(frozen=True)
class TokenLanguages:
    """What is known of the languages in question: their scripts, and which tokens each uses.

    Attributes:
        languages: codes.
        counted: tokens that were counted of each, the same order; empty where there was no text.
        uses: token id to how often each language uses it, the same order.
    """

    languages: tuple[str, ...] = ()
    counted: tuple[int, ...] = ()
    uses: Mapping[int, Sequence[int]] = field(default_factory=dict, repr=False)

    def of(self, token_id: int, piece: bytes | None) -> str:
        """Return the code of the one language that a token is of, or an empty text.

        Args:
            token_id: its number in the vocabulary.
            piece: the bytes it stands for; None for a special token.
        """
        script = script_of_token(piece)
        if not script:
            return ""
        writing = [code for code in self.languages if script in _scripts_of(code)]
        if len(writing) == 1:
            return writing[0]
        uses = self.uses.get(token_id)
        if uses is None or sum(uses) < MIN_USES:
            return ""
        rates = np.array(uses) / np.maximum(self.counted, 1)
        most = int(rates.argmax())
        code = self.languages[most]
        return code if code in writing and rates[most] >= MIN_SHARE * rates.sum() else ""


def count_token_languages(
    tokenizer: Any, corpus: Corpus | None, languages: Iterable[str], *, tokens: int = COUNTED_TOKENS
) -> TokenLanguages:
    """Count which tokens the text of each language uses: of training where there is any, else of the other splits.

    Args:
        tokenizer: the model's.
        corpus: with text in some of the languages; None for scripts alone.
        languages: codes.
        tokens: most that are counted of each language.

    Raises:
        UsageError: an unknown language, or one that the corpus does not have.
    """
    codes = tuple(language.code for language in get_languages(languages))
    if corpus is None:
        return TokenLanguages(codes)
    found = [_ids(tokenizer, corpus, code, tokens) for code in codes]
    uses: dict[int, list[int]] = {}
    for place, ids in enumerate(found):
        for token_id, count in zip(*np.unique(ids, return_counts=True), strict=True):
            uses.setdefault(int(token_id), [0] * len(codes))[place] = int(count)
    return TokenLanguages(codes, tuple(map(len, found)), uses)


def _ids(tokenizer: Any, corpus: Corpus, language: str, tokens: int) -> np.ndarray:
    """Return the first ids, int [at most `tokens`], of the first split in which a language has text."""
    for split in corpus.splits:
        documents = first_documents(corpus.documents(split, language), tokens * _CHARACTERS_PER_TOKEN)
        if documents:
            rows = tokenizer([document.text for document in documents], add_special_tokens=False)["input_ids"]
            return np.concatenate([np.array(row, np.int64) for row in rows])[:tokens]
    return np.zeros(0, np.int64)


def script_of_token(piece: bytes | None) -> str:
    """Return the script of a token's letters such as `Greek`; empty without a whole letter, or with several scripts.

    >>> script_of_token(" καλ".encode()), script_of_token(b", 14"), script_of_token("κ".encode()[:1])
    ('Greek', '', '')
    """
    found = {match.lastgroup for match in _letters().finditer((piece or b"").decode("utf-8", errors="ignore"))}
    return found.pop() or "" if len(found) == 1 else ""


@cache
def _scripts_of(code: str) -> tuple[str, ...]:
    (language,) = get_languages([code])
    return _PARTS.get(language.script, (language.script,))


@cache
def _letters() -> regex.Pattern[str]:
    """Return a pattern that matches one letter, in a group that is named by its script."""
    scripts = dict.fromkeys(part for code in LANGUAGES for part in _scripts_of(code))
    groups = (rf"(?P<{name}>[\p{{L}}\p{{M}}&&\p{{Script={name}}}])" for name in scripts)
    return regex.compile("|".join(groups), regex.V1)
