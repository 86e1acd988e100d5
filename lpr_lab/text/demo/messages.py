"""Readers of interface messages, for languages that Debian has no books in: programs' messages and MediaWiki's.

Bengali, Hindi and Nepali, the second group of the papers, are trained on what programs say (gettext files of a dozen
packages), and tested, as any language without the campaign, on what MediaWiki says, whose keys are the same in all
languages. These are short sentences of interfaces, not prose.
"""

import hashlib
import json
import re
from collections.abc import Sequence

from lpr_lab.errors import DamagedError
from lpr_lab.text.demo.debian import Package, read_members
from lpr_lab.text.demo.readers import Pages, clean_message, read_mo

MESSAGES_LICENCE = "GPL-2.0-or-later, LGPL, MPL-2.0, by package"
INTERFACE_LICENCE = "GPL-2.0-or-later"

INTERFACE_PACKAGE = "mediawiki"

_COMMON = (
    "evolution-common nautilus-data gnome-control-center-data epiphany-browser-data cinnamon-l10n aisleriot "
    "gnucash-common gimp-data"
).split()

MESSAGE_PACKAGES = {
    "bn": ("libreoffice-l10n-bn", *_COMMON[:6], "wordpress-l10n"),
    "hi": ("libreoffice-l10n-hi", *_COMMON),
    "ne": ("libreoffice-l10n-ne", *_COMMON, "aptitude-common"),
}
"""ISO 639-1 code -> the Debian packages whose messages are its training text."""

_PARTS = 64
"""Documents that the messages of one package are divided into, the same way in every language."""

_JSON_NAMES = {"zh": "zh-hans"}


def read_messages(packages: Sequence[Package], language: str) -> tuple[Pages, Pages]:
    """Return the messages of some packages in a language and in English: document -> message id -> text.

    A message is in the document that its English text decides, so it is in the same split in every language.
    """
    own: Pages = {}
    english: Pages = {}
    for package in packages:
        for _, content in read_members(package, _mo_files(language)):
            for source, target in read_mo(content):
                source, target = (_without_accelerators(clean_message(text)) for text in (source, target))
                if source and target:
                    digest = hashlib.sha256(source.encode()).hexdigest()
                    document = f"{package.name}/{int(digest[:8], 16) % _PARTS:02}"
                    own.setdefault(document, {})[digest[:12]] = target
                    english.setdefault(document, {})[digest[:12]] = source
    return _ordered(own), _ordered(english)


def _ordered(pages: Pages) -> Pages:
    return {name: dict(sorted(pages[name].items())) for name in sorted(pages)}


def _mo_files(language: str) -> str:
    code = rf"{language}(_[A-Z]+)?"
    folders = rf"usr/(share/locale|lib/libreoffice/program/resource)/{code}/LC_MESSAGES/[^/]+\.mo"
    return rf"{folders}|usr/share/wordpress/wp-content/languages/{code}\.mo"


def _without_accelerators(message: str) -> str:
    """Remove what marks the key of a menu entry.

    >>> _without_accelerators("_Save the file & close"), _without_accelerators("Print ~range")
    ('Save the file & close', 'Print range')
    """
    return re.sub(r"[_&~](?=\w)", "", message)


def read_interface(package: Package, languages: Sequence[str]) -> Pages:
    """Return language -> message id -> text of MediaWiki and its extensions, English among them.

    Ids are the same in all languages; messages that were left in English are not in a translation.

    Raises:
        DamagedError: a file that is no JSON.
    """
    names = {_JSON_NAMES.get(code, code): code for code in {*languages, "en"}}
    wanted = "|".join(map(re.escape, names))
    texts: Pages = {}
    pattern = rf"usr/share/mediawiki/(?P<folder>.+)/(?P<name>{wanted})\.json"
    for match, content in read_members(package, pattern):
        if "i18n" not in match["folder"].split("/"):
            continue
        try:
            messages = json.loads(content)
        except ValueError as error:
            raise DamagedError(f"{match[0]} of the package {package.name} is no JSON ({error}).") from error
        for key, text in messages.items():
            if not key.startswith("@") and isinstance(text, str) and (cleaned := clean_wikitext(text)):
                texts.setdefault(names[match["name"]], {})[f"{match['folder']}:{key}"] = cleaned
    english = texts.get("en", {})
    return {
        code: dict(sorted((key, text) for key, text in own.items() if code == "en" or text != english.get(key)))
        for code, own in texts.items()
    }


def clean_wikitext(text: str) -> str:
    """Strip tags, links and templates of a wiki message: what is left is about what a reader sees.

    >>> clean_wikitext("The '''page''' [[Help:Diff|differs]] from <b>$1</b>{{PLURAL:$2|.|s.}}")
    'The page differs from $1'
    """
    text = re.sub(r"\{\{[^{}]*\}\}", "", text)
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]|\[\S+ ([^\[\]]*)\]", r"\1\2", text)
    return " ".join(re.sub(r"<[^<>]*>|''+", "", text).split())
