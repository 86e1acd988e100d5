"""HTML as a reader sees it."""

import html
import re


def words(markup: object) -> str:
    """Return the text between the tags, unescaped, with single blanks."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", str(markup))))
