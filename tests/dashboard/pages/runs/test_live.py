from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.runs import live as run_live
from lpr_lab.dashboard.pages.runs import page
from lpr_lab.errors import MissingError
from lpr_lab.runs import status
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch.live import Follower


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(run_live, "FRESH_SECONDS", 0.0)
    run = Run.create(tmp_path, kind="expansion", slug="el", title="A <b>title</b>", config={"base": "b"})
    run.start("expand")
    run.phases.expect(num_steps=10)
    log(run, 1, 2)
    yield run
    run.stop("interrupted")


def log(run, *steps, stage="expand"):
    for step in steps:
        run.metrics.log({"step": step, "tokens": 100 * step, "t": step, "loss": 1 / step, "lm_loss": 1.0}, stage=stage)


def test_the_card_shows_what_was_logged_since_the_last_look(run):
    assert "2 of 10" in run_live.render_live(run)
    log(run, 3)
    card = run_live.render_live(run)
    assert "3 of 10" in card and 'role="progressbar"' in card and f"lpr-lab watch {run.id}" in card


def test_keeping_up_leaves_alone_what_a_reader_picks_meanwhile(run):
    picker = page.curves(run, "lm_loss", picked=True)[1]
    assert "value" not in picker and picker["choices"]
    assert page.curves(run, "lm_loss")[1]["value"] == "lm_loss"
    assert page.curves(run, None, picked=True)[1]["value"], "nothing was picked yet"


def test_a_silent_run_asks_whether_it_is_stalled(run, monkeypatch):
    monkeypatch.setattr(status, "STALLED_AFTER_SECONDS", -1.0)
    assert "Stalled? No sign of life for" in run_live.render_live(run)


def test_many_visitors_cost_one_look(run, monkeypatch):
    monkeypatch.setattr(run_live, "FRESH_SECONDS", 60.0)
    looks = Counter()
    snapshot = Follower.snapshot
    monkeypatch.setattr(Follower, "snapshot", lambda self: looks.update(["look"]) or snapshot(self))
    with ThreadPoolExecutor(8) as visitors:
        cards = set(visitors.map(lambda _: run_live.render_live(run), range(32)))
    assert len(cards) == 1 and looks["look"] == 1


def test_only_so_many_runs_are_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(run_live, "FOLLOWED", 2)
    runs = [Run.create(tmp_path, kind="expansion", slug=f"r{i}", title="t", config={}) for i in range(4)]
    for run in runs:
        run_live.snapshot_of(run)
    assert [path for path in run_live._followed if path.parent == tmp_path] == [run.path for run in runs[2:]]


def test_a_run_that_is_gone_is_said_and_forgotten(run):
    run_live.snapshot_of(run)
    status = run.path / "status.json"
    text = status.read_text()
    status.unlink()
    with pytest.raises(MissingError):
        run_live.snapshot_of(run)
    assert run.path not in run_live._followed and "is missing" in run_live.render_live(run)
    status.write_text(text)


def test_numbers_of_all_stages_make_one_table_without_those_that_are_not_finite(run):
    run.metrics.log({"step": 3, "tokens": 300, "t": 3, "loss": float("inf")}, stage="expand")
    log(run, 1, stage="review")
    table = run_live.metrics_of(run)
    assert table.query("name == 'loss'")[["stage", "step"]].values.tolist() == [
        ["expand", 1],
        ["expand", 2],
        ["review", 1],
    ]
    assert run_live.metrics_of(None) is None


def test_the_page_is_drawn_anew_when_a_stage_or_a_state_changes_and_not_for_a_step(run, tmp_path):
    def standing():
        return run_live.page_state_of(shell.page_context(tmp_path, {}))

    before = standing()
    log(run, 3)
    assert standing() == before
    assert run_live.at_work(shell.page_context(tmp_path, {}))
    seen = [before]
    for change in (
        lambda: run.phases.mark_done("expand"),
        lambda: run.start("review"),
        lambda: run.stop("failed"),
    ):
        change()
        assert standing() not in seen
        seen.append(standing())
    assert not run_live.at_work(shell.page_context(tmp_path, {}))
