"""Which language a single token is of, as far as that can be said: by its script, and by who uses it.

A script says it all where only one of the languages in question is written so. Languages that share a script are told
apart by how often the text of each uses the token; a token that several use, or that none was seen to use, is of no
language here, only of a script.

No torch here: the dashboard reads this. `count_tokens` counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import regex

from lpr_lab.text.languages import LANGUAGES, get_languages

MIN_USES = 5
"""Occurrences of a token in all counted text together, below which its use says nothing."""
MIN_SHARE = 0.8
"""Of a token's uses per counted token, the part that one language has to have."""
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


def script_of_token(piece: bytes | None) -> str:
    """Return the script of a token's letters such as `Greek`; empty without a whole letter, or with several scripts.

    >>> script_of_token(" καλ".encode()), script_of_token(b", 14"), script_of_token("κ".encode()[:1])
    ('Greek', '', '')
    """
    found = {match.lastgroup for match in _letters().finditer((piece or b"").decode("utf-8", errors="ignore"))}
    return found.pop() or "" if len(found) == 1 else ""


def kind_without_script(piece: bytes | None) -> str:
    """Return in words what a token is of which `script_of_token` says nothing.

    >>> kind_without_script(b", 14"), kind_without_script("κ".encode()[:1]), kind_without_script("aα".encode())
    ('sign or space', 'part of a character', 'letters of several scripts')
    """
    if piece is None:
        return "special token"
    text = piece.decode("utf-8", errors="ignore")
    if regex.search(r"\p{L}", text):
        return "letters of several scripts" if _letters().search(text) else "letters of another script"
    return "sign or space" if text.encode() == piece else "part of a character"


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
