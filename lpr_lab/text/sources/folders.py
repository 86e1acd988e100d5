"""Lists the files of a folder that can be read as text, and the others with the reason.

A folder that somebody works in also holds what systems and editors leave behind (`.DS_Store`, `._el.jsonl`,
`el.jsonl~`), what describes the data (README, licence), and the same data in another format. Taken in, an English
README becomes Greek training text; left out without a word, half of the data may be missing. So everything that is not
read is named.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lpr_lab.errors import MissingError
from lpr_lab.text.sources.formats import COMPRESSIONS, RECORD_FORMATS, parts_of

_ABOUT = re.compile(
    r"(readme|licen[sc]e|copying|notice|change(log|s)|citation|authors|contribut(ors|ing)|credits)([._ -].*)?",
    re.IGNORECASE,
)
"""Names of text files that are about the data."""

_ABOUT_JSON = re.compile(r"(dataset_infos?|state|metadata|manifest|config|package|croissant)", re.IGNORECASE)
"""Names of JSON files that are about the data."""

_ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")


class LeftOut(NamedTuple):
    """One file or folder that is not read."""

    name: str
    """Its path below the folder that was given."""
    reason: str


def list_folder(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """Return the files of a folder that are read, in a fixed order, and what is left out.

    Links are followed, also to folders; what two ways lead to is read once.

    Raises:
        MissingError: a folder that may not be read.
    """
    found, left_out = _walk(folder)
    kept: list[Path] = []
    by_name: dict[tuple[Path, str, bool], Path] = {}
    for path in sorted(found, key=lambda path: (_rank(path), path)):
        stem, ending, _ = parts_of(path)
        first = by_name.setdefault((path.parent, stem, ending in RECORD_FORMATS), path)
        if first is path:
            kept.append(path)
        else:
            left_out.append(LeftOut(_below(folder, path), f"of the same name as {first.name}, which is read"))
    return sorted(kept), sorted(left_out)


def _rank(path: Path) -> tuple[int, int]:
    """Return which of several files of one name comes first: by format, then as it is before compressed."""
    _, ending, compression = parts_of(path)
    return (
        [*RECORD_FORMATS].index(ending) if ending in RECORD_FORMATS else 0,
        COMPRESSIONS.index(compression) + 1 if compression else 0,
    )


def _walk(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """Walk a folder's own tree first and then, one after another, what its links lead to."""
    kept: list[Path] = []
    left_out: list[LeftOut] = []
    seen_folders, seen_files = {folder.resolve()}, set[Path]()
    waiting = [folder]
    links: list[Path] = []
    while waiting or links:
        if not waiting:
            link = links.pop(0)
            target = link.resolve()
            if target in (seen_folders if link.is_dir() else seen_files):
                left_out.append(LeftOut(_below(folder, link), "a link to what is read anyway"))
            elif link.is_dir():
                seen_folders.add(target)
                waiting.append(link)
            else:
                seen_files.add(target)
                kept.append(link)
            continue
        for path in _entries(waiting.pop(0)):
            reason = _why_not(path)
            if reason is not None:
                left_out.append(LeftOut(_below(folder, path), reason))
            elif path.is_symlink():
                links.append(path)
            elif path.is_dir():
                seen_folders.add(path.resolve())
                waiting.append(path)
            else:
                seen_files.add(path.resolve())
                kept.append(path)
    return kept, left_out


def _entries(folder: Path) -> Iterator[Path]:
    try:
        return iter(sorted(folder.iterdir()))
    except OSError as error:
        raise MissingError(f"The folder {folder} cannot be read ({error.strerror}).") from error


def _why_not(path: Path) -> str | None:
    """Return why a file or folder is not read, or None for one that is."""
    name = path.name
    if name.startswith("."):
        return "hidden"
    if name.endswith("~") or name.startswith("~$"):
        return "left behind by an editor"
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere"
    if path.is_dir():
        return None
    stem, ending, _ = parts_of(path)
    if _ABOUT.fullmatch(stem) and ending in ("", ".txt"):
        return "about the data, by its name"
    if not ending:
        is_archive = name.lower().removesuffix(path.suffix.lower()).endswith(".tar") or path.suffix.lower() in _ARCHIVES
        return "an archive; unpack it to have it read" if is_archive else "of a kind that is not read"
    if ending == ".json" and _ABOUT_JSON.fullmatch(stem):
        return "about the data, by its name"
    if not path.is_file():
        return "not a file"
    return "empty" if path.stat().st_size == 0 else None


def _below(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
