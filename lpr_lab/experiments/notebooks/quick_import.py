"""Imports Jupyter's libraries without the grammar of addresses, which takes longer to build than all the rest.

Where JupyterLab is installed, jsonschema builds it while it is imported, to check addresses in any script (IRIs); where
it is not, jsonschema leaves that check out. Nothing in a notebook is checked for it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_GRAMMAR = "rfc3987_syntax"


@contextmanager
def without_iri_grammar() -> Iterator[None]:
    """Have the grammar count as not installed inside the block, unless it is imported already."""
    if _GRAMMAR in sys.modules:
        yield
        return
    sys.modules[_GRAMMAR] = None  # pyright: ignore[reportArgumentType]  # Python's own way of saying so
    try:
        yield
    finally:
        del sys.modules[_GRAMMAR]
