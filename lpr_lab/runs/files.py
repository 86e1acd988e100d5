"""The parts of a run directory: metrics, tables, figures, traces, generations, phases and single documents.

`Run` holds one small object for each. What only grows (`metrics.jsonl`, `generations/`) is appended line by line;
everything else is replaced whole. See `run.py` for the layout, `formats.py` for tables and traces.
"""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lpr_lab.errors import DamagedError, MissingError
from lpr_lab.runs import formats
from lpr_lab.runs.status import StatusFile
from lpr_lab.storage import (
    MANIFEST,
    append_jsonl,
    read_json,
    read_json_object,
    read_jsonl,
    write_json,
    write_jsonl,
    write_text,
)
from lpr_lab.yaml_files import as_json, dump_yaml, read_yaml

if TYPE_CHECKING:
    import pandas as pd

    from lpr_lab.measure.trace import RoutingTrace

PRINTED_TO = "LPR_LAB_PRINTED_TO"
"""Environment variable that names the log which all that is printed here ends up in anyway."""
Document = Literal["results", "data", "env", "equivalence", "tags"]


class Metrics:
    """Numbers logged while training, `metrics.jsonl`."""

    columns = ("step", "tokens", "t", "stage", "name", "value", "lang")

    def __init__(self, path: Path):
        self.path = path

    def log(self, record: Mapping[str, Any], stage: str, lang: str | None = None) -> None:
        """Append numbers: `step`, `tokens` and `t` (seconds) say when, every other key is a name and its value."""
        when = {key: record.get(key) for key in ("step", "tokens", "t")}
        for name, value in record.items():
            if name in when:
                continue
            number = float(value)
            finite = number if abs(number) < float("inf") else None  # JSON has no NaN; null says "not a number"
            line = {**when, "stage": stage, "name": name, "value": finite}
            append_jsonl(self.path, line if lang is None else {**line, "lang": lang})

    def read(self) -> "pd.DataFrame":
        """Return the numbers as a table, see `columns`; empty while there are none."""
        import pandas as pd

        return pd.DataFrame(read_jsonl(self.path), columns=list(self.columns))

    def truncate(self, stage: str, step: int) -> int:
        """Move a stage's records after `step` to another file, because it resumes there; returns how many."""
        records = read_jsonl(self.path)
        orphans = [record for record in records if record["stage"] == stage and (record["step"] or 0) > step]
        if orphans:
            aside = f"metrics.orphan-{datetime.now(UTC):%Y%m%d-%H%M%S-%fZ}.jsonl"
            write_jsonl(self.path.with_name(aside), orphans)
            write_jsonl(self.path, [record for record in records if record not in orphans])
        return len(orphans)

    def repair(self) -> None:
        """Cut off a last line that a kill left half-written, so that what is appended next starts on its own line."""
        _drop_cut_line(self.path)


class _Folder:
    """Files of one kind in a folder of the run, by name."""

    _suffix: str
    _kind: str

    def __init__(self, path: Path):
        self._path = path

    def names(self) -> tuple[str, ...]:
        """Return the names there are, sorted."""
        paths = self._path.glob(f"*{self._suffix}")
        return tuple(sorted(path.name.removesuffix(self._suffix) for path in paths if not path.name.startswith(".")))

    def _file(self, name: str) -> Path:
        return self._path / f"{formats.checked_name(name, self._kind)}{self._suffix}"


class Tables(_Folder):
    """The results as `tables/<name>.csv`."""

    _suffix, _kind = ".csv", "table"

    def write(self, name: str, table: "pd.DataFrame") -> None:
        """Write a table."""
        formats.write_table(self._file(name), table)

    def read(self, name: str) -> "pd.DataFrame | None":
        """Read a table, or None when there is none of that name."""
        path = self._file(name)
        return formats.read_table(path) if path.is_file() else None


