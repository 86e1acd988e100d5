"""Base models that are made here, by a command, and kept in the cache beside the embedded ones."""

import re
from pathlib import Path

from lpr_lab.errors import MissingError
from lpr_lab.storage import cache_dir

SMALL_WORLD = "small-world"
"""A tiny model of English and Spanish, trained from scratch on the corpus of the same name, with seed 0."""

_WORLD = re.compile(rf"{SMALL_WORLD}(?:-([1-9]\d*))?")


def world_name(seed: int) -> str:
    """Return the name of the small world's base that is made from a seed.

    >>> world_name(0), world_name(3)
    ('small-world', 'small-world-3')
    """
    return f"{SMALL_WORLD}-{seed}" if seed else SMALL_WORLD


def world_seed(name: str) -> int | None:
    """Return the seed that a small world's base of that name is made from; None for another base.

    >>> world_seed("small-world-3"), world_seed("small-world"), world_seed("smollm2-135m")
    (3, 0, None)
    """
    found = _WORLD.fullmatch(name)
    return int(found[1] or 0) if found else None


def is_made(name: str) -> bool:
    """Return whether a base of that name is made here."""
    return world_seed(name) is not None


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
        command = "lpr-lab small-world" + (f" --seed {seed}" if (seed := world_seed(name)) else "")
        raise MissingError(f"The base {name!r} was not made on this machine yet. Make it: {command}")
    return folder
