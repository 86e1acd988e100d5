"""Tables of inflected words, from the optional package `simplemma`: which forms belong to one word.

The only module that knows the package (extra `lemmas`). Its code is MIT; its tables, compressed inside the package,
come from open word lists (ODbL, Creative Commons and others, named in its own documentation). They are read, and never
copied into a run.
"""

import importlib.util
from collections.abc import Iterable, Mapping

from lpr_lab.errors import MissingError

_TABLES = {"hr": "hbs"}
"""Where a table has another name than our code of the language."""

HOW_TO_INSTALL = "install it with `pip install 'lpr_lab[lemmas]'`"


def has_lemmas(language: str) -> bool:
    """Tell whether there is a table of a language.

    Raises:
        MissingError: the package isn't installed.
    """
    if importlib.util.find_spec("simplemma") is None:
        raise MissingError(f"Minimal pairs of inflection need the package simplemma; {HOW_TO_INSTALL}.")
    from simplemma.strategies.dictionaries.dictionary_factory import SUPPORTED_LANGUAGES

    return _TABLES.get(language, language) in SUPPORTED_LANGUAGES


def lemmas_of(words: Iterable[str], language: str) -> Mapping[str, str]:
    """Return the dictionary form of those of some words that the table of their language has.

    Raises:
        MissingError: the package isn't installed, or has no table of this language.

    >>> dict(lemmas_of(["walked", "walks", "xyzzy"], "en"))  # doctest: +SKIP
    {'walked': 'walk', 'walks': 'walk'}
    """
    if not has_lemmas(language):
        raise MissingError(f"simplemma has no table of {language!r}; leave it out of the minimal pairs.")
    from simplemma.strategies import DefaultDictionaryFactory

    table = DefaultDictionaryFactory(cache_max_size=1).get_dictionary(_TABLES.get(language, language))
    return {word: lemma for word in dict.fromkeys(words) if (lemma := table.get(word))}
