"""In what runs differ."""

import pytest
from sample_runs import make_run, results

from lpr_lab.experiments.run_differences import compare_runs, flatten
from lpr_lab.experiments.runs import Run


@pytest.fixture
def first(tmp_path) -> Run:
    run = make_run(tmp_path)
    run.write_data(data("aa"))
    return run


def data(digest: str) -> dict:
    source = {"package": "help-en", "version": "1", "licence": "MPL-2.0"}
    return {"name": "demo", "sources": [source], "texts": {"en": {"dev": {"n_documents": 3, "sha256": digest}}}}


def other(tmp_path, change=lambda found: found, **create) -> Run:
    run = make_run(tmp_path, finished=False, **create)
    run.write_data(data("bb"))
    run.finish(change(results()))
    return run


def names(rows) -> list[str]:
    return [row.name for row in rows if row.differs]


def test_a_run_does_not_differ_from_itself(first):
    compared = compare_runs([first, first])
    assert [names(rows) for rows in compared.groups.values()] == [[]] * 5
    assert compared.unlike == ()


def test_settings_text_and_environment_are_told_apart(tmp_path, first):
    second = other(tmp_path, config={**first.config, "seed": 7, "only_here": None})
    second.write_env(seed=7)
    compared = compare_runs([first, second])
    assert names(compared.settings) == ["seed"]
    assert names(compared.data) == ["texts.en.dev.sha256"]
    assert names(compared.environment) == ["seed"]
    rows = {row.name: row.texts for row in compared.settings}
    assert rows["seed"] == ("0", "7") and rows["only_here"] == (None, None)


def test_the_smaller_change_is_the_best_and_what_was_not_measured_is_not_a_number(tmp_path, first):
    def worse(found):
        found["summary"]["heldout"]["expanded"]["mean_change_percent"] = -1.0
        found["change"] = [row for row in found["change"] if row["language"] != "tr"]
        return found

    compared = compare_runs([first, other(tmp_path, worse)])
    rows = {row.name: row for row in compared.results + compared.languages}
    assert rows["expanded languages, heldout"].best == min(rows["expanded languages, heldout"].values)
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
    assert "budget" in names(compared.settings) and names(compared.environment)
    assert compared.to_json(every=True)["results"]


def test_settings_that_hold_tables_are_written_out():
    assert dict(flatten({"a": [{"b": "é"}], "schema_version": 1})) == {"a": '{"b": "é"}'}
