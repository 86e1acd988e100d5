"""Runs pieces of work in several processes, with progress and time left."""

import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, NamedTuple

from lpr_lab.errors import LprError, UsageError
from lpr_lab.processors import num_cores
from lpr_lab.progress import progress


class Task(NamedTuple):
    """One piece of work."""

    arguments: tuple[Any, ...]
    """Of the function; they are sent to another process."""
    size: int
    """For the progress, in its unit."""


def num_workers(num_proc: int | None) -> int:
    """Return how many processes to use: as asked for, else one per processor that this process may use.

    Raises:
        UsageError: fewer than one.
    """
    if num_proc is None:
        return num_cores()
    if num_proc < 1:
        raise UsageError(f"num_proc={num_proc} leaves nobody to work; expected at least 1, or None for all processors.")
    return num_proc


class Workers:
    """Processes that are started when there is work for more than one, and end with the block.

    with Workers(4) as workers:
        results = workers.run(function, tasks, label="Reading")
    """

    def __init__(self, num_proc: int | None) -> None:
        """Use so many processes, see `num_workers`; 1 works in this one."""
        self.num_proc = num_workers(num_proc)
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None

    def run(
        self, function: Callable[..., Any], tasks: Sequence[Task], *, label: str, done: int = 0, unit: str = "B"
    ) -> list[Any]:
        """Call a function with the arguments of every task; returns what it returned, in the order of the tasks.

        Args:
            function: of a module, so that other processes find it; one that imports little.
            tasks: what is left to do.
            label: of the progress bar.
            done: size of what was done before, so that time left is that of the rest.
            unit: of the sizes.

        Raises:
            LprError: a worker was killed, by the system for want of memory as a rule. What was finished stays.
        """
        results: list[Any] = [None] * len(tasks)
        with progress(done + sum(task.size for task in tasks), label, unit, initial=done) as bar:
            if min(self.num_proc, len(tasks)) <= 1:
                for number, task in enumerate(tasks):
                    results[number] = function(*task.arguments)
                    bar.update(task.size)
                return results
            if self._executor is None:
                # New interpreters rather than copies of this one, which may hold a model, threads and a GPU.
                context = multiprocessing.get_context("spawn")
                self._executor = ProcessPoolExecutor(self.num_proc, context, _end_with_parent)
            try:
                for number, result in _in_turn(self._executor, function, tasks, 2 * self.num_proc):
                    results[number] = result
                    bar.update(tasks[number].size)
            except BrokenProcessPool as error:
                raise LprError(
                    f"{label}: a worker was killed, most likely for want of memory. What is finished is kept: run the "
                    f"same command again, with fewer processes (num_proc={max(1, self.num_proc // 2)}) if it happens "
                    "again."
                ) from error
        return results


def _in_turn(
    executor: ProcessPoolExecutor, function: Callable[..., Any], tasks: Sequence[Task], at_once: int
) -> Iterator[tuple[int, Any]]:
    """Yield (number of the task, result) as they are ready, with few tasks waiting, so that an error ends it soon."""
    running: dict[Future[Any], int] = {}
    waiting = iter(enumerate(tasks))
    while True:
        while len(running) < at_once and (following := next(waiting, None)) is not None:
            number, task = following
            with _nameless_main():
                running[executor.submit(function, *task.arguments)] = number
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


def _end_with_parent() -> None:
    """Have a worker end when the process that started it is gone, also by a kill."""
    # One thread each: the workers themselves are what uses the processors.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_for_end, daemon=True).start()


@contextmanager
def _nameless_main() -> Iterator[None]:
    """Keep new processes from running the user's script again, which need not be guarded by `__name__`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
