"""Measures how much of a text a tokenizer loses.

A vocabulary that spells bytes gives back any text. Others do not: what they do not know becomes one unknown token, or
vanishes, and a normaliser may take away capitals, accents or line ends. A model is then asked to predict less than the
text, and bits per byte of the text flatter it: where every Greek letter is one and the same unknown token, Greek costs
next to nothing. So bytes that the tokens do not spell are counted as lost, and are not counted as predicted.

Canonical forms of Unicode are one text: a vocabulary that reads `é` in two code points as in one loses nothing.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Corpus
from lpr_lab.text.languages import language_name
from lpr_lab.text.spelling import spelling_of
from lpr_lab.text.unicode import encode_text

MAX_LOST = 0.1
"""Share of a text's bytes beyond which numbers would be about another text; they are refused."""

_DOCUMENTS, _CHARACTERS = 32, 2000
"""What is looked at of every language and split before anything is trained."""

_EXAMPLES = 6
_AT_ONCE = 2000


@dataclass(frozen=True)
class LostText:
    """What some texts lose on the way into tokens.

    Attributes:
        num_bytes: UTF-8 bytes of each text.
        lost_bytes: of these, the ones that its tokens do not spell.
        characters: what was lost, by how often.
    """

    num_bytes: tuple[int, ...]
    lost_bytes: tuple[int, ...]
    characters: Counter[str]

    @property
    def share(self) -> float:
        """Lost bytes of all texts as a fraction of their bytes, in [0, 1]."""
        return sum(self.lost_bytes) / max(sum(self.num_bytes), 1)

    @property
    def examples(self) -> str:
        """The characters lost most often, for a message."""
        names = [repr(character) for character, _ in self.characters.most_common(_EXAMPLES)]
        return ", ".join(names) + (", …" if len(self.characters) > _EXAMPLES else "")


def measure_lost_text(tokenizer: Any, texts: Sequence[str]) -> LostText:
    """Tokenise texts as they are packed for a model, and compare with what the tokens spell.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        texts: any.
    """
    characters: Counter[str] = Counter()
    sizes, lost = [], []
    for text in texts:
        sizes.append(len(encode_text(text)))
        found = _lost_characters(tokenizer, text)
        characters.update(found)
        lost.append(min(len(found.encode()), sizes[-1]))
    return LostText(tuple(sizes), tuple(lost), characters)


def refuse_lossy_tokenizer(loss: LostText, what: str) -> None:
    """Refuse a tokenizer that loses more than `MAX_LOST` of some text.

    Args:
        loss: of these texts.
        what: what they are, such as `Greek (heldout)`.

    Raises:
        UsageError: it does; the message has the share and the characters.
    """
    if loss.share > MAX_LOST:
        raise UsageError(
            f"The tokenizer loses {loss.share:.1%} of the bytes of {what} ({loss.examples}), so bits per byte would "
            f"be about another text; at most {MAX_LOST:.0%} may be lost. Choose a base whose vocabulary spells bytes "
            "(byte-level BPE, or SentencePiece with byte fallback)."
        )


def check_corpus(tokenizer: Any, corpus: Corpus) -> dict[tuple[str, str], LostText]:
    """Look at a sample of every language and split before anything is trained.

    Returns:
        (language, split) -> what is lost, where something is.

    Raises:
        UsageError: see `refuse_lossy_tokenizer`.
    """
    found: dict[tuple[str, str], LostText] = {}
    for language in corpus.languages:
        for split in corpus.splits:
            documents = corpus.documents(split, language)
            step = max(1, len(documents) // _DOCUMENTS)
            loss = measure_lost_text(tokenizer, [one.text[:_CHARACTERS] for one in documents[::step][:_DOCUMENTS]])
            refuse_lossy_tokenizer(loss, f"{language_name(language)} ({split})")
            if loss.share:
                found[language, split] = loss
    return found


def _lost_characters(tokenizer: Any, text: str) -> str:
    """Return what the tokens of a text do not spell, in order.

    By what the tokens spell, not by the offsets of the tokenizer, which are wrong after characters that vanished.
    """
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    spelling = spelling_of(tokenizer)
    unknown = tokenizer.unk_token_id
    names = tokenizer.convert_ids_to_tokens(ids)
    pieces = [
        spelling.unknown if id_ == unknown else spelling.bytes_of(id_, name)
        for id_, name in zip(ids, names, strict=True)
    ]
    wanted = unicodedata.normalize("NFC", text)
    spelled = unicodedata.normalize("NFC", b"".join(pieces).decode("utf-8", "replace"))
    if spelled.strip(" ") == wanted.strip(" "):
        return ""
    if len(text) > _AT_ONCE:  # to compare them costs the square of their length
        return "".join(_lost_characters(tokenizer, part) for part in _parts(text))
    return _missing(wanted, spelled)


def _parts(text: str) -> list[str]:
    """Cut a text into parts, where there is white space if possible."""
    parts = []
    while text:
        spaces = [place for place, sign in enumerate(text[:_AT_ONCE], start=1) if sign.isspace()]
        size = spaces[-1] if spaces and len(text) > _AT_ONCE else _AT_ONCE
        parts.append(text[:size])
        text = text[size:]
    return parts


def _missing(text: str, spelled: str) -> str:
    """Return the characters of `text` outside the longest sequence of characters that it shares with `spelled`.

    The bit-vector algorithm of Hyyrö ("Bit-parallel LCS-length computation revisited", 2004), a row per character of
    `spelled`: a bit of a row is 0 where one more character of `text` lengthens what is shared so far.
    """
    places: dict[str, int] = {}
    for place, character in enumerate(text):
        places[character] = places.get(character, 0) | 1 << place
    every = (1 << len(text)) - 1
    rows = [every]
    for character in spelled:
        before = rows[-1]
        matched = before & places.get(character, 0)
        rows.append(((before + matched) | (before - matched)) & every)
    row, place = len(spelled), len(text)
    lost = []
    while place > 0:
        bit = 1 << (place - 1)
        if row == 0 or rows[row] & bit:
            lost.append(text[place - 1])
            place -= 1
        elif rows[row - 1] & bit:
            place -= 1  # shared
            row -= 1
        else:
            row -= 1
    return "".join(reversed(lost))
