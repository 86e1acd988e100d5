"""Base models that are made here, by a command, and kept in the cache beside the embedded ones."""

from pathlib import Path

from lpr_lab.errors import MissingError
from lpr_lab.storage import cache_dir

SMALL_WORLD = "small-world"
"""A tiny model of English and Spanish, trained from scratch on the corpus of the same name."""

MADE = {SMALL_WORLD: "lpr-lab small-world"}
"""Name of a base to the command that makes it."""


def made_folder(name: str) -> Path:
    """Return where a base that is made here is kept, whether or not it is there."""
    return cache_dir() / "models" / name


def require_made(name: str) -> Path:
    """Return the folder of a base that is made here.

    Raises:
        MissingError: it was not made yet, with the command that makes it.
    """
    folder = made_folder(name)
    if not folder.is_dir():
        raise MissingError(f"The base {name!r} was not made on this machine yet. Make it: {MADE[name]}")
    return folder
