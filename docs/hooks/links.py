"""Rewrites links between files of the repository for the site, and turns files named in `code` into links.

Pages are written to be read where they lie: a link leads to a file beside it. Here each is led to the site's page for
that file, which for code is its reference page or its source.
"""

import posixpath
import re
from collections.abc import Iterator

from places import file_named, page_of

LINK = re.compile(r"(\[[^\]]*\])\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
NAMED = re.compile(r"(?<!\[)`((?:[\w.-]+/)+[\w.-]+\.(?:py|ipynb|md))((?::[\w.]+)?)`(?!\])")


def on_page_markdown(markdown: str, page, **_) -> str:
    """Rewrite the links of one page; what leads nowhere is left as it is, for the strict build to refuse."""
    here, origin = page.file.src_uri, getattr(page.file, "origin", f"docs/{page.file.src_uri}")
    if here.startswith(("api/", "code/")):
        return markdown
    return "".join(_in_prose(text, here, origin) if is_prose else text for text, is_prose in split(markdown))


def split(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield the text in order as lines of prose (True) and of code (False)."""
    fenced = False
    for line in markdown.splitlines(keepends=True):
        fence = line.lstrip().startswith("```")
        yield line, not (fenced or fence or line.startswith("    "))
        fenced ^= fence


def named_files(markdown: str) -> set[str]:
    """Return the files of the repository that a text names in code, as paths from the root."""
    names = (name for text, is_prose in split(markdown) if is_prose for name, _ in NAMED.findall(text))
    return {path for name in names if (path := file_named(name))}


def linked_files(markdown: str, origin: str) -> set[str]:
    """Return the targets of the links of a text that lies at `origin`, as paths from the root."""
    targets = (target for text, is_prose in split(markdown) if is_prose for _, target, _ in LINK.findall(text))
    return {posixpath.normpath(posixpath.join(posixpath.dirname(origin), target)) for target in targets}


def _in_prose(text: str, here: str, origin: str) -> str:
    def relinked(match: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[2]))
        target = page_of(path)
        return f"{match[1]}({_from(here, target)}{match[3] or ''})" if target else match[0]

    def linked(match: re.Match) -> str:
        path = file_named(match[1])
        target = page_of(path) if path else None
        return f"[`{match[1]}{match[2]}`]({_from(here, target)})" if target and target != here else match[0]

    return NAMED.sub(linked, LINK.sub(relinked, text))


def _from(here: str, target: str) -> str:
    return posixpath.relpath(target, posixpath.dirname(here) or ".")
