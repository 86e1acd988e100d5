import json
from itertools import pairwise

import pytest

from lpr_lab.errors import MissingError
from lpr_lab.runs import status
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch.live import Follower, last_lines, snapshots
from lpr_lab.runs.watch.tail import Curve, Tail


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs", kind="expansion", slug="el", title="el beside en", config={})


def log(run, steps, stage="expand", **more):
    for step in steps:
        numbers = {"loss": 3 / step, "lm_loss": 2 / step, "lr": 3e-4} | more
        run.metrics.log({"step": step, "tokens": 1000 * step, "t": 0.5 * step, **numbers}, stage=stage)


def test_a_running_stage_says_its_step_speed_and_time_left(run):
    run.start("expand")
    run.phases.expect(num_steps=40)
    log(run, range(1, 11))
    seen = Follower(run).snapshot()
    assert (seen.state, seen.stage, seen.step, seen.num_steps, seen.tokens) == ("running", "expand", 10, 40, 10_000)
    assert seen.share == 0.25 and seen.is_training
    assert seen.tokens_per_second == pytest.approx(2000) and seen.seconds_left == pytest.approx(15)
    assert seen.losses == {"loss": 0.3, "lm_loss": 0.2} and seen.numbers["lr"] == 3e-4
    assert seen.values("lm_loss") == [2 / step for step in range(1, 11)]
    assert seen.heartbeat_seconds < 60 and seen.step_seconds < 60
    assert json.loads(seen.to_json())["step"] == 10
    run.stop("interrupted")


def test_the_wall_clock_cap_ends_a_stage_before_its_tokens_do(run):
    run.start("expand")
    run.phases.expect(num_steps=40, max_minutes=0.1)
    log(run, range(1, 11))
    assert Follower(run).snapshot().seconds_left == pytest.approx(1.0)
    run.stop("interrupted")


def test_a_stage_of_unknown_length_has_a_step_and_no_time_left(run):
    run.start("expand")
    log(run, [1])
    seen = Follower(run).snapshot()
    assert (seen.step, seen.num_steps, seen.share, seen.seconds_left) == (1, None, None, None)
    run.stop("interrupted")


def test_the_next_stage_starts_without_the_length_of_the_one_before(run):
    run.start("expand")
    run.phases.expect(num_steps=40)
    log(run, range(1, 41))
    follower = Follower(run)
    assert follower.snapshot().share == 1
    run.start("measure")
    seen = follower.snapshot()
    assert (seen.stage, seen.trained, seen.num_steps, seen.is_training) == ("measure", "expand", None, False)
    run.start("review")
    run.phases.expect(num_steps=5)
    log(run, [1], stage="review")
    seen = follower.snapshot()
    assert (seen.trained, seen.step, seen.num_steps) == ("review", 1, 5)
    assert len(seen.curves["expand"]["loss"]) == 40 and len(seen.curves["review"]["loss"]) == 1
    run.finish()


def test_no_sign_of_life_for_a_minute_reads_as_stalled(run, monkeypatch):
    run.start("expand")
    run.phases.expect(num_steps=4)
    log(run, [1, 2])
    monkeypatch.setattr(status, "STALLED_AFTER_SECONDS", -1.0)
    seen = Follower(run).snapshot()
    assert seen.state == "stalled" and not seen.is_over and seen.heartbeat_seconds is not None
    monkeypatch.undo()
    run.stop("interrupted")


def test_a_half_written_line_waits_for_its_end(run):
    run.start("expand")
    log(run, [1])
    follower = Follower(run)
    before = follower.snapshot()
    line = json.dumps({"step": 2, "tokens": 2000, "t": 1.0, "stage": "expand", "name": "loss", "value": 1.25}) + "\n"
    for cut in (1, 20, len(line) - 1):
        with run.metrics.path.open("a") as file:
            file.write(line[:cut])
        assert follower.snapshot().step == before.step
        run.metrics.repair()
    with run.metrics.path.open("a") as file:
        file.write(line)
    assert (follower.snapshot().step, follower.snapshot().numbers["loss"]) == (2, 1.25)
    run.stop("interrupted")


def test_a_resumed_stage_is_shown_from_its_checkpoint_and_not_twice(run):
    run.start("expand")
    log(run, range(1, 11))
    follower = Follower(run)
    assert follower.snapshot().step == 10
    run.metrics.truncate("expand", 4)
    assert follower.snapshot().step == 4
    log(run, range(5, 8))
    assert [step for step, *_ in follower.snapshot().curves["expand"]["loss"]] == list(range(1, 8))
    run.metrics.truncate("expand", 0)
    assert follower.snapshot().trained is None
    run.stop("interrupted")


def test_a_number_that_is_not_finite_is_known_as_missing(run):
    run.start("expand")
    log(run, [1])
    log(run, [2], loss=float("nan"))
    seen = Follower(run).snapshot()
    assert seen.numbers["loss"] is None and seen.values("loss") == [3.0]
    run.stop("interrupted")


def test_watching_ends_when_the_run_does(run):
    run.start("expand")
    seen = snapshots(run, every=0)
    assert not next(seen).is_over
    run.stop("failed", error=ValueError("no room"))
    last = list(seen)[-1]
    assert last.state == "failed" and "no room" in last.error


def test_a_run_that_is_gone_says_so(run):
    follower = Follower(run)
    (run.path / "status.json").unlink()
    with pytest.raises(MissingError):
        follower.snapshot()


def test_only_what_is_new_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert list(tail.read()) == []
    path.write_text('{"a": 1}\nnot json\n[2]\n{"a": 2}\n')
    assert list(tail.read()) == [{"a": 1}, {"a": 2}] and list(tail.read()) == []
    with path.open("a") as file:
        file.write('{"a": 3}\n')
    assert list(tail.read()) == [{"a": 3}] and not tail.starts_over
    path.write_text('{"b": 1}\n{"b": 22222}\n{"b": 3333333}\n')  # longer than before, yet another file
    assert list(tail.read()) == [{"b": 1}, {"b": 22222}, {"b": 3333333}]


def test_a_long_curve_keeps_its_first_and_newest_point_and_little_more():
    curve = Curve(most=64)
    for step in range(10_000):
        curve.append(step, step, float(step))
    steps = [step for step, *_ in curve.points]
    assert len(steps) <= 64 and steps[0] == 0 and steps[-1] == 9_999
    gaps = {after - before for before, after in pairwise(steps[:-1])}
    assert len(gaps) == 1


def test_the_log_is_shown_as_it_stands_without_colours_and_rewritten_lines(tmp_path):
    path = tmp_path / "run.log"
    assert last_lines(path) == ()
    path.write_text("one\n\x1b[31mtwo\x1b[0m\n 10%|\r 20%|\r 30%| done\r\n\nthree\x07", encoding="utf-8")
    assert last_lines(path) == ("one", "two", " 30%| done", "three")
