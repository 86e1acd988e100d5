"""Follow a running stage by reading its files, from any number of processes.

All comes from `metrics.jsonl` and `status.json`; the process that trains is not asked. The terminal, notebooks and the
dashboard draw the same `Snapshot`.
"""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError
from lpr_lab.runs.run import Run
from lpr_lab.runs.status import Status
from lpr_lab.runs.watch.alerts import Alert, read
from lpr_lab.runs.watch.tail import Curve, Tail

OPEN = ("queued", "running", "stalled")
LOG_LINES = 5
_LOG_BYTES = 16_384
_RECENT_STEPS = 32
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """State and progress of a run at one moment: a record of all that watchers draw, hence its many fields.

    Attributes:
        run, title, state, done: as in `Run` and `Status`; `stalled` is a state.
        stage: what is being worked on now.
        trained: the training stage that the numbers belong to, now or before; None when nothing was trained.
        step, tokens, seconds: of `trained`, over all its sessions.
        num_steps: what its token budget pays for; None when it is not known.
        tokens_per_second: over the last steps.
        seconds_left: until the stage ends by its token budget or its wall-clock cap; None when it does not train now.
        numbers: the newest value of every number by name; None where it was not finite.
        curves: (step, tokens, value) of every number by training stage and name, thinned out to two thousand points.
        heartbeat_seconds, step_seconds: since the last heartbeat, since the last logged step.
        log: the last lines that were printed.
        error: the tail of the error of a failed run.
        alerts: that the run raised itself, oldest first.
    """

    run: str
    title: str
    state: str
    stage: str | None
    done: tuple[str, ...] = ()
    trained: str | None = None
    step: int | None = None
    num_steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    numbers: dict[str, float | None] = field(default_factory=dict)
    curves: dict[str, dict[str, list[tuple[int, int, float]]]] = field(default_factory=dict, repr=False)
    heartbeat_seconds: float | None = None
    step_seconds: float | None = None
    log: tuple[str, ...] = ()
    error: str | None = None
    alerts: tuple[Alert, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come, unless the run is resumed."""
        return self.state not in OPEN

    @property
    def is_training(self) -> bool:
        """Whether the stage of the numbers is the one being worked on."""
        return self.trained is not None and self.trained == self.stage and not self.is_over

    @property
    def is_diverging(self) -> bool:
        """Whether the training that the numbers are of diverges (`method.training.divergence`)."""
        return bool(self.numbers.get("diverged"))

    @property
    def share(self) -> float | None:
        """How much of the token budget is used, in [0, 1]; None when that is not known."""
        return None if not self.num_steps or self.step is None else min(self.step / self.num_steps, 1.0)

    @property
    def losses(self) -> dict[str, float | None]:
        """The newest loss and its terms, the whole first."""
        names = sorted((name for name in self.numbers if "loss" in name), key=lambda name: (name != "loss", name))
        return {name: self.numbers[name] for name in names}

    def values(self, name: str) -> list[float]:
        """Return the curve of one number of the stage that `numbers` are of, without its steps."""
        return [value for *_, value in self.curves.get(self.trained or "", {}).get(name, [])]

    def to_json(self) -> str:
        """Return all but the curves as one line of JSON."""
        return json.dumps({key: value for key, value in asdict(self).items() if key != "curves"}, ensure_ascii=False)


@dataclass
class _Stage:
    """What was read of one training stage."""

    curves: dict[str, Curve] = field(default_factory=dict)
    numbers: dict[str, float | None] = field(default_factory=dict)
    recent: deque[tuple[int, int, float]] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))

    def add(self, record: dict[str, Any]) -> None:
        step, tokens, seconds = (record.get(key) or 0 for key in ("step", "tokens", "t"))
        if not self.recent or self.recent[-1][0] != step:
            self.recent.append((step, tokens, seconds))
        name, value = str(record["name"]), record["value"]
        self.numbers[name] = value
        if value is not None:
            self.curves.setdefault(name, Curve()).append(step, tokens, value)

    def pace(self) -> tuple[float | None, float | None]:
        """Return tokens per second and seconds per step over the last steps."""
        (step, tokens, seconds), (last_step, last_tokens, last_seconds) = self.recent[0], self.recent[-1]
        took, steps = last_seconds - seconds, last_step - step
        if took <= 0 or steps <= 0:
            return self.numbers.get("tokens_per_second"), last_seconds / last_step if last_step else None
        return (last_tokens - tokens) / took, took / steps


class Follower:
    """Reads one run again and again, each time only what is new; threads may share one."""

    def __init__(self, run: Run):
        if run.problem:
            raise DamagedError(run.problem)
        self._run = run
        self._tail = Tail(run.metrics.path)
        self._stages: dict[str, _Stage] = {}
        self._trained: str | None = None
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        """Return state and progress of the run now.

        Raises:
            MissingError, DamagedError: the run's status is gone or unreadable.
        """
        with self._lock:
            # The status first: numbers of a stage that ended meanwhile are not taken for those of the next.
            status = self._run.status
            self._read()
            return self._snapshot_of(status)

    def _read(self) -> None:
        for record in self._tail.read():
            self._forget_replaced()
            if record.get("stage") is None or "name" not in record or "value" not in record:
                continue
            self._trained = str(record["stage"])
            self._stages.setdefault(self._trained, _Stage()).add(record)
        self._forget_replaced()

    def _forget_replaced(self) -> None:
        if self._tail.starts_over:
            self._stages, self._trained, self._tail.starts_over = {}, None, False

    def _snapshot_of(self, status: Status) -> Snapshot:
        facts: dict[str, Any] = {
            "run": self._run.id,
            "title": self._run.title,
            "state": status.state,
            "stage": status.stage,
            "done": status.done_phases,
            "heartbeat_seconds": status.heartbeat_age_seconds if status.recorded_state == "running" else None,
            "log": last_lines(self._run.paths.log),
            "error": status.error_tail,
            "alerts": tuple(read(self._run)),
        }
        if self._trained is None:
            return Snapshot(**facts)
        stage = self._stages[self._trained]
        step, tokens, seconds = stage.recent[-1]
        tokens_per_second, seconds_per_step = stage.pace()
        is_now = self._trained == status.stage
        num_steps = status.num_steps if is_now else None
        left = []
        if is_now and status.state in OPEN:
            if num_steps and seconds_per_step is not None:
                left.append((num_steps - step) * seconds_per_step)
            if status.max_seconds is not None:
                left.append(status.max_seconds - seconds)
        return Snapshot(
            **facts,
            trained=self._trained,
            step=step,
            num_steps=num_steps,
            tokens=tokens,
            seconds=seconds,
            tokens_per_second=tokens_per_second,
            seconds_left=max(min(left), 0.0) if left else None,
            numbers=dict(stage.numbers),
            curves={
                name: {number: curve.points for number, curve in seen.curves.items()}
                for name, seen in self._stages.items()
            },
            step_seconds=_age(self._run.metrics.path),
        )


def snapshots(run: Run, every: float = 1.0) -> Iterator[Snapshot]:
    """Yield a snapshot every so many seconds, until the run is finished, failed or interrupted."""
    follower = Follower(run)
    while True:
        snapshot = follower.snapshot()
        yield snapshot
        if snapshot.is_over:
            return
        time.sleep(every)


def last_lines(path: Path, most: int = LOG_LINES) -> tuple[str, ...]:
    """Return the last lines of a log as they stand: of a line that rewrites itself its last state, no colours."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _LOG_BYTES, 0))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ()
    lines = [_ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip() for line in text.split("\n")]
    return tuple(filter(None, lines))[-most:]


def _age(path: Path) -> float | None:
    try:
        return max(time.time() - path.stat().st_mtime, 0.0)
    except FileNotFoundError:
        return None
