"""Two models compared on the same items: stages of a run, two runs, and never on different items."""

import pytest

from helpers.sample_runs import make_run
from helpers.sample_scores import STAGES, write_scores
from helpers.sample_tasks import write_answers
from lpr_lab.measure.significance import BETTER, UNCLEAR, WORSE
from lpr_lab.runs.compare.paired_tasks import compare_tasks
from lpr_lab.runs.model_ref import BASE, ModelRef


@pytest.fixture
def answered(tmp_path):
    run = make_run(tmp_path)
    write_scores(run)
    write_answers(run)
    return run


def verdicts(before, after):
    found = compare_tasks(before, after)
    assert found is not None
    return {(row["task"], row["language"]): row["verdict"] for row in found.to_dict("records")}


def test_stages_of_a_run_are_compared_from_the_answers_it_kept(answered):
    found = verdicts(ModelRef(answered, BASE), ModelRef(answered, STAGES[0]))
    assert found["choice", "en"] == WORSE and found["choice", "el"] == BETTER
    assert verdicts(ModelRef(answered, BASE), ModelRef(answered, ""))["choice", "en"] == UNCLEAR


def test_two_runs_are_compared_on_the_same_items_and_not_on_others(answered, tmp_path):
    same, other, none = (make_run(tmp_path / name) for name in ("same", "other", "none"))
    for run, texts in ((same, ""), (other, "others")):
        write_scores(run)
        write_answers(run, texts)
    assert set(verdicts(ModelRef(same, ""), ModelRef(answered, "")).values()) == {UNCLEAR}
    assert compare_tasks(ModelRef(other, ""), ModelRef(answered, "")) is None
    assert compare_tasks(ModelRef(none, ""), ModelRef(answered, "")) is None
