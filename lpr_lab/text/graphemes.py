"""From tokens to characters: the bytes of each token, and the grapheme clusters it takes part in.

A token of a byte-level vocabulary may end in the middle of a character, and a character that a reader sees may be made
of several code points (a Bengali consonant with its vowel sign, a family emoji). Decoding tokens one at a time turns
such pieces into `�`. Here the bytes of every token are recovered exactly, joined, decoded once, cut into grapheme
clusters, and every cluster remembers which tokens own a byte of it.

Two invariants, tested with generated text: the bytes joined are the text in UTF-8; the clusters joined are the text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import regex

from lpr_lab.errors import UsageError
from lpr_lab.text.spelling import spelling_of
from lpr_lab.text.unicode import encode_text


def token_bytes(tokenizer: Any, token_ids: Sequence[int], text: str | None = None) -> list[bytes | None]:
    """Return the UTF-8 bytes that each token stands for; None for special tokens.

    Args:
        tokenizer: a fast Hugging Face tokenizer, of any of the kinds that `spelling` knows.
        token_ids: the ids, length T.
        text: what was tokenized. With it the bytes joined are exactly `text.encode()`, also where the tokenizer puts a
            space in front or normalises characters; without it they are what the vocabulary says.

    Raises:
        UsageError: the ids are not a tokenization of `text`, or `text` holds half of a surrogate pair.
    """
    ids = [int(token_id) for token_id in token_ids]
    special = set(tokenizer.all_special_ids)
    spelling = spelling_of(tokenizer)
    names = tokenizer.convert_ids_to_tokens(ids)
    pieces: list[bytes | None] = [
        None if token_id in special or name is None else spelling.bytes_of(token_id, name)
        for token_id, name in zip(ids, names, strict=True)
    ]
    if text is None:
        return pieces
    wanted = encode_text(text)
    joined = b"".join(piece for piece in pieces if piece is not None)
    if joined == wanted:
        return pieces
    if joined == b" " + wanted:  # SentencePiece puts a space before the first word
        first = next(index for index, piece in enumerate(pieces) if piece)
        pieces[first] = pieces[first][1:]  # type: ignore[index]
        return pieces
    if joined == wanted + b" ":  # where entries say that a word ends, the last one says so as well
        last = next(index for index in reversed(range(len(pieces))) if pieces[index])
        pieces[last] = pieces[last][:-1]  # type: ignore[index]
        return pieces
    return _by_spelling(pieces, text) or _by_offsets(tokenizer, ids, special, text)


def _by_spelling(pieces: Sequence[bytes | None], text: str) -> list[bytes | None] | None:
    """Give each token the characters that it spells, and those that vanished before it; None where it spells others.

    Where a vocabulary drops what it does not know without a token for it, the offsets of `tokenizers` are wrong.
    """
    found: list[bytes | None] = []
    done = 0
    for piece in pieces:
        start = done
        try:
            characters = (piece or b"\xff").decode()
        except UnicodeDecodeError:
            return None
        for character in characters:
            done = text.find(character, done) + 1
            if done == 0:
                return None
        found.append(text[start:done].encode())
    if found:
        found[-1] = (found[-1] or b"") + text[done:].encode()
    return found


def _by_offsets(tokenizer: Any, ids: list[int], special: set[int], text: str) -> list[bytes | None]:
    """Give each token the stretch of `text` that the tokenizer says it came from.

    Tokens that share a stretch (one character in several tokens) share its bytes; what no token claims (dropped spaces)
    goes to the token after it.
    """
    for add_special_tokens in (False, True):
        encoded = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
        if list(encoded["input_ids"]) == ids:
            break
    else:
        raise UsageError(
            "These tokens are not what the tokenizer makes of this text; pass the ids of the same text, or no text."
        )
    spans = encoded["offset_mapping"]
    # A special token with a stretch of its own was written in the text; one without was put there by the tokenizer.
    owners = [index for index, token_id in enumerate(ids) if token_id not in special or spans[index][1] > 0]
    pieces: list[bytes | None] = [b"" if index in set(owners) else None for index in range(len(ids))]
    done, position = 0, 0
    while position < len(owners):
        group, end = [owners[position]], spans[owners[position]][1]
        while position + len(group) < len(owners) and spans[owners[position + len(group)]][0] < end:
            group.append(owners[position + len(group)])
            end = max(end, spans[group[-1]][1])
        position += len(group)
        stop = max(done, end if position < len(owners) else len(text))
        data = text[done:stop].encode()
        cuts = [len(data) * n // len(group) for n in range(len(group) + 1)]
        for index, start, until in zip(group, cuts, cuts[1:], strict=False):
            pieces[index] = data[start:until]
        done = stop
    return pieces


@dataclass(frozen=True)
class Cluster:
    """One drawn character, and the tokens that own a byte of it."""

    text: str
    """The grapheme cluster; for bytes that are not UTF-8, their hex digits in angle brackets."""
    tokens: tuple[int, ...]
    """Token indices in order, at least one."""
    kind: Literal["text", "invalid"] = "text"


@dataclass(frozen=True)
class TextSpan:
    """A stretch drawn as one piece: consecutive clusters of one token, or one cluster of several tokens."""

    text: str
    tokens: tuple[int, ...]
    kind: Literal["text", "invalid", "special", "empty"] = "text"
    """`special` tokens have no text; `empty` ones are text tokens whose bytes are all drawn elsewhere."""


def clusters(pieces: Sequence[bytes | None]) -> list[Cluster]:
    """Cut the text of some tokens into grapheme clusters, each with the tokens that own its bytes.

    Special tokens (None) have no cluster and end the one before them.
    """
    found: list[Cluster] = []
    for first, stretch in _stretches(pieces):
        data = b"".join(stretch)
        owner = [first + index for index, piece in enumerate(stretch) for _ in piece]
        start = 0
        for text, size, kind in _characters(data):
            tokens = tuple(dict.fromkeys(owner[start : start + size]))
            found.append(Cluster(text, tokens, kind))
            start += size
    return found


def text_spans(pieces: Sequence[bytes | None]) -> list[TextSpan]:
    """Return what to draw, in order: every token is in at least one span, and the spans' text joined is the text."""
    merged: list[TextSpan] = []
    for cluster in clusters(pieces):
        last = merged[-1] if merged else None
        if last and len(cluster.tokens) == 1 and last.tokens == cluster.tokens and last.kind == cluster.kind == "text":
            merged[-1] = TextSpan(last.text + cluster.text, last.tokens)
        else:
            merged.append(TextSpan(cluster.text, cluster.tokens, cluster.kind))
    drawn = {token for span in merged for token in span.tokens}
    for index, piece in enumerate(pieces):
        if index not in drawn:
            merged.append(TextSpan("", (index,), "special" if piece is None else "empty"))
    return sorted(merged, key=lambda span: span.tokens)


