"""The line of those who need a model: first come first served, told where they stand, and gone when they left."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpr_lab.dashboard.server import model_queue
from lpr_lab.dashboard.server.model_queue import GONE_SECONDS, ModelQueue, queued, run_queued
from lpr_lab.dashboard.server.request_limits import TooManyError


@pytest.fixture(autouse=True)
def line(monkeypatch) -> ModelQueue:
    line = ModelQueue(most=4)
    monkeypatch.setattr(model_queue, "QUEUE", line)
    monkeypatch.setattr(model_queue, "ASK_EVERY_SECONDS", 0.005)
    return line


def waiting(said: str) -> str:
    return f"waiting: {said}"


def refused(said: str) -> str:
    return f"refused: {said}"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60))
def test_whoever_comes_and_goes_places_are_those_of_arrival(moves):
    line, there = ModelQueue(most=100), []
    for joins, which in moves:
        if joins:
            there.append(line.join())
        elif there:
            line.leave(there.pop(which % len(there)))
        assert [turn.before() for turn in there] == list(range(len(there)))


def test_the_line_is_bounded_and_says_so():
    line = ModelQueue(most=2)
    line.join(), line.join()
    with pytest.raises(TooManyError, match="1 requests wait"):
        line.join()


def test_whoever_gives_no_sign_of_life_loses_the_place_unless_a_step_is_under_way():
    now = 0.0
    line = ModelQueue(clock=lambda: now)
    first, second = line.join(), line.join()
    now = GONE_SECONDS - 1
    assert second.before() == 1
    now = GONE_SECONDS + 1
    assert second.before() == 0
    second.is_busy, third = True, line.join()
    now = 5 * GONE_SECONDS
    assert third.before() == 1
    assert first.before() == 2  # back after all, and last


def test_one_works_at_a_time_in_order_and_the_others_are_told(line):
    at_work, most, order = 0, 0, []

    def work(name: str):
        nonlocal at_work, most
        for number in range(3):
            at_work += 1
            most = max(most, at_work)
            threading.Event().wait(0.01)
            at_work -= 1
            yield f"{name}{number}"
        order.append(name)

    async def visit(name: str) -> list[str]:
        return [step async for step in queued(work, waiting, refused)(name)]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*map(visit, "abcde"))

    seen = asyncio.run(all_of_them())
    assert most == 1 and order == list("abcd")
    assert seen[0] == ["a0", "a1", "a2"]
    assert [said for said in seen[3] if said.startswith("waiting")] == [
        f"waiting: Waiting: {number} before you." for number in (3, 2, 1)
    ]
    assert seen[4][0].startswith("refused: ") and "Try again" in seen[4][0] and len(seen[4]) == 1
    assert line.join().before() == 0


@pytest.mark.parametrize("when", ["waiting", "at work"])
def test_cancelling_gives_up_the_place_once_the_step_under_way_has_ended(line, when):
    began, may_end, closed = threading.Event(), threading.Event(), threading.Event()

    def work():
        try:
            began.set()
            may_end.wait(5)
            yield "first"
            yield "never"
        finally:
            closed.set()

    async def at_work() -> None:
        task = asyncio.ensure_future(anext(queued(work, waiting, refused)()))
        while not began.is_set():
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        late = line.join()
        assert late.before() == 1 and not closed.is_set()
        may_end.set()
        while late.before():
            await asyncio.sleep(0.005)
        assert closed.is_set()

    async def in_line() -> None:
        first = line.join()
        steps = queued(work, waiting, refused)()
        assert (await anext(steps)).startswith("waiting")
        await steps.aclose()
        third = line.join()
        line.leave(first)
        assert third.before() == 0 and not began.is_set()

    asyncio.run(in_line() if when == "waiting" else at_work())


def test_an_error_of_the_work_reaches_the_caller_and_frees_the_place(line):
    def work():
        yield "one"
        raise ValueError("out of luck")

    async def visit() -> None:
        async for _ in queued(work, waiting, refused)():
            pass

    with pytest.raises(ValueError, match="out of luck"):
        asyncio.run(visit())
    assert line.join().before() == 0


def test_a_program_waits_in_the_same_line_and_is_told(line):
    told: list[str] = []

    async def context() -> int:
        first = line.join()
        asyncio.get_running_loop().call_later(0.05, first.leave)
        return await run_queued(lambda: 7, told.append)

    assert asyncio.run(context()) == 7 and told == ["Waiting: 1 before you."]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_queued(lambda: 1 // 0, told.append))
    assert line.join().before() == 0
