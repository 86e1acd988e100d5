"""The named endpoints, as a program uses them: the same numbers as on the pages, and nothing but them."""

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from helpers.sample_runs import make_plan_run, make_run
from lpr_lab.dashboard import api, serve
from lpr_lab.dashboard.server import model_queue
from lpr_lab.errors import LprError, MissingError, UsageError
from lpr_lab.runs.run import Run
from lpr_lab.storage import write_text

PARAMETERS = {
    "/list_runs": [],
    "/trace_text": ["run", "text", "language"],
    "/expert_load": ["run", "language", "layer"],
    "/retention": ["run"],
    "/generate_pair": ["run", "prompt", "max_new_tokens", "temperature", "seed"],
    "/plan": ["run", "budget", "rule", "rounding", "top_k", "similarity"],
}


def test_runs_are_listed_with_what_they_are_and_broken_ones_with_the_reason(runs_dir, run):
    broken = make_run(runs_dir)
    write_text(broken.path / "run.json", "{")
    found = {one["id"]: one for one in api.endpoints(runs_dir)["list_runs"]()}
    assert found[run.id]["expanded"] == ["el", "hu", "tr"] and found[run.id]["has_weights"] is False
    assert set(found[broken.id]) == {"id", "problem"}


def test_tables_come_as_objects_and_can_be_narrowed(runs_dir, run):
    offered = api.endpoints(runs_dir)
    row = next(row for row in offered["retention"](run.id) if row["language"] == "el" and row["dataset"] == "heldout")
    assert row["change_percent"] == -21.8 and row["verdict"] == "better"
    few = offered["expert_load"](run.id, "el", 3)
    assert {(row["language"], row["layer"]) for row in few} == {("el", 3)} and len(few) == 2


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "a/b", "", "/etc"])
def test_no_path_is_followed_from_a_run_id(runs_dir, run, run_id):
    with pytest.raises(UsageError, match="not a run id"):
        api.endpoints(runs_dir)["retention"](run_id)


def test_what_is_not_there_is_a_sentence(runs_dir, run):
    offered = api.endpoints(runs_dir)
    with pytest.raises(MissingError, match="There is no run"):
        offered["retention"]("20200101-000000Z-gone-0000")
    bare = Run.create(runs_dir, kind="expansion", slug="x", title="Bare", config={})
    with pytest.raises(UsageError, match="not measured"):
        offered["retention"](bare.id)
    with pytest.raises(LprError, match="no weights"):
        offered["trace_text"](run.id, "Καλημέρα.")
    with pytest.raises(UsageError, match="at most 4,000"):
        offered["trace_text"](run.id, "x" * 5000)
    with pytest.raises(UsageError, match="1 to 256 tokens"):
        offered["generate_pair"](run.id, "x", 1000)


def test_a_plan_is_the_one_of_the_page(runs_dir):
    run = make_plan_run(runs_dir)
    plan = api.endpoints(runs_dir)["plan"]
    found = plan(run.id, budget=60)
    assert sum(found["allocation"]) == 60 == found["new_experts"] and len(found["allocation"]) == 30
    assert found["parameters_added"] == 60 * 2_654_208 and found["stage1_seconds"] is None
    assert f"allocation: [{', '.join(map(str, found['allocation']))}]" in found["plan_yaml"]
    assert plan(run.id, budget=6, rule="first", similarity=[0.2] * 30)["allocation"][:7] == [1] * 6 + [0]
    with pytest.raises(UsageError, match="expected similarity"):
        plan(run.id, rule="fair")
    with pytest.raises(UsageError, match="30 layers"):
        plan(run.id, similarity=[0.1, 0.2])


@pytest.mark.slow
def test_programs_find_exactly_the_named_endpoints_and_can_use_them(tmp_path):
    run = make_run(tmp_path)
    make_plan_run(tmp_path)
    client = Client(serve(tmp_path, port=None, open_browser=False, block=False), verbose=False)
    offered = client.view_api(return_format="dict", print_info=False)
    assert isinstance(offered, dict)
    named = offered["named_endpoints"]
    assert not offered["unnamed_endpoints"]
    assert {name: [one["parameter_name"] for one in facts["parameters"]] for name, facts in named.items()} == PARAMETERS
    assert all(facts["description"] for facts in named.values())
    assert {one["id"] for one in client.predict(api_name="/list_runs")} >= {run.id}
    assert len(client.predict(run.id, api_name="/retention")) == 10
    assert len(client.predict(run.id, "el", 0, api_name="/expert_load")) == 2
    assert sum(client.predict(budget=45, api_name="/plan")["allocation"]) == 45
    for name, given in (("/trace_text", (run.id, "Hello.")), ("/generate_pair", (run.id, "Hello"))):
        with pytest.raises(AppError, match="no weights"):
            client.predict(*given, api_name=name)
    with pytest.raises(ValueError, match="Cannot find"):
        client.predict(api_name="/load")


@pytest.mark.slow
def test_where_too_many_wait_for_a_model_a_program_is_told_so(tmp_path, monkeypatch):
    run, full = make_run(tmp_path), model_queue.ModelQueue(most=1)
    client = Client(serve(tmp_path, port=None, open_browser=False, block=False), verbose=False)
    monkeypatch.setattr(model_queue, "QUEUE", full)
    held = full.join()
    for name, given in (("/trace_text", (run.id, "Hello.")), ("/generate_pair", (run.id, "Hello"))):
        with pytest.raises(AppError, match="busy"):
            client.predict(*given, api_name=name)
    held.leave()
    with pytest.raises(AppError, match="no weights"):
        client.predict(run.id, "Hello.", api_name="/trace_text")