class Figures(_Folder):
    """Figures as plotly JSON, `figures/<name>.json`."""

    _suffix, _kind = ".json", "figure"

    def write(self, name: str, plotly_json: str | Mapping[str, Any]) -> None:
        """Write a figure: what plotly's `to_json` gives, as text or as a mapping."""
        path = self._file(name)
        path.parent.mkdir(exist_ok=True)
        text = plotly_json if isinstance(plotly_json, str) else json.dumps(plotly_json, ensure_ascii=False)
        write_text(path, text)

    def read(self) -> dict[str, Any]:
        """Return every figure's plotly JSON by name."""
        return {name: read_json(self._file(name)) for name in self.names()}


class Traces(_Folder):
    """Routing traces, `traces/<name>.*`; the name is the language code where there is one."""

    _suffix, _kind = ".json", "trace"

    def write(self, name: str, trace: "RoutingTrace") -> None:
        """Write a routing trace."""
        formats.write_trace(self._path, formats.checked_name(name, self._kind), trace)

    def read(self, name: str) -> "RoutingTrace":
        """Read a routing trace.

        Raises:
            MissingError: there is none of that name.
            DamagedError: its files are altered or do not fit together.
        """
        formats.checked_name(name, self._kind)
        names = self.names()
        if name not in names:
            hint = f"It has {', '.join(names)}." if names else "It has none."
            raise MissingError(f"Run {self._path.parent.name} has no routing trace {name!r}. {hint}")
        return formats.read_trace(self._path, name)

    def delete(self, name: str) -> None:
        """Delete a routing trace; without effect where there is none."""
        formats.checked_name(name, self._kind)
        for suffix in (".json", ".npz", ".tokens.jsonl"):  # first the one that the list of traces goes by
            (self._path / f"{name}{suffix}").unlink(missing_ok=True)


class Generations(_Folder):
    """Generated text, `generations/<name>.jsonl`: by default `pairs` of continuations of one prompt."""

    _suffix, _kind = ".jsonl", "file of generations"

    def append(self, record: Mapping[str, Any], name: str = "pairs") -> None:
        """Append a record."""
        path = self._file(name)
        path.parent.mkdir(exist_ok=True)
        append_jsonl(path, dict(record))

    def read(self, name: str = "pairs") -> list[dict[str, Any]]:
        """Return the records, oldest first."""
        return read_jsonl(self._file(name))

    def repair(self) -> None:
        """As `Metrics.repair`."""
        for path in self._path.glob(f"*{self._suffix}"):
            _drop_cut_line(path)


class Phases(Mapping[str, Any]):
    """What each phase found, by phase: a mapping that is read afresh from `phases.json` at every access."""

    def __init__(self, path: Path, status: StatusFile):
        self._path = path
        self._status = status

    def _read(self) -> dict[str, Any]:
        return read_json_object(self._path) if self._path.exists() else {}

    def __getitem__(self, phase: str) -> Any:
        return self._read()[phase]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def record(self, phase: str, facts: Mapping[str, Any]) -> None:
        """Record what a phase found, so that a resumed run need not find it again."""
        write_json(self._path, {**self._read(), phase: dict(facts)})

    @property
    def seconds(self) -> dict[str, float]:
        """How long each phase took, all sessions together; empty while nothing was timed."""
        return dict(self.get("seconds") or {})

    @property
    def processes(self) -> dict[str, list[int]]:
        """How many processes worked on each step, session after session where the number changed; empty before any."""
        return dict(self.get("processes") or {})

    def record_processes(self, step: str, number: int) -> None:
        """Record how many processes work on a step."""
        before = self.processes.get(step, [])
        if before[-1:] != [number]:
            self.record("processes", {**self.processes, step: [*before, number]})

    def mark_done(self, phase: str) -> None:
        """Record that a resumed run need not repeat a phase."""
        done = self._status.read().done_phases
        if phase not in done:
            self._status.update(done_phases=(*done, phase))

    def is_done(self, phase: str) -> bool:
        """Whether `mark_done(phase)` was called, in this or an earlier session."""
        return phase in self._status.read().done_phases

    def expect(self, num_steps: int, max_minutes: float | None = None) -> None:
        """Record how many steps and minutes the training under way may take, so that the time left can be shown."""
        max_seconds = None if max_minutes is None else 60 * max_minutes
        self._status.update(num_steps=num_steps, max_seconds=max_seconds)


