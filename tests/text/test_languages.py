"""The language table and how it is asked."""

import re

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.text.languages import (
    _ALIASES,
    _FLORES_OF_CODE,
    LANGUAGES,
    direction_of,
    find_language,
    get_language,
    get_languages,
)


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
    ("given", "suggested"),
    [
        ("greek", "'el'"),
        ("Ελληνικά", "'el'"),
        ("ell_Gerk", "'el'"),
        ("en-de", "'en'"),
        ("qq", "ISO 639-1"),
        ("sh", "ISO 639-1"),
        ("", "ISO 639-1"),
    ],
)
def test_an_unknown_code_says_what_was_meant(given, suggested):
    with pytest.raises(UsageError, match=suggested):
        get_language(given)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        *[
            (label, "el")
            for label in ("EL", "ell", "gre", "ell_grek", "el-GR", "el_GR", "el-gr", "ell-Grek", "el_Grek_CY")
        ],
        *[(label, "zh") for label in ("zh-cn", "zh_CN", "zh-Hans", "zh-Hans-SG", "cmn", "cmn_Hani", "chi", "zho")],
        *[(label, "zho_Hant") for label in ("zh-Hant", "zh-TW", "zh_hk", "cmn_Hant", "zho_Hant")],
        *[(label, "nb") for label in ("no", "nb", "nor", "nb-NO", "no_NO", "nob")],
        ("nn", "nno_Latn"),
        *[(label, "he") for label in ("iw", "he-IL", "heb", "iw_IL")],
        *[(label, "pt") for label in ("pt-BR", "pt-pt", "pt_PT", "por")],
        *[(label, "srp_Latn") for label in ("sr-Latn", "sr-Latn-RS", "sr_ME", "srp_Latn")],
        *[(label, "sr") for label in ("sr", "sr-RS", "sr-Cyrl", "srp")],
        *[(label, "id") for label in ("in", "id", "ind")],
        *[(label, "ar") for label in ("ara", "ara_Arab", "ar-EG", "ar-SA", "arb")],
        *[(label, "fa") for label in ("per", "fas", "pes", "fas_Arab")],
        *[(label, "tl") for label in ("fil", "tgl", "fil-PH")],
        *[(label, "ko") for label in ("kor_Kore", "ko-Kore", "ko_KR")],
        *[(label, "en") for label in ("en-US", "en_GB", "eng", "en-001")],
        ("es-419", "es"),
        ("fr-CA", "fr"),
        *[(label, "cym_Latn") for label in ("cy", "cym", "wel", "cy-GB")],
        ("ur-Latn", "urd_Latn"),
        ("yo", "yor_Latn"),
        ("pa-PK", "pan_Arab"),
    ],
)
def test_every_label_of_a_language_is_that_language(given, code):
    assert get_language(given).code == code
    assert get_language(get_language(given).code) == get_language(given)


@pytest.mark.parametrize(
    "given", ["my-texts", "en-train", "en-de", "de-en", "en-x-private", "to-do", "123", "e", "e-l"]
)
def test_what_only_begins_like_a_code_is_no_language(given):
    assert find_language(given) is None


def test_codes_beside_the_table_are_well_formed():
    for code, flores in _FLORES_OF_CODE.items():
        assert code not in LANGUAGES and re.fullmatch(r"[a-z]{2}", code)
        assert get_language(code).flores == flores == get_language(flores).code
    for alias in _ALIASES:
        assert alias not in LANGUAGES and alias not in _FLORES_OF_CODE
        assert find_language(alias) is not None


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
