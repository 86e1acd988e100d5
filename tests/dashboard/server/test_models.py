"""Models within a budget of memory, one computation at a time, and never a lock that outlives its reader."""

import os
import re
import threading
import time

import psutil
import pytest

from lpr_lab.dashboard.server.models import Loaded, ModelCache, _bytes_of, memory_budget, why_no_model
from lpr_lab.errors import MissingError, UsageError
from lpr_lab.runs.run import Run


def counted(monkeypatch, budget: int) -> ModelCache:
    """Make a hub whose loading is counted and takes a moment; every model is said to take 100 bytes."""
    hub = ModelCache(budget)
    hub.loads = []  # type: ignore[attr-defined]

    def load(run: Run) -> Loaded:
        time.sleep(0.02)
        hub.loads.append(run.id)  # type: ignore[attr-defined]
        return Loaded(run.id, object(), object(), "cpu", 0.02, 100)

    monkeypatch.setattr(hub, "_load", load)
    return hub


@pytest.fixture
def hub(monkeypatch) -> ModelCache:
    return counted(monkeypatch, 100)


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


def use(hub: ModelCache, *asked: Run) -> None:
    for run in asked:
        with hub.use(run) as loaded:
            assert loaded.run_id == run.id


@pytest.mark.slow
def test_a_budget_for_one_model_holds_one(hub, tmp_path):
    one, two = runs(tmp_path, 2)
    use(hub, one, two, two, one)
    assert hub.loads == [one.id, two.id, one.id]
    assert hub.is_loaded(one) and not hub.is_loaded(two)


@pytest.mark.slow
def test_the_model_used_longest_ago_goes_first(monkeypatch, tmp_path):
    hub = counted(monkeypatch, 250)
    one, two, three = runs(tmp_path, 3)
    use(hub, one, two, one, three)
    assert hub.is_loaded(one) and hub.is_loaded(three) and not hub.is_loaded(two)
    assert hub.loaded_bytes() == 200


@pytest.mark.slow
def test_a_model_larger_than_the_budget_is_loaded_all_the_same(monkeypatch, tmp_path):
    hub = counted(monkeypatch, 10)
    one, two = runs(tmp_path, 2)
    use(hub, one, two)
    assert hub.is_loaded(two) and hub.loaded_bytes() == 100


@pytest.mark.slow
def test_room_is_made_before_a_model_is_loaded(monkeypatch, tmp_path):
    hub = counted(monkeypatch, 250)
    one, two = runs(tmp_path, 2)
    two.documents.write("results", {"parameters": {"base": 40, "new_experts": 20, "routers": 1}})
    use(hub, one)
    load = hub._load
    monkeypatch.setattr(hub, "_load", lambda run: (hub.loads.append(hub.loaded_bytes()), load(run))[1])  # type: ignore[attr-defined]
    use(hub, two)
    assert hub.loads == [one.id, 0, two.id]  # type: ignore[attr-defined]


def test_two_models_may_be_compared_and_neither_is_dropped_meanwhile(hub, tmp_path):
    one, two = runs(tmp_path, 2)
    with hub.use(one) as left, hub.use(two) as right:
        assert (left.run_id, right.run_id) == (one.id, two.id)
        assert hub.is_loaded(one) and hub.is_loaded(two)
    use(hub, two)
    assert not hub.is_loaded(one), "afterwards the budget holds again"


def test_weights_that_were_written_again_are_loaded_again(hub, tmp_path):
    (run,) = runs(tmp_path, 1)
    run.paths.checkpoint.mkdir()
    use(hub, run, run)
    os.utime(run.paths.checkpoint, ns=(1, 1))
    use(hub, run)
    assert hub.loads == [run.id, run.id]


@pytest.mark.parametrize(
    ("given", "expected"), [("4GB", 4 * 10**9), ("800 MB", 8 * 10**8), ("1.5g", 15 * 10**8), ("12", 12)]
)
def test_the_budget_can_be_set(monkeypatch, given, expected):
    monkeypatch.setenv("LPR_LAB_MODEL_MEMORY", given)
    assert memory_budget() == expected


def test_without_a_setting_the_budget_is_a_share_of_what_is_free_and_nonsense_is_refused(monkeypatch):
    assert 0 < memory_budget() < psutil.virtual_memory().total
    monkeypatch.setenv("LPR_LAB_MODEL_MEMORY", "plenty")
    with pytest.raises(UsageError, match="such as 4GB"):
        memory_budget()


def test_shared_weights_count_once(tiny_model):
    model = tiny_model("llama")
    expected = sum({p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}.values())
    assert expected <= _bytes_of(model) <= expected + sum(b.numel() * b.element_size() for b in model.buffers())


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
    with pytest.raises(MissingError, match="still working"), ModelCache().use(run):
        pass
    run.stop("failed", error_tail="x")
    assert re.search(r"\(failed\) .*no weights", why_no_model(run) or "")
    example = Run.create(tmp_path / "examples", kind="test", slug="x", title="x", config={})
    assert "came with the code" in (why_no_model(example) or "")
