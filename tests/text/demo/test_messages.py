"""Messages of programs and of MediaWiki, from packages written here."""

import json

import pytest

from helpers.toy_archive import mo_file
from lpr_lab.errors import DamagedError
from lpr_lab.text.demo.debian import get_packages
from lpr_lab.text.demo.messages import clean_wikitext, read_interface, read_messages


def test_a_message_is_in_the_document_that_its_english_decides(archive, sentences):
    """So it is in the same split in every language."""
    for code in ("bn", "hi"):
        messages = dict(zip(sentences["en"], sentences[code], strict=True))
        archive.add(f"toy-{code}", {f"usr/share/locale/{code}/LC_MESSAGES/toy.mo": mo_file(messages)})
    found = {}
    for code in ("bn", "hi"):
        package = get_packages([f"toy-{code}"])[f"toy-{code}"]
        own, english = read_messages([package], code)
        assert {key for page in own.values() for key in page} == {key for page in english.values() for key in page}
        found[code] = {key: name.split("/")[1] for name, page in own.items() for key in page}
        assert {text for page in own.values() for text in page.values()} == set(sentences[code])
    assert found["bn"] == found["hi"]


def test_messages_of_every_place_and_region_are_read_without_their_accelerators(archive):
    places = (
        "usr/share/locale/bn/LC_MESSAGES/a.mo",
        "usr/share/locale/bn_IN/LC_MESSAGES/b.mo",
        "usr/lib/libreoffice/program/resource/bn/LC_MESSAGES/c.mo",
        "usr/share/wordpress/wp-content/languages/bn_BD.mo",
    )
    members = {place: mo_file({f"_Open {n}": f"খুলুন {n} (_O)"}) for n, place in enumerate(places)}
    members["usr/share/locale/hi/LC_MESSAGES/a.mo"] = mo_file({"_Open": "खोलें"})
    archive.add("toy", members)
    own, english = read_messages([get_packages(["toy"])["toy"]], "bn")
    assert sorted(text for page in own.values() for text in page.values()) == [f"খুলুন {n} (O)" for n in range(4)]
    assert sorted(text for page in english.values() for text in page.values()) == [f"Open {n}" for n in range(4)]


def test_the_interface_has_the_same_keys_in_all_languages_without_what_was_left_in_english(archive):
    folder = "usr/share/mediawiki/extensions/Toy/i18n"
    english = {"@metadata": {"authors": []}, "toy-a": "The page was saved.", "toy-b": "Toy"}
    members = {
        f"{folder}/en.json": json.dumps(english).encode(),
        f"{folder}/el.json": json.dumps({**english, "toy-a": "Η σελίδα αποθηκεύτηκε."}).encode(),
        f"{folder}/zh-hans.json": json.dumps({"toy-a": "页面已保存。"}).encode(),
        "usr/share/mediawiki/other/el.json": b"{}",
    }
    archive.add("mediawiki", members)
    found = read_interface(get_packages(["mediawiki"])["mediawiki"], ["en", "el", "zh"])
    assert {code: [key.split(":")[1] for key in texts] for code, texts in found.items()} == {
        "en": ["toy-a", "toy-b"], "el": ["toy-a"], "zh": ["toy-a"],
    }  # fmt: skip


def test_an_interface_file_that_is_no_json_is_named(archive):
    archive.add("mediawiki", {"usr/share/mediawiki/languages/i18n/en.json": b"{"})
    with pytest.raises(DamagedError, match=r"i18n/en\.json"):
        read_interface(get_packages(["mediawiki"])["mediawiki"], ["en"])


def test_wiki_markup_is_taken_away():
    assert clean_wikitext("See [[Special:Log|the log]] and [https://example.org here].") == "See the log and here."
    assert clean_wikitext("{{PLURAL:$1|one|more}} ''really'' <b>here</b>") == "really here"
