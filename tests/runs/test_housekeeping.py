"""Tags on runs, and moving runs out of the way."""

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.runs import housekeeping
from lpr_lab.runs.find import list_runs, newest_run
from lpr_lab.runs.lineage import ancestors_of, children_of
from lpr_lab.runs.run import Run


def make(root, **changes) -> Run:
    return Run.create(root, **({"kind": "demo", "slug": "x", "title": "A run", "config": {"seed": 1}} | changes))


def test_tags_are_kept_once_in_one_spelling_and_touch_nothing_else(tmp_path):
    run = make(tmp_path)
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    assert housekeeping.read_tags(run) == ()
    assert housekeeping.tag(run, ["βραβείο", "v1.2", "cafe\u0301"]) == ("café", "v1.2", "βραβείο")
    assert housekeeping.tag(run, ["café"]) == housekeeping.read_tags(Run.open(tmp_path, run.id))
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.name != "tags.json"} == before
    assert housekeeping.tag(run, ["café", "v1.2"], remove=True) == ("βραβείο",)


@pytest.mark.parametrize("word", ["हिन्दी", "ไทย", "বাংলা", "العربية", "中文", "a+b", "x-1_2.3"])
def test_a_tag_can_be_a_word_of_any_script(word):
    assert housekeeping.checked_tag(word) == word


@pytest.mark.parametrize("word", ["", "two words", "a,b", "<b>", "a\nb", "x" * 41, "../x", "\u0301"])
def test_what_is_not_one_word_is_refused(word):
    with pytest.raises(UsageError, match="is no tag"):
        housekeeping.checked_tag(word)


def test_a_tag_that_is_not_there_and_an_example_are_refused_in_words(tmp_path):
    run, example = make(tmp_path), make(tmp_path / "examples")
    with pytest.raises(UsageError, match="has no tag 'best'"):
        housekeeping.tag(run, ["best"], remove=True)
    with pytest.raises(UsageError, match=f"{example.id} .*read only"):
        housekeeping.tag(example, ["best"])


def test_a_removed_run_lies_whole_in_the_trash_and_comes_back_by_moving_it(tmp_path):
    older, run = make(tmp_path), make(tmp_path)
    (removal,) = housekeeping.remove(tmp_path, [run])
    assert [one.id for one in list_runs(tmp_path)] == [older.id]
    assert (tmp_path / "latest").resolve() == older.path and removal.target == tmp_path / ".trash" / run.id
    removal.target.rename(run.path)
    assert {one.id for one in list_runs(tmp_path)} == {older.id, run.id}
    assert Run.open(tmp_path, run.id).config == {"seed": 1}


def test_a_second_run_of_the_same_name_does_not_replace_the_first_in_the_trash(tmp_path):
    run = make(tmp_path)
    (first,) = housekeeping.remove(tmp_path, [run])
    run.path.mkdir()
    (second,) = housekeeping.remove(tmp_path, [Run(run.path)])
    assert first.target != second.target and (first.target / "run.json").exists()
    assert newest_run(tmp_path) is None and not (tmp_path / "latest").exists()


def test_nothing_moves_when_one_of_several_must_stay(tmp_path):
    idle, busy, example = make(tmp_path), make(tmp_path), make(tmp_path / "examples")
    busy.start()
    with pytest.raises(UsageError, match=f"{busy.id} .*worked on"):
        housekeeping.remove(tmp_path, [idle, Run(busy.path)])
    with pytest.raises(UsageError, match="an example"):
        housekeeping.remove(tmp_path, [idle, example])
    busy.stop("interrupted")
    assert len(list_runs(tmp_path)) == 3
    assert len(housekeeping.remove(tmp_path, [idle, busy], dry_run=True)) == 2
    assert len(list_runs(tmp_path)) == 3


def test_children_are_named_unless_they_leave_too(tmp_path):
    parent = make(tmp_path)
    child = make(tmp_path, parents=[parent.id])
    by_settings = make(tmp_path, config={"parent": child.id})
    assert ancestors_of(by_settings, list_runs(tmp_path)) == [parent.id, child.id]
    assert [one.id for one in children_of(parent, list_runs(tmp_path))] == [child.id]
    (alone,) = housekeeping.remove(tmp_path, [parent], dry_run=True)
    assert alone.children == (child.id,)
    first, second = housekeeping.remove(tmp_path, [parent, child], dry_run=True)
    assert first.children == () and second.children == (by_settings.id,)


def test_runs_that_name_one_another_as_parents_do_not_go_round_for_ever(tmp_path):
    first = make(tmp_path)
    second = make(tmp_path, config={"parent": first.id})
    (first.path / "config.yaml").write_text(f'parent: "{second.id}"\n')
    assert ancestors_of(second, list_runs(tmp_path)) == [first.id]
