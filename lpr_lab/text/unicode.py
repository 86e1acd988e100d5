"""Checks that text is valid Unicode, without lone surrogates."""

from lpr_lab.errors import UsageError


def find_lone_surrogate(text: str) -> int | None:
    """Return the index of the first half of a surrogate pair, which no encoding of Unicode can carry, or None.

    Such halves are what is left of an emoji that was cut in two, or of bytes that were no UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


def check_text(text: str, what: str = "The text") -> str:
    """Return the text as it is, if it can be encoded.

    Args:
        text: anything typed, pasted or read.
        what: what a message calls it.

    Raises:
        UsageError: it holds half of a surrogate pair; its position counts from 1.
    """
    half = find_lone_surrogate(text)
    if half is not None:
        raise UsageError(
            f"{what} is not valid Unicode: position {half + 1} holds half of a character (U+{ord(text[half]):04X}); "
            "remove it and try again."
        )
    return text


def encode_text(text: str, what: str = "The text") -> bytes:
    """Return the text in UTF-8.

    Raises:
        UsageError: see `check_text`.
    """
    return check_text(text, what).encode("utf-8")
