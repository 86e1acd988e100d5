"""The corpus `small-world`: the demo's texts in real languages, and ciphers of text that the small base never read.

Half of the pages of a language that has ciphers are its own `train` and `replay` text, the other half is read only as
cipher: what a cipher is learned from, the base has not seen in plain letters either. The two test splits are the
demo's, and a cipher's are those of its source, page by page.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.demo.corpus import load_demo
from lpr_lab.text.languages import get_languages
from lpr_lab.text.worlds.ciphers import CIPHERS, enciphered

SMALL_WORLD = "small-world"
"""Name of the corpus, and of the base that is trained on it (`experiments.small_world`)."""
WORLD_LANGUAGES = ("en", "es", "el", "hu", "tr", *CIPHERS)
"""Those that are there where nobody names others: what the base is trained on, and what it can be taught."""
_SPLITS_TO_LEARN = ("train", "replay")


def load_small_world(languages: Sequence[str] | None = None) -> Corpus:
    """Return the small world's text in the given languages, ciphers among them (`text.worlds.ciphers.CIPHERS`).

    Raises:
        UsageError, MissingError: as `text.demo.corpus.load_demo`.
    """
    codes = [language.code for language in get_languages(languages or WORLD_LANGUAGES)]
    real = [code for code in codes if code not in CIPHERS]
    sources = [CIPHERS[code].source for code in codes if code in CIPHERS]
    return in_small_world(load_demo(list(dict.fromkeys([*real, *sources]))), codes)


def in_small_world(demo: Corpus, codes: Sequence[str]) -> Corpus:
    """Return a corpus's texts divided as above: `codes` are its own languages and ciphers of them."""
    halved = {cipher.source for cipher in CIPHERS.values()}
    texts: dict[tuple[str, str], tuple[Document, ...]] = {}
    for code in codes:
        source = CIPHERS[code].source if code in CIPHERS else code
        if source not in demo.languages:
            raise UsageError(f"{code} is a cipher of {source}, and the corpus {demo.name} has no text in that.")
        for split in demo.splits:
            documents = demo.documents(split, source)
            if split in _SPLITS_TO_LEARN and source in halved:
                documents = [one for one in documents if is_for_ciphers(one) == (code in CIPHERS)]
            if code in CIPHERS:
                documents = [enciphered(one, code) for one in documents]
            texts[split, code] = tuple(documents)
    kept = {code: vars(CIPHERS[code]) for code in codes if code in CIPHERS}
    preparation = {code: demo.preparation.get(code, {"cipher": kept.get(code)}) for code in codes}
    return replace(demo, name=SMALL_WORLD, languages=tuple(codes), texts=texts, preparation=preparation)


def is_for_ciphers(document: Document) -> bool:
    """Whether a page is read only as cipher; the same in every language that has the page."""
    return hashlib.sha256(f"cipher\0{document.id}".encode()).digest()[0] % 2 == 1
