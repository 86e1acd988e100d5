"""Slices that runs keep are compared between any two stages, on the same tokens of the same documents only."""

import numpy as np
import pytest

from helpers.sample_scores import STAGES, scored, write_scores, write_slices
from lpr_lab.measure.slices.scores import slice_changes
from lpr_lab.runs.compare.paired_scores import compare
from lpr_lab.runs.compare.paired_slices import compare_slices
from lpr_lab.runs.model_ref import ModelRef
from lpr_lab.runs.run import Run

SET = ["language", "dataset"]


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path, kind="expansion", slug="x", title="One")


@pytest.fixture
def other_run(tmp_path) -> Run:
    return Run.create(tmp_path, kind="expansion", slug="x", title="Other")


def test_runs_give_the_same_slices_from_their_tables_between_any_two_stages(run):
    write_scores(run)
    write_slices(run)
    kept = run.tables.read("slices").rename(columns={"stage": "model"})
    for before, after in (("base", STAGES[1]), STAGES):
        found = compare_slices(ModelRef(run, before), ModelRef(run, "" if after == STAGES[1] else after), "heldout")
        expected = slice_changes(kept[kept["dataset"] == "heldout"], before, after)
        numbers = ["before", "after", "change_percent", "ci_low", "ci_high", "points"]
        assert np.allclose(found[numbers], expected[numbers])
        assert found["slice"].tolist() == expected["slice"].tolist()


def test_slices_of_other_documents_or_other_tokens_are_not_compared(run, other_run):
    write_scores(run)
    write_slices(run)
    write_scores(other_run, texts="other")
    write_slices(other_run, texts="other")
    assert compare_slices(ModelRef(other_run, ""), ModelRef(run, "")) is None
    table = run.tables.read("slices")
    other_run.tables.write("slices", table.assign(tokens=table["tokens"] + (table["slice"] == "rare")))
    found = compare_slices(ModelRef(other_run, ""), ModelRef(run, ""))
    assert "rare" not in set(found["slice"]) and "digits" in set(found["slice"])


def test_points_of_documents_sum_to_the_change_of_their_language(run):
    write_scores(run)
    found = compare(ModelRef(run, "base"), ModelRef(run, ""))
    sums = found.documents.groupby(SET)["points"].sum()
    changes = found.rows.set_index(SET)["change_percent"]
    assert sums.to_dict() == pytest.approx(changes.to_dict())
    assert set(changes.index) == {(test.language, test.dataset) for test in scored()}
