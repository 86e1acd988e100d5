"""Style sheets and scripts of the HTML that views draw, read by name."""

from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def read_static(name: str, folder: Path = _HERE) -> str:
    """Return the text of a style sheet or script of this folder, or of another one."""
    return (folder / name).read_text(encoding="utf-8")
