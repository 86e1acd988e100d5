"""Text as the rest of the project sees it: documents with a language, in named splits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text: a help page, a message, a record of a data set."""

    id: str
    """Unique within a corpus; aligned translations share it."""
    language: str
    """ISO 639-1."""
    text: str
    source: str
    """Where it came from: a package, a file or a data set."""
