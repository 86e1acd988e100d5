import pytest

from lpr_lab.errors import DamagedError, MissingError, UsageError
from lpr_lab.experiments.studies.predecessors import find_predecessor
from lpr_lab.runs.run import Run
from lpr_lab.storage import read_json, write_json, write_text


def make(root, created: str = "", *, kind: str = "upcycle", finished: bool = True, base: str = "tiny") -> Run:
    run = Run.create(root, kind=kind, slug="", title=f"{kind} of {base}", config={"base": base})
    if finished:
        run.start()
        run.finish({})
    if created:
        facts = read_json(run.path / "run.json")
        write_json(run.path / "run.json", facts | {"created": created})
    return Run(run.path)


def find(root, run_id: str = "", made: list | None = None) -> Run:
    def make_one() -> Run:
        assert made is not None, "none should have been made"
        made.append(make(root))
        return made[-1]

    return find_predecessor(
        root,
        run_id,
        suits=lambda run: run.kind == "upcycle" and run.config["base"] == "tiny",
        what="an upcycled model of tiny",
        make=make_one,
    )


def test_without_a_name_it_is_the_newest_finished_run_that_suits(tmp_path):
    make(tmp_path, "2026-01-01T00:00:00Z")
    newest = make(tmp_path, "2026-01-03T00:00:00Z")
    make(tmp_path, "2026-01-02T00:00:00Z")
    make(tmp_path, "2026-01-04T00:00:00Z", finished=False)
    make(tmp_path, "2026-01-05T00:00:00Z", kind="plan")
    make(tmp_path, "2026-01-06T00:00:00Z", base="another")
    assert find(tmp_path).id == newest.id


def test_where_none_suits_one_is_made_once(tmp_path):
    make(tmp_path, kind="plan")
    made: list[Run] = []
    first, again = find(tmp_path, made=made), find(tmp_path, made=made)
    assert [run.id for run in made] == [first.id] == [again.id]


def test_a_run_that_was_named_is_taken_though_others_are_newer(tmp_path):
    named = make(tmp_path, "2026-01-01T00:00:00Z")
    make(tmp_path, "2026-01-03T00:00:00Z")
    assert find(tmp_path, named.id).id == named.id


def test_a_named_run_that_does_not_suit_is_refused_with_those_that_would(tmp_path):
    plan = make(tmp_path, kind="plan")
    with pytest.raises(UsageError, match=r"kind plan .*upcycled .*tiny.* None"):
        find(tmp_path, plan.id)
    fit = make(tmp_path)
    with pytest.raises(UsageError, match=f"would do: {fit.id}"):
        find(tmp_path, plan.id)


def test_a_named_run_that_is_not_finished_is_refused_by_its_state(tmp_path):
    waiting = make(tmp_path, finished=False)
    with pytest.raises(UsageError, match=r"queued.* upcycled .*tiny.* finished"):
        find(tmp_path, waiting.id)


def test_a_name_that_is_no_run_gets_the_closest_one(tmp_path):
    run = make(tmp_path)
    with pytest.raises(MissingError, match=f"mean .*{run.id}"):
        find(tmp_path, run.id[:-1] + "x")


def test_a_damaged_run_is_passed_over_when_searching_and_named_when_asked_for(tmp_path):
    fit = make(tmp_path, "2026-01-01T00:00:00Z")
    unreadable, no_settings = make(tmp_path, "2026-01-02T00:00:00Z"), make(tmp_path, "2026-01-03T00:00:00Z")
    write_text(unreadable.path / "run.json", "{")
    write_text(no_settings.path / "config.yaml", "- not settings\n")
    assert find(tmp_path).id == fit.id
    for damaged in (unreadable, no_settings):
        with pytest.raises(DamagedError):
            find(tmp_path, damaged.id)
