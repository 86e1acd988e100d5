"""Notes on runs: plain text in a file of its own, whole or as it was."""

import os

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.runs import housekeeping
from lpr_lab.runs.people import notes
from lpr_lab.runs.run import Run
from lpr_lab.views.report.page import render_report


def make(root) -> Run:
    return Run.create(root, kind="demo", slug="x", title="A run", config={"seed": 1})


@pytest.fixture
def run(tmp_path) -> Run:
    return make(tmp_path)


def test_notes_touch_nothing_else_and_nothing_takes_them_away(run):
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    assert notes.write_notes(run, "  Το καλύτερο.\r\nمرة أخرى \n") == "Το καλύτερο.\nمرة أخرى" == notes.read_notes(run)
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.name != "notes.md"} == before
    assert notes.write_notes(run, " ") == "" and not (run.path / "notes.md").exists()
    assert notes.write_notes(run, "") == ""


def test_too_long_a_note_and_half_a_character_are_refused_and_the_old_one_stays(run):
    notes.write_notes(run, "old")
    with pytest.raises(UsageError, match=r"2,001 characters.*shorten it by 1"):
        notes.write_notes(run, "x" * 2001)
    with pytest.raises(UsageError, match="half of a character"):
        notes.write_notes(run, "\ud83d")
    assert notes.read_notes(run) == "old" and len(notes.write_notes(run, "x" * 2000)) == 2000


def test_what_somebody_else_wrote_meanwhile_is_not_written_over(run):
    notes.write_notes(run, "theirs", seen="")
    with pytest.raises(UsageError, match="changed the notes"):
        notes.write_notes(run, "mine", seen="")
    assert notes.write_notes(run, "theirs", seen="") == "theirs"
    assert notes.write_notes(run, "theirs and mine", seen="theirs") == "theirs and mine"


def test_tags_that_others_put_on_meanwhile_stay(run):
    housekeeping.tag(run, ["a", "b"])
    housekeeping.tag(run, ["theirs"])
    housekeeping.tag(run, ["b"], remove=True)
    assert housekeeping.retag(run, ["new", "a"], seen=["a", "b"]) == ("a", "new", "theirs")
    assert housekeeping.retag(run, [], seen=["a", "new"]) == ("theirs",)
    with pytest.raises(UsageError, match="is no tag"):
        housekeeping.retag(run, ["<b>"], seen=["theirs"])
    assert housekeeping.read_tags(run) == ("theirs",)


def test_an_example_and_a_folder_that_is_read_only_are_refused_in_words(tmp_path, run, monkeypatch):
    example = make(tmp_path / "examples")
    monkeypatch.setattr(os, "access", lambda path, mode: path != run.path)
    for one, reason in ((example, "an example"), (run, "is read only here")):
        with pytest.raises(UsageError, match=reason):
            notes.write_notes(one, "x")
        with pytest.raises(UsageError, match=reason):
            housekeeping.tag(one, ["x"])
        assert not (one.path / "notes.md").exists() and not (one.path / "tags.json").exists()


def test_the_report_has_tags_and_notes_escaped(run):
    notes.write_notes(run, "<script>boom()</script>\n${x} מחר")
    housekeeping.tag(run, ["best"])
    report = render_report([run])
    assert "&lt;script&gt;boom()&lt;/script&gt;\n${x} מחר" in report and "#best" in report
    assert "<script>boom" not in report


def test_a_list_has_the_first_line(run):
    assert notes.first_line(" one\n\n") == "one" and notes.first_line("a" * 121) == "a" * 120 + "…"
