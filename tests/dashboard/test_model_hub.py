"""One model in memory, one computation at a time, and never a lock that outlives its reader."""

import threading
import time

import pytest

from lpr_lab.dashboard.model_hub import Loaded, ModelHub, why_not
from lpr_lab.errors import MissingError
from lpr_lab.experiments.runs import Run


@pytest.fixture
def hub(monkeypatch) -> ModelHub:
    """A hub whose loading is counted and takes a moment."""
    hub = ModelHub()
    hub.loads = []  # type: ignore[attr-defined]

    def load(run: Run) -> None:
        time.sleep(0.02)
        hub.loads.append(run.id)  # type: ignore[attr-defined]
        hub._loaded, hub._path = Loaded(run.id, object(), object(), "cpu", 0.02), run.path

    monkeypatch.setattr(hub, "_load", load)
    return hub


def runs(tmp_path, count: int) -> list[Run]:
    return [Run.create(tmp_path, kind="test", slug=str(n), title=str(n), config={}) for n in range(count)]


def test_many_readers_load_a_model_once(hub, tmp_path):
    (run,) = runs(tmp_path, 1)

    def read() -> None:
        with hub.use(run):
            pass

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.loads == [run.id]


def test_one_model_at_a_time_is_held(hub, tmp_path):
    one, two = runs(tmp_path, 2)
    for run in (one, two, two, one):
        with hub.use(run) as loaded:
            assert loaded.run_id == run.id
    assert hub.loads == [one.id, two.id, one.id]
    assert hub.is_loaded(one) and not hub.is_loaded(two)


def test_a_failed_computation_lets_the_next_one_in_from_any_thread(hub, tmp_path):
    (run,) = runs(tmp_path, 1)
    with pytest.raises(ValueError, match="no"), hub.use(run):
        raise ValueError("no")
    done = threading.Event()

    def next_reader() -> None:
        with hub.use(run):
            done.set()

    thread = threading.Thread(target=next_reader)
    thread.start()
    thread.join(5)
    assert done.is_set()


def test_a_run_without_weights_is_refused_in_a_sentence(tmp_path):
    (run,) = runs(tmp_path, 1)
    with pytest.raises(MissingError, match="still working"), ModelHub().use(run):
        pass
    run.stop("failed", error_tail="x")
    assert why_not(run) == "This run (failed) has no weights: it did not come that far."
    example = Run.create(tmp_path / "examples", kind="test", slug="x", title="x", config={})
    assert "came with the code" in (why_not(example) or "")
