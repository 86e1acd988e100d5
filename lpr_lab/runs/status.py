"""The state of a run: `status.json`, the heartbeat of the process that works on it, and the lock it holds.

    queued ──> running ──> finished
                  ├──────> failed         an exception; the tail of the error is kept
                  ├──────> interrupted    Ctrl-C, SIGTERM, or the process was killed
                  └┄┄┄┄┄┄> stalled        never written: no heartbeat for a minute from a process that may still live

`interrupted`, `failed` and `stalled` runs can be resumed; a finished one is never written over.
"""

import atexit
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from lpr_lab.errors import BusyError, DamagedError, LprError
from lpr_lab.storage import read_json, write_json

STATES = ("queued", "running", "finished", "failed", "interrupted")
HEARTBEAT_SECONDS = 10.0
STALLED_AFTER_SECONDS = 60.0


def utc_now() -> str:
    """Return the time as `2026-11-22T08:11:30Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(timestamp: str | None) -> float | None:
    """Return how long ago a `utc_now()` string was, or None for None or an unreadable one."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(timestamp or "")).total_seconds()
    except ValueError:
        return None


def _start_ticks(pid: int) -> int | None:
    """When a process started, in hundredths of a second since boot; None when it is gone.

    It tells a process from a later one with its number, on whatever boot, and does not move when the clock is set.
    """
    try:
        process = psutil.Process(pid)
        started = process.create_time() - psutil.boot_time()
        return None if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD) else round(100 * started)
    except psutil.NoSuchProcess:
        return None


def _is_alive(pid: int, start_ticks: int | None) -> bool:
    found = _start_ticks(pid)
    return found is not None and start_ticks in (None, found)


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a run, as last written: a record of all fields of `status.json`.

    Attributes:
        recorded_state: the word in the file; `.state` is what it means now.
        stage: what is or was being worked on, in one word.
        started, ended, heartbeat: UTC, `2026-11-22T08:11:30Z`.
        pid, host, start_ticks: the process that works or worked on it.
        attempts: how many times work was started; above 1 it was resumed.
        exit_code, error_tail: of a failed run.
        done_phases: phases that need not be repeated, in the order they were done.
        num_steps, max_seconds: what the training under way may take, where that was recorded; to show the time left.
    """

    recorded_state: str = "queued"
    stage: str | None = None
    started: str | None = None
    ended: str | None = None
    heartbeat: str | None = None
    pid: int | None = None
    host: str | None = None
    start_ticks: int | None = None
    attempts: int = 0
    exit_code: int | None = None
    error_tail: str | None = None
    done_phases: tuple[str, ...] = ()
    num_steps: int | None = None
    max_seconds: float | None = None

    @property
    def heartbeat_age_seconds(self) -> float | None:
        """Seconds since the last heartbeat."""
        return seconds_since(self.heartbeat)

    @property
    def state(self) -> str:
        """The state now: a `running` run whose process is gone reads as `interrupted`, a silent one as `stalled`."""
        if self.recorded_state != "running":
            return self.recorded_state
        here = self.host == socket.gethostname()
        if here and self.pid is not None and not _is_alive(self.pid, self.start_ticks):
            return "interrupted"
        age = self.heartbeat_age_seconds
        return "stalled" if age is None or age > STALLED_AFTER_SECONDS else "running"

    @property
    def is_live(self) -> bool:
        """Whether a process is (or may be) working on it."""
        return self.state == "running"


class StatusFile:
    """`status.json`: read whole, changed whole, by one thread of one process at a time.

    The process that works on a run and the first of those that it started to train both write it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.guard = threading.RLock()
        self._turn = FileLock(path.with_name(".status.lock"), thread_local=False, fallback_to_soft=False)

    def read(self) -> Status:
        """Read it.

        Raises:
            MissingError, DamagedError: it is not there, or not what this module writes.
        """
        raw = read_json(self.path)
        if not isinstance(raw, dict) or raw.get("state") not in STATES:
            raise DamagedError(f"{self.path} has no known state (one of {', '.join(STATES)}).")
        known = {key: raw[key] for key in Status.__dataclass_fields__ if key in raw}
        done = tuple(str(phase) for phase in raw.get("done_phases") or ())
        return Status(**{**known, "recorded_state": raw["state"], "done_phases": done})

    def write(self, status: Status) -> None:
        """Replace it atomically."""
        fields = {key: getattr(status, key) for key in Status.__dataclass_fields__ if key != "recorded_state"}
        write_json(self.path, {"state": status.recorded_state, **fields, "done_phases": list(status.done_phases)})

    def update(self, **changes: Any) -> Status:
        """Change the given fields (`state` among them) and write; returns the new status."""
        with self.guard, self._turn:
            if "state" in changes:
                changes["recorded_state"] = changes.pop("state")
            current = self.read()
            merged = Status(**{**{key: getattr(current, key) for key in Status.__dataclass_fields__}, **changes})
            self.write(merged)
            return merged