class Documents:
    """Single JSON and YAML files of a run.

    - `results`: final numbers only, with n and interval; the file other code relies on. The same settings give the same
      bytes (on one machine), so what differs from run to run has no place in it: times and speeds are recorded by
      phase, and other runs are named in `run.json`.
    - `data`: what text it was made from; per language source, counts, hash, licence.
    - `env`: what it was made with: Python, packages, commit, device, threads, seeds.
    - `equivalence`: how far an upcycled model is from its base, by way of initialising new experts.
    - `tags`: words that a person put on it (see `housekeeping`).
    """

    def __init__(self, path: Path):
        self._path = path

    def read(self, name: Document) -> dict[str, Any]:
        """Read a document; empty while there is none."""
        path = self._path / f"{name}.json"
        return read_json_object(path) if path.exists() else {}

    def write(self, name: Document, facts: Mapping[str, Any]) -> None:
        """Replace a document."""
        write_json(self._path / f"{name}.json", dict(facts))

    @property
    def is_resolved(self) -> bool:
        """Whether every setting was recorded, not only what the person gave."""
        return (self._path / "config.yaml").exists()

    @property
    def config(self) -> dict[str, Any]:
        """Every setting, resolved; until the code has resolved them, what the person gave."""
        return _settings(self._path / "config.yaml") if self.is_resolved else self.config_input

    @property
    def config_input(self) -> dict[str, Any]:
        """The settings that the person gave."""
        return _settings(self._path / "config.input.yaml")

    @property
    def notes(self) -> str:
        """Free text that a person left in `notes.md`."""
        path = self._path / "notes.md"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def plan(self) -> dict[str, Any] | None:
        """Settings of an experiment that follows this run's plan, for the functions of `recipes`; None without one."""
        path = self._path / "plan.yaml"
        if not path.exists():
            return None
        return {key: tuple(value) if isinstance(value, list) else value for key, value in _settings(path).items()}

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write `plan.yaml`: new experts layer by layer, and what they were planned for."""
        write_text(self._path / "plan.yaml", dump_yaml(as_json(plan)))


class Paths:
    """Where a run keeps what is neither a number nor a document; most of it may not be there yet.

    Attributes:
        checkpoint: the sealed final adapter.
        statistics: the sealed router statistics, which a further language group needs of the text so far.
        notebook: the executed notebook.
        log: what was printed while running.
        tracking: the files of trackers that a stage was handed on to.
    """

    def __init__(self, path: Path):
        self._path = path
        self.checkpoint = path / "checkpoint"
        self.statistics = path / "statistics"
        self.notebook = path / "notebook.ipynb"
        self.log = path / "logs" / "run.log"
        self.tracking = path / "tracking"

    @property
    def has_checkpoint(self) -> bool:
        """Whether the final adapter is there and was sealed; loading verifies its bytes."""
        return (self.checkpoint / MANIFEST).is_file()

    def stage(self, stage: str) -> Path:
        """Return the folder a training stage keeps its checkpoints in; made when absent."""
        path = self._path / "stages" / formats.checked_name(stage, "stage")
        path.mkdir(parents=True, exist_ok=True)
        return path


def _settings(path: Path) -> dict[str, Any]:
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise DamagedError(f"{path} does not hold settings by name.")
    return value


def _drop_cut_line(path: Path) -> None:
    """Cut off a last line that a kill (no newline) or a power cut (zero bytes) left half-written, before appending."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rstrip(b"\0")
    whole = whole[: whole.rfind(b"\n") + 1]
    if len(whole) != len(content):
        os.truncate(path, len(whole))
