"""The language table and how it is asked."""

import re

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.text.languages import LANGUAGES, direction_of, get_language, get_languages


def test_every_row_is_well_formed():
    assert len(LANGUAGES) >= 40
    for code, language in LANGUAGES.items():
        assert re.fullmatch(r"[a-z]{2}", code)
        assert language.code == code
        assert re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", language.flores), language
        assert all((language.name, language.script, language.endonym))
    assert len({language.flores for language in LANGUAGES.values()}) == len(LANGUAGES)


def test_iso_and_flores_codes_name_the_same_language():
    assert get_language("el") is get_language("ell_Grek") is get_language(" EL ")


def test_right_to_left_scripts_are_marked():
    assert {code for code, language in LANGUAGES.items() if language.direction == "rtl"} == {"ar", "fa", "he", "ur"}


@pytest.mark.parametrize(
    ("given", "suggested"), [("greek", "'el'"), ("ell", "'el'"), ("ell_Gerk", "'ell_grek'"), ("qq", "ISO 639-1")]
)
def test_an_unknown_code_says_what_was_meant(given, suggested):
    with pytest.raises(UsageError, match=suggested):
        get_language(given)


def test_a_language_that_is_not_in_the_table_is_used_by_its_flores_code():
    welsh = get_language("cym_latn")
    assert (welsh.code, welsh.name, welsh.script, welsh.direction) == ("cym_Latn", "cym_Latn", "Latin", "ltr")
    assert get_language(welsh.code) == welsh
    assert (get_language("uig_Arab").direction, get_language("fuf_Adlm").direction) == ("rtl", "rtl")
    assert direction_of("uig_Arab") == "rtl" and direction_of("nonsense") == "auto"
    assert get_language("amh_Ethi").script == "Ethi"


def test_a_list_of_languages_is_checked():
    assert [language.code for language in get_languages(["tr", "ell_Grek"])] == ["tr", "el"]
    assert [language.code for language in get_languages("tr")] == ["tr"]
    with pytest.raises(UsageError, match="at least one"):
        get_languages([])
    with pytest.raises(UsageError, match="more than once"):
        get_languages(["el", "ell_Grek"])
