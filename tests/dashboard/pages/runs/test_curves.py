"""Ticked runs are drawn over one another, at an address, with their numbers as a table, CSV and Python."""

import io

import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from helpers.cells import last_value
from lpr_lab.dashboard import page_data, shell
from lpr_lab.dashboard.pages.runs.page import chosen_curves
from lpr_lab.runs.run import Run, short_id
from lpr_lab.views.numbers import count


@pytest.fixture
def runs(runs_dir):
    made = [Run.create(runs_dir, kind="expansion", slug="el", title=f"Run {n} ไทย مرحبا", config={}) for n in (1, 2, 3)]
    for run, tokens in zip(made[:2], (1000, 2000), strict=True):
        for step in (1, 2, 3):
            numbers = {"lm_loss": 3 / step, "least_load": 0.5}
            run.metrics.log({"step": step, "tokens": tokens * step, "t": 1.0, **numbers}, stage="expand")
    return made


def test_ticked_runs_share_a_panel_and_the_table_says_the_same_numbers(runs, runs_dir):
    query = {"run": runs[2].id, "runs": ",".join(run.id for run in runs), "view": "lm_loss"}
    card, picker, said, figure = chosen_curves(shell.page_context(runs_dir, query), runs_dir)
    assert card["visible"] and set(picker["choices"]) == {"lm_loss", "least_load"} and picker["value"] == "lm_loss"
    drawn = {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in figure.data}
    assert drawn == {
        short_id(runs[0].id): [(1000, 3), (2000, 1.5), (3000, 1)],
        short_id(runs[1].id): [(2000, 3), (4000, 1.5), (6000, 1)],
    }
    table = pd.read_html(io.StringIO(str(said)))[0]
    assert table["last"].tolist() == [1, 1] and table["tokens"].tolist() == [count(3000), count(6000)]
    assert table["after the same tokens"].tolist() == [f"{n} at {count(3000)}" for n in (1, 3)]
    assert f"Nothing was recorded by {short_id(runs[2].id)}" in said


def test_one_ticked_run_leaves_the_curves_of_the_chosen_one(runs, runs_dir):
    query = {"run": runs[0].id, "runs": runs[1].id}
    figure = chosen_curves(shell.page_context(runs_dir, query), runs_dir)[-1]
    assert list(figure.data[0].x) == [1000, 2000, 3000]


def test_the_numbers_of_ticked_runs_are_taken_along_as_csv_and_as_python(runs, runs_dir):
    client = TestClient(Starlette(routes=[page_data.data_route(runs_dir)]))
    query = {"run": runs[2].id, "runs": f"{runs[0].id},{runs[1].id}"}
    index = client.get("/data/runs/index.json", params=query).json()
    assert index["files"][0] == "training_compared.csv"
    found = pd.read_csv(io.StringIO(client.get("/data/runs/training_compared.csv", params=query).text))
    assert len(found) == 12 and set(found["run"]) == {runs[0].id, runs[1].id}
    again = pd.read_csv(io.StringIO(last_value(index["cell"]).to_csv(index=False)))
    pd.testing.assert_frame_equal(found, again, check_exact=True)
