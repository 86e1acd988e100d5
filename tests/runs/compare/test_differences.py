"""In what runs differ."""

import pytest

from helpers.sample_runs import make_run, results
from helpers.sample_scores import finished_run
from lpr_lab.runs.compare.differences import compare_runs, flatten
from lpr_lab.runs.environment import describe
from lpr_lab.runs.run import Run
from lpr_lab.views.html.run_overview import mean_of


@pytest.fixture
def first(tmp_path) -> Run:
    run = make_run(tmp_path)
    run.documents.write("data", data("aa"))
    return run


def data(digest: str) -> dict:
    source = {"package": "help-en", "version": "1", "licence": "MPL-2.0"}
    return {"name": "demo", "sources": [source], "texts": {"en": {"dev": {"n_documents": 3, "sha256": digest}}}}


def other(tmp_path, change=lambda found: found, **create) -> Run:
    run = make_run(tmp_path, finished=False, **create)
    run.documents.write("data", data("bb"))
    run.finish(change(results()))
    return run


def names(rows) -> list[str]:
    return [row.name for row in rows if row.differs]


def partial(rows) -> list[str]:
    return [row.name for row in rows if row.is_partial]


def test_a_run_does_not_differ_from_itself(first):
    compared = compare_runs([first, first])
    assert [names(rows) for rows in compared.groups.values()] == [[]] * 5
    assert compared.unlike == ()


def test_settings_text_and_environment_are_told_apart(tmp_path, first):
    second = other(tmp_path, config={**first.config, "seed": 7, "only_here": None})
    second.documents.write("env", describe() | {"seed": 7})
    compared = compare_runs([first, second])
    assert names(compared.settings) == ["seed"]
    assert names(compared.data) == ["texts.en.dev.sha256"]
    assert names(compared.environment) == [] and partial(compared.environment) == ["seed"]
    rows = {row.name: row.texts for row in compared.settings}
    assert rows["seed"] == ("0", "7") and rows["only_here"] == (None, "none")
    assert partial(compared.settings) == ["only_here"]
    assert compared.to_json()["not_recorded_by_all"]["environment"] == ["seed"]


NOTHING = [None, "", [], ()]


@pytest.mark.parametrize("mine", [*NOTHING, "absent"], ids=repr)
@pytest.mark.parametrize("other", [*NOTHING, "absent", 5], ids=repr)
def test_what_neither_run_set_is_no_difference_and_what_one_did_not_record_is_none_either(tmp_path, mine, other):
    runs = []
    for value in (mine, other):
        config = {"recipe": "x"} | ({} if value == "absent" else {"max_minutes": value})
        runs.append(Run.create(tmp_path, kind="expansion", slug="x", title="x", config=config))
    rows = compare_runs(runs).settings
    differ = mine != "absent" and other == 5
    assert names(rows) == (["max_minutes"] if differ else [])
    assert partial(rows) == (["max_minutes"] if (mine == "absent") != (other == "absent") else [])


@pytest.mark.parametrize(("more", "best"), [(0.0, None), (-0.05, 1), (0.05, 0)])
def test_a_run_is_the_best_only_where_the_paired_interval_says_so(tmp_path, more, best):
    runs = [finished_run(tmp_path, "One"), finished_run(tmp_path, "Two", seed=1, more=more)]
    compared = compare_runs(runs)
    rows = {row.name: row for row in (*compared.results, *compared.languages)}
    for name in ("expanded languages, heldout", "original languages, dev", "el, heldout"):
        assert rows[name].best == best and len(set(rows[name].values)) == 2
        assert rows[name].verdict == ("no clear difference" if best is None else "")
        assert rows[name].difference.direction == (0 if best is None else 1 if more > 0 else -1)
    told = compared.to_json()["results"][0]
    assert told["best"] == (None if best is None else runs[best].id)
    assert told["second_minus_first"]["ci_low"] < told["second_minus_first"]["ci_high"]


def test_the_interval_is_paired_so_what_makes_documents_hard_cancels(tmp_path):
    one, two = finished_run(tmp_path, "One"), finished_run(tmp_path, "Two", more=-0.004)
    row = next(row for row in compare_runs([one, two]).results if row.name == "expanded languages, heldout")
    change = mean_of(one.results, "expanded")
    assert row.best == 1 and row.difference.high - row.difference.low < 0.2 * (change.high - change.low)


def test_of_three_runs_none_is_best_while_two_cannot_be_told_apart(tmp_path):
    runs = [finished_run(tmp_path, str(n), seed=n, more=more) for n, more in enumerate((0.1, 0.0, 0.0))]
    assert {row.best for row in compare_runs(runs).results} == {None}
    runs[2] = finished_run(tmp_path, "clear", seed=2, more=-0.1)
    assert {row.best for row in compare_runs(runs).results} == {2}


def test_without_scores_by_document_nobody_is_best_and_what_was_not_measured_is_not_a_number(tmp_path, first):
    def worse(found):
        found["summary"]["heldout"]["expanded"]["mean_change_percent"] = -1.0
        found["change"] = [row for row in found["change"] if row["language"] != "tr"]
        return found

    compared = compare_runs([first, other(tmp_path, worse)])
    rows = {row.name: row for row in compared.results + compared.languages}
    assert rows["expanded languages, heldout"].verdict == "no clear difference"
    assert rows["original languages, heldout"].best is None
    assert rows["tr, heldout"].values[1] is None and rows["tr, heldout"].texts[1] is None


def test_results_on_other_documents_are_named_and_left_out(tmp_path, first):
    def moved(found):
        for row in found["change"]:
            if (row["dataset"], row["language"]) == ("heldout", "el"):
                row["test_set"] = "other"
        return found

    compared = compare_runs([first, other(tmp_path, moved)])
    assert compared.unlike == (("heldout", "el"),)
    assert not [row for row in compared.results if "heldout" in row.name]
    assert "el, heldout" not in {row.name for row in compared.languages} >= {"hu, heldout", "el, dev"}
    assert compared.to_json()["unlike_test_sets"] == [{"dataset": "heldout", "language": "el"}]


def test_changes_from_different_models_are_refused(tmp_path, first):
    compared = compare_runs([first, other(tmp_path, lambda found: {**found, "before": "G1 expand"})])
    assert "different models (G1 expand, base)" in compared.refusal
    assert not compared.results and not compared.languages and compared.settings


def test_runs_without_results_and_of_other_kinds_are_compared_by_what_they_have(tmp_path, first):
    bare = Run.create(tmp_path, kind="plan", slug="x", title="x", config={"budget": 3})
    compared = compare_runs([first, bare])
    assert "budget" in partial(compared.settings) and not names(compared.settings) and partial(compared.environment)
    assert compared.to_json(every=True)["results"]


def test_settings_that_hold_tables_are_written_out():
    assert dict(flatten({"a": [{"b": "é"}], "schema_version": 1})) == {"a": '{"b": "é"}'}
