"""Cipher languages: a bijection with a known share of letters kept, and text that the base did not read."""

import string

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.text.corpus import Corpus, Document
from lpr_lab.text.languages import get_language, language_name
from lpr_lab.text.worlds.ciphers import CIPHERS, LETTERS, enciphered, letter_map
from lpr_lab.text.worlds.corpus import in_small_world, is_for_ciphers


@pytest.mark.parametrize("kept", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_cipher_keeps_its_share_of_letters_and_loses_none(kept):
    written = LETTERS.translate(letter_map(kept))
    assert sorted(written) == list(LETTERS)
    assert sum(a == b for a, b in zip(LETTERS, written, strict=True)) == round(kept * 26)
    assert LETTERS.upper().translate(letter_map(kept)) == written.upper()


def test_a_cipher_leaves_everything_but_letters_alone_and_depends_on_its_seed_only():
    text = string.digits + string.punctuation + " ά中\n"
    assert text.translate(letter_map(0.0)) == text
    assert letter_map(0.0, 1) == letter_map(0.0, 1) != letter_map(0.0, 2)
    with pytest.raises(UsageError, match=r"1\.5"):
        letter_map(1.5)


def test_mirrored_words_are_the_same_words():
    page = Document("a", "en", "one two\nthree four five", "demo")
    assert enciphered(page, "qae_Latn") == Document("a", "qae_Latn", "two one\nfive four three", "demo")


def test_every_cipher_has_a_code_that_names_it():
    for code in CIPHERS:
        assert get_language(code).code == code and language_name(code) == get_language(code).name != code


def test_what_is_read_as_cipher_is_never_read_in_plain_letters_and_tests_are_aligned():
    pages = {code: tuple(Document(f"{n}", code, f"page {n}", "demo") for n in range(40)) for code in ("en", "el")}
    texts = {(split, code): pages[code] for split in ("train", "heldout") for code in pages}
    world = in_small_world(Corpus("demo", ("en", "el"), texts), ["en", "el", "qaa_Latn", "qad_Latn"])

    def ids(split: str, code: str) -> list[str]:
        return [one.id for one in world.documents(split, code)]

    assert set(ids("train", "en")) | set(ids("train", "qaa_Latn")) == {f"{n}" for n in range(40)}
    assert not set(ids("train", "en")) & set(ids("train", "qaa_Latn"))
    assert ids("train", "qaa_Latn") == ids("train", "qad_Latn") == [p.id for p in pages["en"] if is_for_ciphers(p)]
    assert len(ids("train", "el")) == 40 and ids("heldout", "en") == ids("heldout", "qaa_Latn") == ids("heldout", "el")
    assert world.documents("heldout", "qaa_Latn")[0].text != "page 0"
    with pytest.raises(UsageError, match="es"):
        in_small_world(Corpus("demo", ("en",), {}), ["qaf_Latn"])