def _stretches(pieces: Sequence[bytes | None]) -> Iterator[tuple[int, list[bytes]]]:
    first, stretch = 0, []
    for index, piece in enumerate(pieces):
        if piece is None:
            if stretch:
                yield first, stretch
            first, stretch = index + 1, []
        else:
            stretch.append(piece)
    if stretch:
        yield first, stretch


def _characters(data: bytes) -> Iterator[tuple[str, int, Literal["text", "invalid"]]]:
    """Yield (text, number of bytes, kind) over all bytes; neighbouring invalid bytes come as one."""
    position, invalid = 0, b""
    while position < len(data):
        rest = data[position:]
        try:
            valid, bad = rest.decode("utf-8"), b""
        except UnicodeDecodeError as error:
            valid, bad = rest[: error.start].decode("utf-8"), rest[error.start : error.end]
        if valid and invalid:
            yield _brackets(invalid), len(invalid), "invalid"
            invalid = b""
        for cluster in regex.findall(r"\X", valid):
            yield cluster, len(cluster.encode()), "text"
        invalid += bad
        position += len(valid.encode()) + len(bad)
    if invalid:
        yield _brackets(invalid), len(invalid), "invalid"


def _brackets(data: bytes) -> str:
    return "⟨" + data.hex(" ").upper() + "⟩"
