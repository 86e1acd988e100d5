"""Cipher languages: a language written with other letters, so that how much two languages share is known exactly.

A cipher keeps a share of the letters and replaces each of the others by another one, the same everywhere. Nothing of
the text is lost: whoever knows the letters reads it, so its entropy is that of the source, and what a model needs for
the source is what it can hope to need for the cipher. Codes are those that ISO 639 leaves to private use, `qaa` to
`qtz`, in Latin script.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Document
from lpr_lab.text.languages import CIPHER_NAMES

LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""What a cipher maps onto itself; other letters, digits and signs stay."""


@dataclass(frozen=True, kw_only=True)
class Cipher:
    """One cipher language."""

    source: str
    """The language that is enciphered, ISO 639-1."""
    kept: float
    """Share of the letters that stay as they are: 1 is the source itself."""
    mirrored: bool = False
    """Whether the words of a paragraph come in reverse order."""
    seed: int = 0
    """Of which letters are kept and what the others become."""


CIPHERS: Mapping[str, Cipher] = {
    "qaa_Latn": Cipher(source="en", kept=0.0),
    "qab_Latn": Cipher(source="en", kept=0.25),
    "qac_Latn": Cipher(source="en", kept=0.5),
    "qad_Latn": Cipher(source="en", kept=0.75),
    "qae_Latn": Cipher(source="en", kept=1.0, mirrored=True),
    "qaf_Latn": Cipher(source="es", kept=0.0, seed=1),
}
"""Code of a cipher language to what it is; `text.languages.CIPHER_NAMES` has their names."""
assert CIPHERS.keys() == CIPHER_NAMES.keys()


def letter_map(kept: float, seed: int = 0) -> dict[int, str]:
    """Return which letter each letter becomes, for `str.translate`: a bijection, capitals as small letters.

    Args:
        kept: share of the letters that stay. Of the others none does, which takes at least two of them.
        seed: of which ones.

    Raises:
        UsageError: a share that is none.

    >>> "a b".translate(letter_map(1.0)), sum(chr(a) != b for a, b in letter_map(0.5).items()) // 2
    ('a b', 13)
    """
    if not 0 <= kept <= 1:
        raise UsageError(f"A cipher that keeps {kept} of its letters is none; expected 0 to 1.")
    order = [LETTERS[index] for index in np.random.default_rng(seed).permutation(len(LETTERS))]
    moved = order[round(kept * len(LETTERS)) :]
    if len(moved) == 1:
        moved = []
    found = {letter: letter for letter in LETTERS} | dict(zip(moved, moved[1:] + moved[:1], strict=True))
    return {ord(a): b for a, b in found.items()} | {ord(a.upper()): b.upper() for a, b in found.items()}


def enciphered(document: Document, code: str) -> Document:
    """Return a document of a cipher's source language in the cipher language of this code."""
    cipher = CIPHERS[code]
    text = document.text
    if cipher.mirrored:
        text = "\n".join(" ".join(reversed(line.split(" "))) for line in text.split("\n"))
    return replace(document, language=code, text=text.translate(letter_map(cipher.kept, cipher.seed)))
