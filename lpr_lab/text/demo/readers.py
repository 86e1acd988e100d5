"""Readers of the demo corpus: LibreOffice's help pages and the messages of a Wesnoth campaign, from Debian packages.

Both are translated by people, aligned over languages (page and paragraph ids, message ids), and of different genres:
technical prose to train on, dialogue and narration to test on.
"""

import hashlib
import html as entities
import re
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

from lpr_lab.errors import DamagedError
from lpr_lab.text.demo.debian import Package, read_members

Pages = dict[str, dict[str, str]]
"""Document (a help page) -> paragraph -> text; of messages, language -> message id -> text."""

HELP_LICENCE = "MPL-2.0"
FICTION_LICENCE = "GPL-2.0-or-later"

FICTION_PACKAGE = r"wesnoth-[\d.]+-utbs"
"""The campaign "Under the Burning Suns"; the number in its name changes with the Debian release."""

HELP_LANGUAGES = tuple("ca cs da de el en es et eu fi fr gl hi hu id it ja km ko nl pl pt ru sk sl sv tr vi zh".split())
"""ISO 639-1 codes of the languages that Debian has LibreOffice's help in."""

_SWITCHES = "//*[@id='DisplayArea']//span[@class='switchinline'][*]"
_PARAGRAPHS = "//*[@id='DisplayArea']//*[self::p or self::h1 or self::h2 or self::h3 or self::h4][@id]"

_HELP_SUFFIX = {"en": "en-us", "zh": "zh-cn"}
_LOCALE = {"zh": "zh_CN", "nb": "nb_NO"}


def help_package(language: str) -> str:
    """Return the name of the Debian package with LibreOffice's help in a language (ISO 639-1)."""
    return f"libreoffice-help-{_HELP_SUFFIX.get(language, language)}"


def read_help(package: Package) -> Pages:
    """Return page path -> paragraph id -> text, both in a fixed order, headings included.

    Paths and ids are the same in all languages.
    """
    pages = {
        match["path"]: dict(_paragraphs(content))
        for match, content in read_members(package, r"usr/share/libreoffice/help/[^/]+/text/(?P<path>.+\.html)")
    }
    return dict(sorted(pages.items()))


def _paragraphs(page: bytes) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of a page's paragraphs and headings; the same paragraph, included twice, is given once."""
    if not page.strip():
        return
    from lxml import html  # imported only where pages are read

    tree = html.document_fromstring(page, parser=_parser())
    for switch in tree.xpath(_SWITCHES):
        # One wording per system or application, of which a reader sees one: keep the default.
        wordings = list(switch)
        shown = next((wording for wording in wordings if wording.get("id", "").startswith("default")), wordings[0])
        for wording in wordings:
            if wording is not shown:
                wording.drop_tree()
    seen: dict[str, set[str]] = {}
    for paragraph in tree.xpath(_PARAGRAPHS):
        text = " ".join(paragraph.text_content().split())
        texts = seen.setdefault(paragraph.get("id"), set())
        if text and text not in texts:
            yield f"{paragraph.get('id')}.{len(texts)}", text
            texts.add(text)


@cache
def _parser() -> Any:
    from lxml import html

    return html.HTMLParser(encoding="utf-8", remove_comments=True, no_network=True)


def read_fiction(package: Package, languages: list[str]) -> Pages:
    """Return language -> message id -> text of the campaign, for those of `languages` that it is translated into.

    English comes from the message ids of the translations. Ids are the same in all languages; messages that were left
    in English are not in a translation.
    """
    locales = {_LOCALE.get(code, code): code for code in languages}
    texts: dict[str, dict[str, str]] = {}
    english: dict[str, str] = {}
    for match, content in read_members(package, r"usr/share/games/wesnoth/[^/]+/locale/(?P<locale>[^/]+)/.+\.mo"):
        messages = [(clean_message(source), clean_message(target)) for source, target in read_mo(content)]
        english |= {_message_id(source): source for source, _ in messages if source}
        code = locales.get(match["locale"])
        if code is not None and code != "en":
            texts[code] = {_message_id(s): t for s, t in messages if s and t and s != t}
    if "en" in languages:
        texts["en"] = english
    return {code: dict(sorted(messages.items())) for code, messages in texts.items()}


def _message_id(source: str) -> str:
    return "utbs-" + hashlib.sha256(source.encode()).hexdigest()[:12]


def clean_message(message: str) -> str:
    """Strip the context, markup and variables of a message: what is left is what a reader sees.

    >>> clean_message("Go <i>now</i>, $unit.name|!")
    'Go now, !'
    """
    message = message.split("\x04")[-1]
    message = re.sub(r"^[\w+ ]{1,40}\^", "", message)
    message = re.sub(r"<[^<>]*>", "", message)
    message = re.sub(r"\$\([^()]*\)|\$[\w.\[\]$]+\|?", "", message)
    return " ".join(entities.unescape(message).split())


def read_mo(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield (message id, translation) of a compiled gettext file; of plural messages, the first form.

    Raises:
        DamagedError: not such a file, or cut short.
    """
    try:
        order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}[content[:4]]
        count, sources, targets = struct.unpack_from(f"{order}3I", content, 8)
        for number in range(count):
            pair = []
            for table in (sources, targets):
                length, start = struct.unpack_from(f"{order}2I", content, table + 8 * number)
                if start + length > len(content):
                    raise IndexError(f"message {number} lies outside the file")
                pair.append(content[start : start + length].split(b"\0")[0].decode("utf-8"))
            if pair[0]:  # the empty id holds the file's header
                yield pair[0], pair[1]
    except (KeyError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise DamagedError(f"A message file of the package is not a readable .mo file ({error}).") from error
