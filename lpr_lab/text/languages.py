"""The languages that this project knows by name: codes, script and writing direction.

One table. The key is the ISO 639-1 code, used everywhere in this project; the FLORES code (`ell_Grek`) is what data
sets and evaluation suites use, and `get_language` takes either. A language that is not in the table is used by its
FLORES code: `cym_Latn` says all that has to be known of Welsh, except its name.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lpr_lab.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Language:
    """One language in one script."""

    code: str
    """ISO 639-1, such as `el`; for a language that is not in the table its FLORES code."""
    name: str
    """English name."""
    flores: str
    """FLORES-200 code: ISO 639-3 and ISO 15924, such as `ell_Grek`."""
    script: str
    """Unicode script, such as `Greek`; `Japanese` stands for Han, Hiragana and Katakana together."""
    direction: Literal["ltr", "rtl"]
    """Writing direction of the script."""
    endonym: str
    """What its speakers call it, in its own script."""


_ROWS = """
en | English     | eng_Latn | Latin      | English
es | Spanish     | spa_Latn | Latin      | español
zh | Chinese     | zho_Hans | Han        | 中文
el | Greek       | ell_Grek | Greek      | ελληνικά
hu | Hungarian   | hun_Latn | Latin      | magyar
tr | Turkish     | tur_Latn | Latin      | Türkçe
bn | Bengali     | ben_Beng | Bengali    | বাংলা
hi | Hindi       | hin_Deva | Devanagari | हिन्दी
ne | Nepali      | npi_Deva | Devanagari | नेपाली
ar | Arabic      | arb_Arab | Arabic     | العربية
bg | Bulgarian   | bul_Cyrl | Cyrillic   | български
ca | Catalan     | cat_Latn | Latin      | català
cs | Czech       | ces_Latn | Latin      | čeština
da | Danish      | dan_Latn | Latin      | dansk
de | German      | deu_Latn | Latin      | Deutsch
et | Estonian    | est_Latn | Latin      | eesti
eu | Basque      | eus_Latn | Latin      | euskara
fa | Persian     | pes_Arab | Arabic     | فارسی
fi | Finnish     | fin_Latn | Latin      | suomi
fr | French      | fra_Latn | Latin      | français
gl | Galician    | glg_Latn | Latin      | galego
gu | Gujarati    | guj_Gujr | Gujarati   | ગુજરાતી
he | Hebrew      | heb_Hebr | Hebrew     | עברית
hr | Croatian    | hrv_Latn | Latin      | hrvatski
hy | Armenian    | hye_Armn | Armenian   | հայերեն
id | Indonesian  | ind_Latn | Latin      | bahasa Indonesia
is | Icelandic   | isl_Latn | Latin      | íslenska
it | Italian     | ita_Latn | Latin      | italiano
ja | Japanese    | jpn_Jpan | Japanese   | 日本語
ka | Georgian    | kat_Geor | Georgian   | ქართული
kk | Kazakh      | kaz_Cyrl | Cyrillic   | қазақ тілі
km | Khmer       | khm_Khmr | Khmer      | ខ្មែរ
kn | Kannada     | kan_Knda | Kannada    | ಕನ್ನಡ
ko | Korean      | kor_Hang | Hangul     | 한국어
lo | Lao         | lao_Laoo | Lao        | ລາວ
lt | Lithuanian  | lit_Latn | Latin      | lietuvių
lv | Latvian     | lvs_Latn | Latin      | latviešu
mk | Macedonian  | mkd_Cyrl | Cyrillic   | македонски
ml | Malayalam   | mal_Mlym | Malayalam  | മലയാളം
mr | Marathi     | mar_Deva | Devanagari | मराठी
ms | Malay       | zsm_Latn | Latin      | bahasa Melayu
my | Burmese     | mya_Mymr | Myanmar    | မြန်မာ
nb | Norwegian   | nob_Latn | Latin      | norsk bokmål
nl | Dutch       | nld_Latn | Latin      | Nederlands
pa | Punjabi     | pan_Guru | Gurmukhi   | ਪੰਜਾਬੀ
pl | Polish      | pol_Latn | Latin      | polski
pt | Portuguese  | por_Latn | Latin      | português
ro | Romanian    | ron_Latn | Latin      | română
ru | Russian     | rus_Cyrl | Cyrillic   | русский
si | Sinhala     | sin_Sinh | Sinhala    | සිංහල
sk | Slovak      | slk_Latn | Latin      | slovenčina
sl | Slovenian   | slv_Latn | Latin      | slovenščina
sq | Albanian    | als_Latn | Latin      | shqip
sr | Serbian     | srp_Cyrl | Cyrillic   | српски
sv | Swedish     | swe_Latn | Latin      | svenska
sw | Swahili     | swh_Latn | Latin      | Kiswahili
ta | Tamil       | tam_Taml | Tamil      | தமிழ்
te | Telugu      | tel_Telu | Telugu     | తెలుగు
th | Thai        | tha_Thai | Thai       | ไทย
tl | Tagalog     | tgl_Latn | Latin      | Tagalog
uk | Ukrainian   | ukr_Cyrl | Cyrillic   | українська
ur | Urdu        | urd_Arab | Arabic     | اردو
uz | Uzbek       | uzn_Latn | Latin      | oʻzbekcha
vi | Vietnamese  | vie_Latn | Latin      | Tiếng Việt
"""

_RIGHT_TO_LEFT_SCRIPTS = frozenset({"Arabic", "Hebrew", "Adlm", "Nkoo", "Rohg", "Syrc", "Thaa"})


def _read_rows() -> dict[str, Language]:
    table: dict[str, Language] = {}
    for row in _ROWS.strip().splitlines():
        code, name, flores, script, endonym = (cell.strip() for cell in row.split("|"))
        direction = "rtl" if script in _RIGHT_TO_LEFT_SCRIPTS else "ltr"
        table[code] = Language(code, name, flores, script, direction, endonym)
    return table


LANGUAGES: dict[str, Language] = _read_rows()
"""ISO 639-1 code to language; the languages of the papers first, the others by code."""

_BY_FLORES = {language.flores.lower(): language for language in LANGUAGES.values()}


_SCRIPT_NAMES = {language.flores[4:]: language.script for language in LANGUAGES.values()}


def find_language(code: str) -> Language | None:
    """Return the language of a code in any letter case, or None for what is no code."""
    key = str(code).strip().lower()
    found = LANGUAGES.get(key) or _BY_FLORES.get(key)
    if found is not None or not re.fullmatch(r"[a-z]{3}_[a-z]{4}", key):
        return found
    flores = f"{key[:4]}{key[4:].capitalize()}"
    script = _SCRIPT_NAMES.get(flores[4:]) or (flores[4:] if _is_script(flores[4:]) else None)
    if script is None:
        return None
    return Language(flores, flores, flores, script, "rtl" if script in _RIGHT_TO_LEFT_SCRIPTS else "ltr", flores)


def _is_script(code: str) -> bool:
    import regex

    try:
        regex.compile(rf"\p{{Script={code}}}")
    except regex.error:
        return False
    return True


def get_language(code: str) -> Language:
    """Return the language of an ISO 639-1 code (`el`) or a FLORES code (`ell_Grek`), whatever the letter case.

    Raises:
        UsageError: no such code in `LANGUAGES`, and not the FLORES code of another language either.

    >>> get_language("ell_Grek").name
    'Greek'
    """
    found = find_language(code)
    if found is None:
        suggestion = _suggestion(str(code).strip().lower())
        raise UsageError(
            f"Unknown language code {code!r}.{suggestion} Expected an ISO 639-1 code such as 'el' "
            "(lpr_lab.text.languages.LANGUAGES lists them), or the FLORES code of any language, such as 'cym_Latn' for "
            "Welsh in Latin script."
        )
    return found


def language_name(code: str) -> str:
    """Return the English name of an ISO 639-1 code, or the code itself when it is not in our table."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def direction_of(code: str) -> str:
    """Return `ltr` or `rtl` for a language we know, `auto` for others."""
    found = find_language(code)
    return found.direction if found is not None else "auto"


def get_languages(codes: Iterable[str]) -> tuple[Language, ...]:
    """Return the languages of several codes in the order given.

    Raises:
        UsageError: no code at all, an unknown one, or the same language twice.
    """
    if isinstance(codes, str):
        codes = [codes]
    found = tuple(get_language(code) for code in codes)
    if not found:
        raise UsageError("No language was given; expected at least one code, such as languages=['en', 'el'].")
    twice = sorted({language.code for language in found if found.count(language) > 1})
    if twice:
        raise UsageError(f"Language {', '.join(twice)} was given more than once; name each language once.")
    return found


def _suggestion(key: str) -> str:
    """Suggest by English name first ("greek" -> el), then by similar code."""
    for language in LANGUAGES.values():
        if key in (language.name.lower(), language.endonym.lower(), language.flores[:3]):
            return f" Did you mean {language.code!r}?"
    return did_you_mean(key, [*LANGUAGES, *_BY_FLORES])
