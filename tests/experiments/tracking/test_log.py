"""Each tracker really writes, and is read back; whatever one does, the training goes on."""

import json
import threading
import time

import pytest

from lpr_lab.errors import MissingError, UsageError
from lpr_lab.experiments.tracking import log as tracking
from lpr_lab.experiments.tracking import trackers
from lpr_lab.runs.run import Run

STEPS = range(1, 6)


@pytest.fixture
def run(tmp_path):
    config = {"base": "tiny", "expanded": ["el", "hu"], "max_minutes": None, "stage1": {"tokens": 4096}}
    return Run.create(tmp_path / "runs", kind="expansion", slug="el", title="el beside en", config=config)


def numbers(step):
    return {"step": step, "tokens": 100 * step, "seconds": 0.5 * step, "loss": 3 / step, "lr": 3e-4}


def track(run, name, steps=STEPS, stage="expand"):
    with tracking.tracking(run, stage, (name,)) as log:
        for step in steps:
            log(numbers(step))
    assert not run.paths.log.exists(), run.paths.log.read_text()


def track_interrupted_and_resumed(run, name):
    """Train five steps, then resume from the checkpoint after the third, then train the next stage."""
    track(run, name)
    track(run, name, range(4, 9))
    track(run, name, range(1, 3), stage="review")


EXPANDED = [(step, 3 / step) for step in range(1, 9)]
REVIEWED = [(1, 3.0), (2, 1.5)]


def test_tensorboard_has_every_step_once_and_the_settings(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track_interrupted_and_resumed(run, "tensorboard")
    for stage, expected in (("expand", EXPANDED), ("review", REVIEWED)):
        events = EventAccumulator(str(run.paths.tracking / "tensorboard" / stage))
        events.Reload()
        seen = [(event.step, event.value) for event in events.Scalars("loss")]
        assert [step for step, _ in seen] == [step for step, _ in expected]
        assert [value for _, value in seen] == pytest.approx([value for _, value in expected])
        assert {"lr", "tokens", "seconds"} <= set(events.Tags()["scalars"])
    (settings,) = (run.paths.tracking / "tensorboard" / "expand").rglob("hparams.yml")
    assert "expanded: el, hu" in settings.read_text() and "stage1.tokens: 4096" in settings.read_text()


def test_trackio_has_every_step_once_in_the_run_directory_also_for_a_second_run(run, tmp_path):
    other = Run.create(tmp_path / "runs", kind="expansion", slug="tr", title="tr", config={})
    for each in (run, other):
        track_interrupted_and_resumed(each, "trackio")
        assert list((each.paths.tracking / "trackio").glob("*.db"))
        from trackio.sqlite_storage import SQLiteStorage  # after the code under test had to import it by itself

        names = {f"{each.id} expand": EXPANDED, f"{each.id} review": REVIEWED}
        assert set(SQLiteStorage.get_runs(trackers.PROJECT)) == set(names)
        for name, expected in names.items():
            logs = SQLiteStorage.get_logs(trackers.PROJECT, name)
            assert [(log["step"], log["loss"]) for log in logs] == expected


@pytest.mark.slow
def test_mlflow_has_every_step_once_and_the_settings_in_plain_files(run):
    import mlflow

    track_interrupted_and_resumed(run, "mlflow")
    client = mlflow.MlflowClient((run.paths.tracking / "mlflow").as_uri())
    experiment = client.get_experiment_by_name(trackers.PROJECT)
    stages = {found.data.tags["stage"]: found for found in client.search_runs([experiment.experiment_id])}
    assert set(stages) == {"expand", "review"} and stages["expand"].info.status == "FINISHED"
    for stage, expected in (("expand", EXPANDED), ("review", REVIEWED)):
        history = client.get_metric_history(stages[stage].info.run_id, "loss")
        assert sorted((metric.step, metric.value) for metric in history) == expected
    assert stages["expand"].data.params["stage1.tokens"] == "4096"


@pytest.mark.slow
def test_wandb_keeps_its_history_in_the_run_directory_and_stays_offline(run, network_attempts):
    import wandb

    track_interrupted_and_resumed(run, "wandb")
    wandb.teardown()  # ends the process that writes W&B's files, once it has written them
    seen = wandb_history(run)
    assert seen[f"{run.id}-expand"] == EXPANDED and seen[f"{run.id}-review"] == REVIEWED
    assert network_attempts == []


def wandb_history(run):
    """Return (step, loss) by W&B run from its offline files, those of one run together as `wandb sync` puts them."""
    from wandb.proto import wandb_internal_pb2

    found = {}
    for path in sorted((run.paths.tracking / "wandb").rglob("offline-run-*/*.wandb")):
        steps = found.setdefault(path.stem.removeprefix("run-"), [])
        for data in wandb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                steps.append((items["_step"], items["loss"]))
    return found


def wandb_records(content):
    """Take a W&B file apart: seven bytes of its own, then the log format of LevelDB, blocks of 32 KiB with chunks."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole in one chunk, or its last one
            yield whole
            whole = b""


# ------------------------------------------------------------------------------------------- trackers that misbehave


class Tracker:
    """Keeps what it is handed; raises, or hangs until the test ends, where it is told to."""

    def __init__(self, raises_at="", hangs_at=""):
        self.raises_at, self.hangs_at, self.steps, self.let_go = raises_at, hangs_at, [], threading.Event()

    def _at(self, place):
        if place == self.hangs_at:
            self.let_go.wait(60)
        if place == self.raises_at:
            raise SystemExit("no tracker here") if place == "finish" else ValueError("no tracker here")

    def start(self):
        self._at("start")

    def store_init_configuration(self, values):
        self._at("configure")

    def log(self, values, step):
        self._at("log")
        self.steps.append(step)

    def finish(self):
        self._at("finish")


@pytest.fixture
def use(monkeypatch):
    """Put a tracker in the place of TensorBoard's."""
    used = []

    def put(tracker):
        used.append(tracker)
        monkeypatch.setitem(tracking.OPENERS, "tensorboard", lambda *given: tracker)
        return tracker

    yield put
    for tracker in used:
        tracker.let_go.set()


@pytest.mark.parametrize("place", ["start", "log", "finish"])
def test_the_report_is_written_before_the_stage_is_over_however_slow_the_disk(run, use, monkeypatch, place):
    write = tracking.say

    def write_slowly(run, text):
        time.sleep(0.3)
        write(run, text)

    monkeypatch.setattr(tracking, "say", write_slowly)
    use(Tracker(raises_at=place))
    with tracking.tracking(run, "expand", ("tensorboard",)) as log:
        for step in STEPS:
            log(numbers(step))
            time.sleep(0.05)
    assert "Training goes on without it" in run.paths.log.read_text()


@pytest.mark.parametrize("place", ["start", "configure", "log", "finish"])
def test_a_tracker_that_raises_is_reported_once_in_the_log_and_training_goes_on(run, use, capsys, place):
    use(Tracker(raises_at=place))
    trained = []
    with tracking.tracking(run, "expand", ("tensorboard",)) as log:
        for step in STEPS:
            log(numbers(step))
            trained.append(step)
    assert trained == list(STEPS)
    (line,) = run.paths.log.read_text().splitlines()
    assert "The tracker tensorboard failed while" in line and "no tracker here" in line and "Training goes on" in line
    assert capsys.readouterr().err.strip() == line


@pytest.mark.parametrize("place", ["start", "log", "finish"])
def test_a_tracker_that_hangs_holds_up_neither_a_step_nor_the_end(run, use, monkeypatch, place):
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.2)
    use(Tracker(hangs_at=place))
    with tracking.tracking(run, "expand", ("tensorboard",)) as log:
        for step in STEPS:
            log(numbers(step))
    (line,) = run.paths.log.read_text().splitlines()
    assert "did not end within" in line


