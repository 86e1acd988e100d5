"""The readers of the demo's packages, on pages and messages written here."""

import pytest

from helpers.toy_archive import help_page, mo_file
from lpr_lab.errors import DamagedError
from lpr_lab.text.demo.debian import get_packages
from lpr_lab.text.demo.readers import clean_message, help_package, read_fiction, read_help, read_mo


def read_page(archive, content: bytes) -> dict[str, str]:
    archive.add("libreoffice-help-tr", {"usr/share/libreoffice/help/tr/text/guide/a.html": content})
    return read_help(get_packages(["libreoffice-help-tr"])["libreoffice-help-tr"])["guide/a.html"]


def test_a_page_gives_its_paragraphs_and_headings_by_id_in_order(archive):
    page = (
        '<div id="DisplayArea"><h1 id="hd_1">Bir  başlık</h1><ul><li><p id="par_1">Kapıyı\n <b>yavaşça</b> açın.</p>'
        '</li></ul><p id="par_0"> </p><p>kimliksiz</p></div><p id="x">dışarıda</p>'
    )
    assert read_page(archive, page.encode()) == {"hd_1.0": "Bir başlık", "par_1.0": "Kapıyı yavaşça açın."}


def test_of_the_wordings_for_several_systems_the_default_one_is_kept(archive):
    page = (
        '<div id="DisplayArea"><p id="p">Önce <span class="switchinline"><span id="MAC1" class="MAC"><b>Command</b>'
        '</span><span id="default1"><b>Ctrl</b></span></span>+F tuşuna, sonra <span class="switchinline">'
        '<span id="WRITER1">Yazıcı</span></span> simgesine basın.</p></div>'
    )
    assert read_page(archive, page.encode()) == {"p.0": "Önce Ctrl+F tuşuna, sonra Yazıcı simgesine basın."}


def test_a_paragraph_included_twice_is_given_once_and_another_text_of_the_same_id_is_kept(archive):
    page = help_page({"p": "Birinci cümle."}).replace(
        b"</div>", '<p id="p">Birinci cümle.</p><p id="p">İkinci cümle.</p></div>'.encode()
    )
    assert read_page(archive, page) == {"p.0": "Birinci cümle.", "p.1": "İkinci cümle."}


def test_an_empty_page_has_no_paragraphs(archive):
    assert read_page(archive, b" \n") == {}


def test_packages_have_the_names_that_debian_gives_them():
    assert [help_package(code) for code in ("en", "zh", "el")] == [
        "libreoffice-help-en-us",
        "libreoffice-help-zh-cn",
        "libreoffice-help-el",
    ]


@pytest.mark.parametrize("order", ["<", ">"])
def test_messages_are_read_in_either_byte_order(order):
    messages = {"The gate is shut.": "Η πύλη είναι κλειστή.", "one boat\0many boats": "μία βάρκα\0πολλές βάρκες"}
    assert list(read_mo(mo_file(messages, order))) == [
        ("The gate is shut.", "Η πύλη είναι κλειστή."),
        ("one boat", "μία βάρκα"),
    ]


@pytest.mark.parametrize("cut", [0, 4, 20, 40, 80])
def test_a_message_file_cut_short_is_refused(cut):
    content = mo_file({"The gate is shut.": "Η πύλη είναι κλειστή."})
    with pytest.raises(DamagedError, match=r"readable \.mo"):
        list(read_mo(content[:cut]))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Halt, <i>stranger</i>!\n Who are you?", "Halt, stranger! Who are you?"),
        ("race+female^River Elf", "River Elf"),
        ("SPECIAL_NOTE^It can swim.", "It can swim."),
        ("menu\x04Open", "Open"),
        ("$unit.name|, you owe me $gold[2].amount gold &amp; $(16 - 2) sheep.", ", you owe me gold & sheep."),
    ],
)
def test_markup_variables_and_context_are_stripped(raw, clean):
    assert clean_message(raw) == clean


def test_fiction_is_aligned_and_leaves_out_what_was_not_translated(archive):
    source = {"The gate is shut.": "", "Nobody came.": "", "Elyssa": ""}
    greek = {**source, "The gate is shut.": "Η πύλη είναι κλειστή.", "Elyssa": "Elyssa"}
    chinese = {**source, "Nobody came.": "没有人来。", "The gate is shut.": "大门关着。"}
    folder = "usr/share/games/wesnoth/1.2/locale"
    members = {
        f"{folder}/el/LC_MESSAGES/toy.mo": mo_file(greek),
        f"{folder}/zh_CN/LC_MESSAGES/toy.mo": mo_file(chinese),
    }
    archive.add("wesnoth-1.2-utbs", members)
    package = get_packages([r"wesnoth-[\d.]+-utbs"])[r"wesnoth-[\d.]+-utbs"]
    texts = read_fiction(package, ["en", "el", "zh", "tr"])
    assert {code: set(messages.values()) for code, messages in texts.items()} == {
        "en": {"The gate is shut.", "Nobody came.", "Elyssa"},
        "el": {"Η πύλη είναι κλειστή."},
        "zh": {"没有人来。", "大门关着。"},
    }
    (shared,) = set(texts["el"]) & set(texts["zh"])
    assert texts["en"][shared] == "The gate is shut."
