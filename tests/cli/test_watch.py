import json

import pytest

from helpers.cli_calls import call
from lpr_lab.runs.run import Run
from lpr_lab.views import terminal


def make(root, title, state="finished"):
    run = Run.create(root, kind="expansion", slug="el", title=title, config={})
    run.start("expand")
    run.metrics.log({"step": 3, "tokens": 3000, "t": 1.0, "loss": 2.0}, stage="expand")
    if state != "running":
        run.stop(state)
    return run


def test_the_run_at_work_is_watched_when_none_is_named(runs, monkeypatch):
    at_work = make(runs, "At work", "running")
    make(runs, "Newer, finished")
    seen = []
    monkeypatch.setattr(terminal, "watch", lambda run, **options: seen.append(run.id) or 0)
    assert call("watch").exit_code == 0
    assert seen == [at_work.id]
    at_work.stop("interrupted")


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("failed", 1), ("interrupted", 130)])
def test_the_exit_code_says_how_the_run_ended(runs, state, code):
    run = make(runs, "One", state)
    shown = call("watch", run.id, "--json")
    assert shown.exit_code == code
    assert json.loads(shown.stdout)["step"] == 3
    assert f"{state.capitalize()}" in call("watch", "latest").stdout


def test_nothing_at_work_is_said_with_what_to_do(runs):
    make(runs, "One")
    shown = call("watch")
    assert shown.exit_code == 3 and "lpr-lab watch ID" in shown.stderr


def test_ctrl_c_ends_the_watching_and_leaves_the_run_at_work(runs, monkeypatch):
    run = make(runs, "One", "running")

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(terminal, "watch", stop)
    shown = call("watch")
    assert shown.exit_code == 130 and "Stopped watching" in shown.stderr
    assert run.status.state == "running"
    run.stop("interrupted")
