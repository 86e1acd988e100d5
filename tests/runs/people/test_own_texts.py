"""Texts that readers keep with a run: named, renamed, deleted; ids that stay."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.sample_runs import make_run, make_trace
from lpr_lab.errors import LprError, MissingError, UsageError
from lpr_lab.runs.people.own_texts import (
    MAX_CHARACTERS,
    MAX_LINES,
    MAX_NAME,
    add_texts,
    by_group,
    checked_own_name,
    delete_text,
    imported_text,
    is_kept,
    is_own,
    keep_text,
    new_id,
    own_texts,
    read_lines,
    rename_text,
    suggested_name,
)
from lpr_lab.storage import write_text

OLD = "own-0123abcd"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("own") / "runs")


@pytest.fixture
def clean(run):
    yield run
    for text in own_texts(run):
        delete_text(run, text.id)


def test_texts_are_listed_by_name_and_an_id_never_changes_when_others_come_go_or_are_renamed(clean):
    ids = {name: new_id() for name in ("beta", "Alpha", "gamma")}
    for name, text_id in ids.items():
        keep_text(clean, text_id, name, make_trace(f"The text of {name}.", "en", num_layers=2))
    assert [text.name for text in own_texts(clean)] == ["Alpha", "beta", "gamma"]
    rename_text(clean, ids["beta"], "zeta")
    delete_text(clean, ids["Alpha"])
    assert {text.id: text.name for text in own_texts(clean)} == {ids["beta"]: "zeta", ids["gamma"]: "gamma"}
    assert clean.traces.read(ids["beta"]).text == "The text of beta."
    assert not list((clean.path / "traces").glob(f"{ids['Alpha']}*"))


def test_what_an_earlier_version_kept_without_a_name_is_called_by_its_first_words(clean):
    clean.traces.write(OLD, make_trace("It rained on the last day of the long summer in the town.", "en", num_layers=2))
    (text,) = own_texts(clean)
    assert text.id == OLD and text.name.startswith("It rained on") and text.name.endswith("…")
    rename_text(clean, OLD, "Rain")
    assert own_texts(clean)[0].name == "Rain" and clean.traces.read(OLD).language == "en"


def test_one_that_is_damaged_is_listed_by_its_id_and_can_be_deleted(clean):
    keep_text(clean, OLD, "Rain", make_trace("Rain.", num_layers=2))
    write_text(clean.path / "traces" / f"{OLD}.json", "{")
    assert own_texts(clean)[0].name == OLD
    delete_text(clean, OLD)
    assert own_texts(clean) == []


@pytest.mark.parametrize("text_id", ["el", "../x", "own-", "own-zz", f"own-{'0' * 40}"])
def test_only_typed_texts_can_be_kept_renamed_and_deleted(clean, text_id):
    before = clean.traces.names()
    with pytest.raises(UsageError):
        keep_text(clean, text_id, "x", make_trace("x", num_layers=2))
    for act in (lambda: rename_text(clean, text_id, "x"), lambda: delete_text(clean, text_id)):
        with pytest.raises(MissingError):
            act()
    assert clean.traces.names() == before


@pytest.mark.parametrize("name", ["", " \n", "x" * (MAX_NAME + 1)])
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(clean, name):
    with pytest.raises(UsageError, match=str(MAX_NAME)):
        keep_text(clean, new_id(), name, make_trace("x", num_layers=2))
    assert own_texts(clean) == []


@settings(max_examples=60)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_a_name_is_suggested_for_every_text_and_fits(text):
    if text.strip():
        assert checked_own_name(suggested_name(text))


def test_ids_are_long_and_different():
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100 and all(is_own(name) and len(name) == 36 for name in ids)


def test_imported_texts_lie_in_groups_and_are_edited_moved_traced_and_deleted(clean):
    made = add_texts(clean, ["Μία θάλασσα.", "بحر", "Μία θάλασσα."], " Seas ", "el")
    assert [text.text for text in made] == ["Μία θάλασσα.", "بحر"] and add_texts(clean, ["بحر"], "Seas") == []
    keep_text(clean, traced := new_id(), "A traced one", make_trace("Traced.", "en", num_layers=2), "Seas")
    assert list(by_group(own_texts(clean))) == ["Seas"] and len(own_texts(clean)) == 3
    rename_text(clean, made[0].id, "The sea", "Waters", "Μια άλλη.")
    assert imported_text(clean, made[0].id).text == "Μια άλλη."
    assert {group: len(texts) for group, texts in by_group(own_texts(clean)).items()} == {"Seas": 2, "Waters": 1}
    rename_text(clean, traced, "A traced one", "Waters")
    keep_text(clean, made[1].id, "بحر", make_trace("بحر", "ar", num_layers=2), "Seas")
    assert imported_text(clean, made[1].id) is None and is_kept(clean, made[1].id)
    assert [(text.label, text.is_traced) for text in own_texts(clean)] == [
        ("Seas: بحر", True),
        ("Waters: A traced one", True),
        ("Waters: The sea", False),
    ]
    for text in own_texts(clean):
        delete_text(clean, text.id)
    assert own_texts(clean) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"good\n\xff\xfe bad", "Line 2 is not UTF-8"),
        ("one\n" + "x" * (MAX_CHARACTERS + 1), "Line 2 has 4,001 characters"),
        (b"\n \r\n", "no text in it"),
        ("one\ntwo\0", "Line 2 holds a zero byte"),
        ("x\n\ud83d", "Line 2 is not valid Unicode"),
        ("\n".join(map(str, range(MAX_LINES + 1))), "501 texts in it; at most 500"),
    ],
)
def test_a_file_that_cannot_be_imported_says_which_line(data, said):
    with pytest.raises(UsageError, match=said):
        read_lines(data)


def test_a_file_of_lines_is_read_whatever_ends_them():
    assert read_lines("\ufeffΈνα\r\n\r\n  δύο \n".encode()) == ["Ένα", "δύο"]


def test_a_damaged_file_of_imported_texts_hides_nothing_else_and_is_not_written_over(clean):
    keep_text(clean, new_id(), "Traced", make_trace("Traced.", "en", num_layers=2))
    write_text(clean.path / "own_texts.json", "{")
    assert [text.name for text in own_texts(clean)] == ["Traced"]
    with pytest.raises(LprError):
        add_texts(clean, ["x"])
    (clean.path / "own_texts.json").unlink()