def test_a_tracker_that_hangs_for_a_moment_loses_nothing(run, use):
    slow = use(Tracker(hangs_at="start"))
    with tracking.tracking(run, "expand", ("tensorboard",)) as log:
        for step in STEPS:
            log(numbers(step))
        slow.let_go.set()
    assert slow.steps == list(STEPS) and not run.paths.log.exists()


def test_a_tracker_that_cannot_keep_up_is_given_up_before_it_fills_the_memory(run, use, monkeypatch):
    monkeypatch.setattr(tracking, "MOST_WAITING", 3)
    use(Tracker(hangs_at="start"))
    with tracking.tracking(run, "expand", ("tensorboard",)) as log:
        for step in range(1, 100):
            log(numbers(step))
    assert "does not keep up" in run.paths.log.read_text()


def test_one_tracker_that_fails_leaves_the_others_alone(run, use, monkeypatch):
    use(Tracker(raises_at="start"))
    good = Tracker()
    monkeypatch.setitem(tracking.OPENERS, "mlflow", lambda *given: good)
    with tracking.tracking(run, "expand", ("tensorboard", "mlflow")) as log:
        for step in STEPS:
            log(numbers(step))
    assert good.steps == list(STEPS)


def test_what_a_kernel_prints_is_not_put_into_the_log_twice(run, monkeypatch, capsys):
    monkeypatch.setenv("LPR_LAB_PRINTED_TO", str(run.paths.log))
    tracking.say(run, "a remark")
    assert not run.paths.log.exists() and "a remark" in capsys.readouterr().err


def test_a_stage_that_logs_nothing_starts_no_tracker(run, use):
    use(Tracker(raises_at="start"))
    with tracking.tracking(run, "fit_routers", ("tensorboard",)):
        pass
    assert not run.paths.tracking.exists() and not run.paths.log.exists()


def test_without_trackers_nothing_is_done(run):
    with tracking.tracking(run, "expand", ()) as log:
        log(numbers(1))
    assert not run.paths.tracking.exists()


# ------------------------------------------------------------------------------------------------------ which ones


def test_trackers_are_named_by_argument_or_by_environment(monkeypatch):
    assert trackers.selected() == () and trackers.selected(()) == ()
    monkeypatch.setenv(trackers.VARIABLE, "tensorboard, mlflow,tensorboard")
    assert trackers.selected() == ("tensorboard", "mlflow")
    assert trackers.selected(("trackio",)) == ("trackio",) and trackers.selected("wandb") == ("wandb",)


def test_an_unknown_tracker_is_refused_with_a_guess():
    with pytest.raises(UsageError, match="Did you mean 'tensorboard'"):
        trackers.selected(("tensorbord",))


def test_a_missing_package_is_said_with_its_extra_before_there_is_a_run(monkeypatch, tmp_path):
    from lpr_lab.experiments import pipeline, recipes

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install -e '\.\[mlflow\]'"):
        pipeline.run(recipes.route_first(), root=tmp_path / "runs", trackers=("mlflow",))
    monkeypatch.setenv(trackers.VARIABLE, "wandb")
    with pytest.raises(MissingError, match="wandb"):
        pipeline.start(recipes.route_first(), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
