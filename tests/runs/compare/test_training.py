"""The training of several runs, lined up: each stage by its tokens, and where the shortest run of it ended."""

import pandas as pd
import pytest

from lpr_lab.runs.compare.training import at_common_tokens, training_of
from lpr_lab.runs.run import Run


@pytest.fixture
def runs(tmp_path):
    made = [Run.create(tmp_path / "runs", kind="expansion", slug=name, title=name, config={}) for name in "abc"]
    for run, tokens, stages in zip(made, (1000, 1500, 1), (["expand"], ["expand", "review"], []), strict=True):
        for stage in stages:
            for step in range(1, 5 if stage == "expand" else 2):
                numbers = {"lm_loss": tokens / step, "lr": 1.0}
                run.metrics.log({"step": step, "tokens": tokens * step, "t": 1.0, **numbers}, stage=stage)
    return made


def test_every_number_is_there_with_the_run_it_is_of(runs):
    table = training_of(runs)
    assert table.columns[0] == "run" and len(table) == 2 * (4 + 5)
    for run in runs[:2]:
        part = table[table["run"] == run.id].drop(columns="run").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, run.metrics.read(), check_dtype=False)
    assert training_of(runs[2:]).empty and training_of([]).empty


def test_runs_are_read_where_the_shortest_of_them_ended_a_stage(runs):
    found = at_common_tokens(training_of(runs), "lm_loss").set_index(["stage", "run"])
    one, other = runs[0].id, runs[1].id
    assert found["tokens"].to_dict() == {("expand", one): 4000, ("expand", other): 6000, ("review", other): 1500}
    assert found["common_tokens"].to_dict() == {("expand", one): 4000, ("expand", other): 4000, ("review", other): 1500}
    # Of the other run the newest step that is not beyond 4000 tokens is the second.
    assert found["at_common"].to_dict() == {("expand", one): 250, ("expand", other): 750, ("review", other): 1500}
    assert found["last"].to_dict() == {("expand", one): 250, ("expand", other): 375, ("review", other): 1500}
    assert at_common_tokens(training_of(runs), "accuracy").empty
