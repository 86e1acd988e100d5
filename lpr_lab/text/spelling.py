"""The bytes that each vocabulary entry spells, without the markers of its tokenizer (`Ġ`, `▁`, `</w>`).

Vocabularies write spaces, bytes and word ends into their entries, each kind in its own way: `Ġthe` and `ÅĤ`
(byte-level), `▁the` and `<0xC5>` (SentencePiece), `##ing` (WordPiece), `the</w>` (BPE over characters). The decoder of
a tokenizer says which. Words that were added to a vocabulary later follow none of this: their name is their text.
"""

import functools
import json
import re
from typing import Any
from weakref import WeakKeyDictionary

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARK = "▁"
_CLOSED_UP = (".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re")
"""What the decoder of WordPiece writes without a space before it, if it cleans up."""


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """Return the printable stand-in of each byte in byte-level vocabularies, as character -> byte.

    Printable Latin-1 characters stand for themselves; the other 68 bytes take the code points from 256 on, in order.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


class Spelling:
    """Turns the names of one vocabulary's entries into the bytes they stand for.

    A space between words that is written into no entry is put where the decoder would put it: before a whole word of
    WordPiece, and before every word where entries are words.
    """

    def __init__(self, tokenizer: Any):
        """Read the marks off the tokenizer's decoder; where it has none, off what would have written them."""
        backend = tokenizer.backend_tokenizer
        steps = _steps(backend.decoder) or _implied_steps(backend)
        kinds = {step["type"] for step in steps}
        self._by_bytes = "ByteLevel" in kinds
        self._by_fallback = "ByteFallback" in kinds
        self._replaced = [pair for step in steps if (pair := _replacement(step)) is not None]
        self._suffix = next((step["suffix"] for step in steps if step["type"] == "BPEDecoder"), "")
        self._prefix = next((step["prefix"] for step in steps if step["type"] == "WordPiece"), "")
        self._closes_up = any(step.get("cleanup") for step in steps)
        self._is_word = "Word" in kinds
        added = tokenizer.added_tokens_decoder
        self._added = {
            id_: token.content for id_, token in added.items() if not self._is_own(backend, id_, token.content)
        }

    @property
    def unknown(self) -> bytes:
        """What an unknown token spells: nothing but the space before it, where words are set apart."""
        return self._as_word("").encode()

    def bytes_of(self, token_id: int, name: str) -> bytes:
        """Return the UTF-8 bytes of an entry, or the lone bytes that it is."""
        if token_id in self._added:
            return (self._as_word(self._added[token_id]) + (" " if self._suffix else "")).encode()
        if self._by_bytes and (found := _from_alphabet(name)) is not None:
            return found
        byte = _BYTE_TOKEN.fullmatch(name) if self._by_fallback else None
        if byte is not None:
            return bytes([int(byte.group(1), 16)])
        for mark, text in self._replaced:
            name = name.replace(mark, text)
        if self._suffix and name.endswith(self._suffix):
            return (name.removesuffix(self._suffix) + " ").encode()
        if self._prefix and name.startswith(self._prefix):
            return name.removeprefix(self._prefix).encode()
        return (name if self._closes_up and name.startswith(_CLOSED_UP) else self._as_word(name)).encode()

    def _as_word(self, text: str) -> str:
        return f" {text}" if self._prefix or self._is_word else text

    def _is_own(self, backend: Any, token_id: int, content: str) -> bool:
        """Tell whether an added token is an entry that the vocabulary makes by itself, and so follows its marks."""
        if not self._by_bytes or backend.model.token_to_id(content) != token_id:
            return False
        try:
            (_from_alphabet(content) or b"\xff").decode()
        except UnicodeDecodeError:
            return False
        return [token.id for token in backend.model.tokenize(content)] == [token_id]


_KNOWN: "WeakKeyDictionary[Any, tuple[int, Spelling]]" = WeakKeyDictionary()


def spelling_of(tokenizer: Any) -> Spelling:
    """Return the spelling of a tokenizer's vocabulary; read anew when tokens were added."""
    size = len(tokenizer)
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != size:
        known = _KNOWN[tokenizer] = size, Spelling(tokenizer)
    return known[1]


def _from_alphabet(name: str) -> bytes | None:
    alphabet = byte_alphabet()
    return (
        bytes(alphabet[character] for character in name) if all(character in alphabet for character in name) else None
    )


def _steps(part: Any) -> list[dict[str, Any]]:
    """Return the steps of a decoder, normaliser or pre-tokenizer, each with its type."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())
    nested = state.get("decoders") or state.get("pretokenizers") or state.get("normalizers")
    return nested if nested is not None else [state]


def _implied_steps(backend: Any) -> list[dict[str, Any]]:
    """Return what a decoder would have to undo."""
    before = [*_steps(backend.normalizer), *_steps(backend.pre_tokenizer)]
    kinds = {step["type"] for step in before}
    if "ByteLevel" in kinds:
        return [{"type": "ByteLevel"}]
    if suffix := getattr(backend.model, "end_of_word_suffix", None):
        return [{"type": "BPEDecoder", "suffix": suffix}]
    if prefix := getattr(backend.model, "continuing_subword_prefix", None):
        return [{"type": "WordPiece", "prefix": prefix}]
    marks = [{"type": "Metaspace", **step} for step in before if step["type"] == "Metaspace"]
    if marks or any(_replacement(step) == (" ", _SPACE_MARK) for step in before):
        return marks or [{"type": "Metaspace"}]
    return [{"type": "Word"}] if backend.pre_tokenizer is not None else []


def _replacement(step: dict[str, Any]) -> tuple[str, str] | None:
    """Return what a step replaces by what, None for another step."""
    if step["type"] == "Metaspace":
        return step.get("replacement", _SPACE_MARK), " "
    if step["type"] == "Replace" and "String" in step["pattern"]:
        return step["pattern"]["String"], step["content"]
    return None
