"""What a page shows can be taken along: each file of its view is there, and its cell gives the first table."""

import io
import json

import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from helpers.cells import last_value
from helpers.sample_experts import write_expert_tables
from helpers.sample_runs import make_run
from helpers.sample_scores import write_lifelong, write_scores, write_slices
from lpr_lab.dashboard import page_data
from lpr_lab.dashboard.shell import PAGES
from lpr_lab.errors import MissingError


@pytest.fixture
def ask(runs_dir):
    client = TestClient(Starlette(routes=[page_data.data_route(runs_dir)]))
    return lambda page, file, **query: client.get(f"/data/{page}/{file}", params=query)


def first_table(ask, page: str, **query: str) -> pd.DataFrame:
    name = next(name for name in ask(page, "index.json", **query).json()["files"] if name.endswith(".csv"))
    return pd.read_csv(io.StringIO(ask(page, name, **query).text))


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    again = pd.read_csv(io.StringIO(found.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, expected, check_exact=True)
    assert len(expected)


VIEWS = {
    "runs": [{}],
    "routing": [{}, {"text": "el"}, {"text": "mixed", "layer": "3", "tok": "2"}],
    "experts": [{}, {"data": "dev"}, {"langs": "el,en"}],
    "retention": [{}, {"data": "dev"}, {"stage2": "G1 expand"}, {"lang": "el", "doc": "3"}],
    "compare": [{}, {"lang": "el"}],
    "plan": [{}, {"rule": "uniform"}, {"rule": "inverse", "budget": "7"}, {"round": "round_up"}],
}


def test_every_page_has_its_views_here():
    assert [name.lower() for name in PAGES] == list(VIEWS)


@pytest.mark.parametrize(("page", "query"), [(page, query) for page, views in VIEWS.items() for query in views])
def test_the_cell_of_a_view_gives_its_first_table_to_the_last_digit(page, query, run, ask):
    write_scores(run)
    write_slices(run)
    index = ask(page, "index.json", **query).json()
    assert ask(page, "view.py", **query).text == index["cell"]
    same(last_value(index["cell"]), first_table(ask, page, **query))


@pytest.mark.parametrize("page", VIEWS)
def test_every_file_that_is_named_is_there_and_is_a_file_to_keep(page, run, ask):
    write_scores(run)
    write_expert_tables(run)
    for file in ask(page, "index.json").json()["files"]:
        answer = ask(page, file)
        assert answer.status_code == 200 and file in answer.headers["content-disposition"]
        if file.endswith(".json"):
            json.loads(answer.text)
        else:
            assert len(pd.read_csv(io.StringIO(answer.text)).columns)


def test_counted_experts_are_those_of_the_stage_that_is_shown(run, ask):
    write_expert_tables(run)
    query = {"stage": "G1 expand"}
    same(last_value(ask("experts", "index.json", **query).json()["cell"]), first_table(ask, "experts", **query))
    assert set(first_table(ask, "experts", **query)["stage"]) == {"G1 expand"}


def test_a_plan_by_hand_is_written_as_it_was_typed(run, ask):
    layers = len(first_table(ask, "plan"))
    query = {"rule": "own", "experts": ",".join(["2", *["0"] * (layers - 1)])}
    table = last_value(ask("plan", "index.json", **query).json()["cell"])
    assert list(table["new_experts"]) == [2, *[0] * (layers - 1)]
    same(table, first_table(ask, "plan", **query))


def test_another_run_stands_before_in_the_cell_as_on_the_page(run, runs_dir, ask):
    other = make_run(runs_dir, slug="other")
    for one in (run, other):
        write_scores(one)
    query = {"run": run.id, "run2": other.id}
    assert other.id in ask("retention", "index.json", **query).json()["cell"]
    same(last_value(ask("retention", "index.json", **query).json()["cell"]), first_table(ask, "retention", **query))


def test_a_lifelong_run_has_its_stages(runs_dir, ask):
    write_lifelong(runs_dir)
    same(last_value(ask("retention", "index.json").json()["cell"]), first_table(ask, "retention"))


@pytest.mark.parametrize(
    ("page", "file", "status"),
    [
        ("nothing", "index.json", 404),
        ("retention", "nothing.csv", 404),
        ("retention", "..%2f..%2fsecret.csv", 404),
        ("as_data", "index.json", 404),
        ("routing", "trace.csv", 404),
    ],
)
def test_what_is_not_there_is_said(page, file, status, run, ask):
    assert ask(page, file).status_code == status


def test_two_that_cannot_be_compared_give_no_table(run, runs_dir, ask):
    other = make_run(runs_dir, slug="other")
    write_scores(run)
    write_scores(other, texts="others")
    assert ask("retention", "index.json", run=run.id, run2=other.id).status_code == 400


def test_without_a_run_there_is_nothing_to_take(runs_dir):
    with pytest.raises(MissingError, match="lpr-lab demo"):
        page_data.data_of("routing", runs_dir, {})