class Worker:
    """The one process that works on a run: holds its lock, writes `running`, and a heartbeat until `stop`.

    A process that exits without `stop` leaves the run `interrupted`; one that is killed leaves a process number that
    no longer lives, which reads the same.
    """

    def __init__(self, status: StatusFile):
        self._status = status
        # flock, not a marker file: the kernel lets go of it when the process dies, whatever killed it.
        self._lock = FileLock(status.path.with_name(".lock"), timeout=0, thread_local=False, fallback_to_soft=False)
        self._stopping = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._beat, name="lpr-lab-heartbeat", daemon=True)

    def start(self, stage: str | None) -> None:
        """Take the lock and write `running`.

        Raises:
            BusyError: another process works on this run.
        """
        try:
            self._lock.acquire()
        except Timeout as error:
            raise BusyError(
                f"Run {self._status.path.parent.name} is being worked on by process {self._status.read().pid}. "
                "Wait for it, stop it, or start a new run."
            ) from error
        before = self._status.read()
        now = utc_now()
        self._status.update(
            state="running",
            stage=stage,
            started=before.started or now,
            ended=None,
            heartbeat=now,
            pid=os.getpid(),
            host=socket.gethostname(),
            start_ticks=_start_ticks(os.getpid()),
            attempts=before.attempts + 1,
            exit_code=None,
            error_tail=None,
            num_steps=None,
            max_seconds=None,
        )
        atexit.register(self._at_exit)
        self._thread.start()

    def enter(self, stage: str) -> None:
        """Write which stage is worked on now."""
        self._status.update(stage=stage, num_steps=None, max_seconds=None)

    def stop(self, state: str, **changes: Any) -> None:
        """Write how it ended and release the lock."""
        self._stopping.set()
        atexit.unregister(self._at_exit)
        try:
            self._status.update(state=state, ended=utc_now(), **changes)
        finally:
            self._lock.release()

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_SECONDS):
            try:
                with self._status.guard:
                    if not self._stopping.is_set():
                        self._status.update(heartbeat=utc_now())
            except (LprError, OSError):
                continue  # a full disk or a moved folder must not end the work; the run will read as stalled

    def _at_exit(self) -> None:
        if not self._stopping.is_set() and os.getpid() == self._pid:  # a forked child is not the worker
            self.stop("interrupted")


class Rank:
    """One of several processes that another one started to work on its run; that one has the lock and says how it ends.

    Args:
        status: of the run.
        writes: whether it is the first rank, which alone writes into the run.
    """

    def __init__(self, status: StatusFile, *, writes: bool):
        self._status, self._writes = status, writes

    def enter(self, stage: str) -> None:
        """As `Worker.enter`."""
        if self._writes:
            self._status.update(stage=stage, num_steps=None, max_seconds=None)

    def stop(self, state: str, **changes: Any) -> None:
        """Leave it to the process that started this one."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Be the one process that has a run executed by another one, which only later becomes its worker.

    A notebook's Python takes seconds to start; without a claim a second command would find the run unattended.

    Raises:
        BusyError: another process has the claim.
    """
    # The kernel lets go of it when this process dies, like the worker's lock.
    lock = FileLock(folder / ".claim", timeout=0, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(
            f"Another command has just taken up run {folder.name}. Wait for it, stop it, or start a new run."
        ) from error
    try:
        yield
    finally:
        lock.release()


def error_tail_of(error: BaseException) -> str:
    """Return what to keep of an error: the sentence of one of ours, the last lines of the traceback of any other."""
    if isinstance(error, LprError):
        return str(error)
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join(lines[-20:])[-4000:]


@contextmanager
def signals_handled(handler: Callable[[int, Any], None], *numbers: int) -> Iterator[None]:
    """Handle signals by a function for the duration; outside the main thread, which alone may, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def sigterm_as_interrupt() -> AbstractContextManager[None]:
    """Treat SIGTERM like Ctrl-C for the duration, so that a polite kill leaves the run marked; main thread only."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    return signals_handled(interrupt, signal.SIGTERM)
