"""Tokenizer fertility per language: tokens per word, character and byte; and letters by script.

A vocabulary made from other languages cuts a text into many small pieces: each costs a forward pass, and a context
holds less. The fairest number is the premium, tokens for the same content against another language (Petrov et al.,
arXiv 2305.15425); it needs translations of one another.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from lpr_lab.text.graphemes import token_bytes
from lpr_lab.text.languages import LANGUAGES
from lpr_lab.text.round_trip import measure_lost_text
from lpr_lab.text.splits import UNSPACED_LETTER, WORDS
from lpr_lab.text.unicode import encode_text

OTHER = "Other"
_SCRIPTS = (*sorted({language.script for language in LANGUAGES.values()} - {"Japanese"}), "Hiragana", "Katakana")
_LETTERS_OF = {script: regex.compile(rf"(?=\p{{L}})\p{{Script={script}}}") for script in _SCRIPTS}
_LETTERS = regex.compile(r"\p{L}")


@dataclass(frozen=True)
class Fertility:
    """What some texts become in a vocabulary.

    Attributes:
        num_words: runs of letters and digits; None in scripts that do not put spaces between words.
        num_characters: code points.
        num_bytes: in UTF-8.
        num_tokens: without special tokens.
        num_inside: tokens that begin in the middle of a character.
        num_unknown: tokens that stand for text the vocabulary cannot spell.
        lost_bytes: of the text, those that the tokens do not spell (`round_trip`).
    """

    num_words: int | None
    num_characters: int
    num_bytes: int
    num_tokens: int
    num_inside: int
    num_unknown: int
    lost_bytes: int

    @property
    def tokens_per_word(self) -> float | None:
        """Fertility in the usual sense; None where words are not divided by spaces."""
        return self.num_tokens / self.num_words if self.num_words else None

    @property
    def tokens_per_character(self) -> float:
        """Above 1, a character takes more than one token."""
        return self.num_tokens / self.num_characters

    @property
    def tokens_per_byte(self) -> float:
        """At most 1 in a vocabulary that can spell every byte."""
        return self.num_tokens / self.num_bytes

    @property
    def lost_share(self) -> float:
        """Share of the text's bytes that its tokens do not give back; 0 in a vocabulary that can spell every byte."""
        return self.lost_bytes / self.num_bytes

    @property
    def inside_share(self) -> float:
        """Share of tokens that begin in the middle of a character."""
        return self.num_inside / self.num_tokens


def measure_fertility(tokenizer: Any, texts: Sequence[str], ids: Sequence[Sequence[int]] | None = None) -> Fertility:
    """Count words, characters, bytes and tokens of some texts in one language.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        texts: at least one that is not empty.
        ids: their tokens without special ones, where they are known already.
    """
    num_bytes = sum(len(encode_text(text)) for text in texts)
    rows: Sequence[Any] = ids if ids is not None else tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    pieces = [piece for text, row in zip(texts, rows, strict=True) for piece in token_bytes(tokenizer, row, text)]
    joined = "\n".join(texts)
    spaced = 2 * len(UNSPACED_LETTER.findall(joined)) < len(_LETTERS.findall(joined))
    unknown = tokenizer.unk_token_id
    return Fertility(
        num_words=sum(len(WORDS.findall(text)) for text in texts) if spaced else None,
        num_characters=sum(map(len, texts)),
        num_bytes=num_bytes,
        num_tokens=len(pieces),
        num_inside=sum(1 for piece in pieces if piece and 0x80 <= piece[0] < 0xC0),
        num_unknown=sum(row.count(unknown) for row in rows) if unknown is not None else 0,
        lost_bytes=sum(measure_lost_text(tokenizer, texts).lost_bytes),
    )


def premium(num_tokens: Mapping[str, int], reference: Mapping[str, int]) -> float | None:
    """Return tokens for the same documents against a reference language, 1 for as many; None without shared documents.

    Args:
        num_tokens: document id -> tokens in this language.
        reference: document id -> tokens in the reference language; translations share their id.

    >>> premium({"a": 30, "b": 50, "c": 9}, {"a": 10, "b": 30})
    2.0
    """
    shared = num_tokens.keys() & reference.keys()
    there = sum(reference[key] for key in shared)
    return sum(num_tokens[key] for key in shared) / there if there else None


def script_mix(texts: Sequence[str]) -> dict[str, float]:
    """Return the share of letters in each Unicode script, largest first; empty without letters.

    >>> script_mix(["Καλημέρα, world"])
    {'Greek': 0.6153846153846154, 'Latin': 0.38461538461538464}
    """
    joined = "\n".join(texts)
    total = len(_LETTERS.findall(joined))
    counts = Counter({script: len(pattern.findall(joined)) for script, pattern in _LETTERS_OF.items()})
    counts[OTHER] = total - counts.total()
    return {script: count / total for script, count in counts.most_common() if count}
