"""Text that arrives in pieces of bytes, released character by character as a reader sees them.

A token may end inside a character, and the next token may put a vowel sign under the letter before it. So what is
shown ends where a grapheme cluster ends, and the cluster that is still open waits: it closes when the next one begins,
which is the earliest moment at which that is known. Nothing waits for a space, which Thai and Khmer do not write.
"""

import unicodedata

import regex

_VIRAMA = 9
"""Unicode's combining class of signs that join the next letter to this one, such as the Khmer coeng."""


class CharacterStream:
    r"""Releases whole characters from a stream of bytes.

    Attributes:
        text: everything released so far; it only grows.

    >>> stream = CharacterStream()
    >>> stream.feed("ca".encode()), stream.feed(b"f\xc3"), stream.feed(b"\xa9"), stream.end()
    ('c', 'a', 'f', 'é')
    """

    def __init__(self) -> None:
        self.text = ""
        self._bytes = b""  # the beginning of a code point
        self._open = ""  # clusters that may go on

    def feed(self, piece: bytes) -> str:
        """Take some bytes and return what can now be shown, perhaps nothing.

        Bytes that can never become a character are shown as such: `⟨FF⟩`.
        """
        self._open += self._decode(piece)
        found = regex.findall(r"\X", self._open)
        size = len(found) - 1
        while size > 0 and unicodedata.combining(found[size - 1][-1]) == _VIRAMA:
            size -= 1
        return self._release(sum(len(cluster) for cluster in found[: max(size, 0)]))

    def end(self) -> str:
        """Return what was still open; the stream is over. A character cut in the middle of its bytes is left out."""
        self._bytes = b""
        return self._release(len(self._open))

    def _release(self, size: int) -> str:
        shown, self._open = self._open[:size], self._open[size:]
        self.text += shown
        return shown

    def _decode(self, piece: bytes) -> str:
        rest, text = self._bytes + piece, ""
        self._bytes = b""
        while rest:
            try:
                return text + rest.decode("utf-8")
            except UnicodeDecodeError as error:
                text += rest[: error.start].decode("utf-8")
                if error.reason == "unexpected end of data":
                    self._bytes = rest[error.start :]
                    break
                text += "".join(f"⟨{byte:02X}⟩" for byte in rest[error.start : error.end])
                rest = rest[error.end :]
        return text
