"""The languages that this project knows by name: codes, script and writing direction.

One table. The key is the ISO 639-1 code, used everywhere in this project; the FLORES code (`ell_Grek`) is what data
sets and evaluation suites use. A language that is not in the table is used by its FLORES code: `cym_Latn` says all that
has to be known of Welsh, except its name.

`get_language` takes whatever labels mean one language in one script: either code, the three letters of ISO 639-2 or
639-3 (`ell`, `gre`), withdrawn codes (`iw`), the code of a group for its largest member (`no`, `ara`), and tags of
BCP 47 (`pt-BR`, `zh_TW`, `sr-Latn`). A region says nothing but the script, where the two go together; a script other
than the usual one makes another language (`srp_Latn` beside `sr`), because nothing that is measured is the same in it.
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


CIPHER_NAMES = {
    "qaa_Latn": "English cipher, no letter kept",
    "qab_Latn": "English cipher, 25% of letters kept",
    "qac_Latn": "English cipher, 50% of letters kept",
    "qad_Latn": "English cipher, 75% of letters kept",
    "qae_Latn": "English, words mirrored",
    "qaf_Latn": "Spanish cipher, no letter kept",
}
"""Languages that we made (`text.worlds.ciphers`), by codes for private use of ISO 639-3."""

_SCRIPT_NAMES = {language.flores[4:]: language.script for language in LANGUAGES.values()} | {"Hant": "Han"}


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in text.split(","):
        left, right = pair.split()
        pairs[left] = right
    return pairs


_FLORES_OF_CODE = _pairs("""
af afr_Latn, am amh_Ethi, as asm_Beng, az azj_Latn, be bel_Cyrl, bo bod_Tibt, bs bos_Latn, cy cym_Latn, dz dzo_Tibt,
ee ewe_Latn, eo epo_Latn, fo fao_Latn, ga gle_Latn, gd gla_Latn, ha hau_Latn, ht hat_Latn, ig ibo_Latn, jv jav_Latn,
ku kmr_Latn, ky kir_Cyrl, lb ltz_Latn, lg lug_Latn, ln lin_Latn, mg plt_Latn, mi mri_Latn, mn khk_Cyrl, mt mlt_Latn,
nn nno_Latn, ny nya_Latn, oc oci_Latn, om gaz_Latn, or ory_Orya, ps pbt_Arab, rn run_Latn, rw kin_Latn, sa san_Deva,
sc srd_Latn, sd snd_Arab, sg sag_Latn, sm smo_Latn, sn sna_Latn, so som_Latn, ss ssw_Latn, st sot_Latn, su sun_Latn,
tg tgk_Cyrl, ti tir_Ethi, tk tuk_Latn, tn tsn_Latn, ts tso_Latn, tt tat_Cyrl, ug uig_Arab, wo wol_Latn, xh xho_Latn,
yi ydd_Hebr, yo yor_Latn, zu zul_Latn
""")
"""ISO 639-1 code to FLORES code of languages that are not in the table. Of a group of languages, its largest member."""

_ALIASES = _pairs("""
no nb, nor nb, iw he, in id, ji yi, jw jv, mo ro, mol ro, fil tl, cmn zh, ara ar, fas fa, msa ms, lav lv, sqi sq,
swa sw, uzb uz, nep ne, ekk et, aze az, kur ku, mlg mg, mon mn, orm om, ori or, pus ps, yid yi, alb sq, arm hy, baq eu,
bur my, chi zh, cze cs, dut nl, fre fr, geo ka, ger de, gre el, ice is, mac mk, may ms, per fa, rum ro, slo sk, tib bo,
wel cy
""")
"""Other codes of the same languages: withdrawn ones, ISO 639-2/B, and groups that stand for their largest member."""

_SCRIPT_OF_REGION = {
    ("zh", "tw"): "Hant", ("zh", "hk"): "Hant", ("zh", "mo"): "Hant", ("sr", "me"): "Latn", ("pa", "pk"): "Arab",
    ("uz", "af"): "Arab", ("kk", "cn"): "Arab", ("az", "ir"): "Arab", ("ku", "iq"): "Arab",
}  # fmt: skip
"""Where a region writes a language in another script than the usual one (CLDR, likely subtags)."""

_SCRIPT_ALIASES = {"kore": "Hang", "hani": "Hans"}
"""Scripts that web corpora write instead of the one that FLORES has: `kor_Kore`, `cmn_Hani`."""

_USUAL_FLORES = {language.flores[:3]: language.flores for language in LANGUAGES.values()} | {
    flores[:3]: flores for flores in _FLORES_OF_CODE.values()
}
"""ISO 639-3 code to FLORES code, of every language that has an ISO 639-1 code here."""

_TAG = re.compile(
    r"(?P<language>[a-z]{2,3})([-_](?P<script>[a-z]{4}))?([-_](?P<region>[a-z]{2}|[0-9]{3}))?", re.IGNORECASE
)
"""A language tag of BCP 47: language, script, region. Variants are not taken: `my-texts` is not Burmese."""


def find_language(code: str) -> Language | None:
    """Return the language of a code or tag in any letter case, or None for what is neither."""
    given = str(code).strip()
    key = given.lower()
    found = LANGUAGES.get(key) or _BY_FLORES.get(key)
    parts = _TAG.fullmatch(given)
    if found is not None or parts is None:
        return found
    own = _ALIASES.get(parts["language"].lower(), parts["language"].lower())
    usual = LANGUAGES[own].flores if own in LANGUAGES else _FLORES_OF_CODE.get(own) or _USUAL_FLORES.get(own)
    region = parts["region"] or ""
    if region.islower() and region != own and (region in LANGUAGES or region in _FLORES_OF_CODE):
        return None  # `en-de` may be English in Germany, or a pair of languages
    script = parts["script"] or _SCRIPT_OF_REGION.get((own, region.lower()))
    if script is None:
        return _by_flores(usual) if usual is not None else None
    script = _SCRIPT_ALIASES.get(script.lower(), script.capitalize())
    three_letters = usual[:3] if usual is not None else own
    return _by_flores(f"{three_letters}_{script}") if len(three_letters) == 3 else None


def _by_flores(flores: str) -> Language | None:
    """Return the language of a FLORES code in its usual letter case, or None if there is no such script."""
    if flores.lower() in _BY_FLORES:
        return _BY_FLORES[flores.lower()]
    script = _SCRIPT_NAMES.get(flores[4:]) or (flores[4:] if _is_script(flores[4:]) else None)
    if script is None:
        return None
    name = CIPHER_NAMES.get(flores, flores)
    return Language(flores, name, flores, script, "rtl" if script in _RIGHT_TO_LEFT_SCRIPTS else "ltr", flores)


def _is_script(code: str) -> bool:
    import regex

    try:
        regex.compile(rf"\p{{Script={code}}}")
    except regex.error:
        return False
    return True


def get_language(code: str) -> Language:
    """Return the language of an ISO 639 code (`el`), a FLORES code (`ell_Grek`) or a tag (`el-GR`), in any letter case.

    Raises:
        UsageError: nothing that names one language in one script.

    >>> get_language("ell_Grek").name, get_language("pt-BR").code, get_language("sr-Latn").code
    ('Greek', 'pt', 'srp_Latn')
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
    """Return the English name of an ISO 639-1 code or of a cipher, or the code itself when it is not in our tables."""
    return LANGUAGES[code].name if code in LANGUAGES else CIPHER_NAMES.get(code, code)


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


def language_codes(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the codes of some labels; one that names no language stays, and is refused where text is asked for in it.

    >>> language_codes(["ell", "pt-BR", "nowhere"])
    ('el', 'pt', 'nowhere')
    """
    return tuple(found.code if (found := find_language(label)) is not None else label for label in labels)


def _suggestion(key: str) -> str:
    """Suggest by name first ("greek" -> el), then what a tag begins with ("en-de" -> en), then by similar code."""
    named = find_by_name(key)
    if named is None and re.fullmatch(r"[a-z]{2,3}([-_][a-z\d]+)+", key):
        named = find_language(re.split("[-_]", key)[0])
    return f" Did you mean {named.code!r}?" if named is not None else did_you_mean(key, [*LANGUAGES, *_BY_FLORES])


def find_by_name(name: str) -> Language | None:
    """Return the language of the table that has this English name or endonym, in any letter case."""
    key = name.strip().lower()
    return next((one for one in LANGUAGES.values() if key in (one.name.lower(), one.endonym.lower())), None)
