"""What lies in a run directory: the names of its files, and how each is written and read.

Everything is replaced whole, except `metrics.jsonl` and `generations/`, which only grow. See `runs.py` for the layout.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpr_lab.errors import DamagedError, MissingError
from lpr_lab.runs import environment
from lpr_lab.runs import formats as run_formats
from lpr_lab.runs.yaml_files import as_json, dump_yaml, read_yaml
from lpr_lab.storage import MANIFEST, append_jsonl, read_json, read_jsonl, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

    from lpr_lab.measure.trace import RoutingTrace

PRINTED_TO = "LPR_LAB_PRINTED_TO"
"""Environment variable that names the log which all that is printed here ends up in anyway."""
_METRIC_COLUMNS = ("step", "tokens", "t", "stage", "name", "value", "lang")


class RunFiles:
    """The files of one run directory, whatever state the run is in. `Run` adds what it is and where it stands."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting, resolved; until the code has resolved them, what the person gave."""
        return _mapping(self.path / "config.yaml") if self.is_resolved else self.config_input

    @property
    def is_resolved(self) -> bool:
        """Whether `config` is more than what the person gave."""
        return (self.path / "config.yaml").exists()

    @cached_property
    def config_input(self) -> dict[str, Any]:
        """What the person gave."""
        return _mapping(self.path / "config.input.yaml")

    # Numbers while training

    @property
    def metrics_path(self) -> Path:
        """Where the numbers are or will be."""
        return self.path / "metrics.jsonl"

    def log_metrics(self, record: Mapping[str, Any], stage: str, lang: str | None = None) -> None:
        """Append numbers: `step`, `tokens` and `t` (seconds) say when, every other key is a name and its value."""
        when = {key: record.get(key) for key in ("step", "tokens", "t")}
        for name, value in record.items():
            if name in when:
                continue
            number = float(value)
            finite = number if abs(number) < float("inf") else None  # JSON has no NaN; null says "not a number"
            line = {**when, "stage": stage, "name": name, "value": finite}
            append_jsonl(self.metrics_path, line if lang is None else {**line, "lang": lang})

    def metrics(self) -> "pd.DataFrame":
        """Return the numbers as a table with columns step, tokens, t, stage, name, value, lang; empty when none."""
        import pandas as pd

        return pd.DataFrame(read_jsonl(self.metrics_path), columns=list(_METRIC_COLUMNS))

    def repair(self) -> None:
        """Cut off last lines that a kill left half-written, so that what is appended next starts on its own line."""
        for path in (self.metrics_path, *(self.path / "generations").glob("*.jsonl")):
            _drop_cut_line(path)

    def truncate_metrics(self, stage: str, step: int) -> int:
        """Move a stage's records after `step` aside, because it resumes there; returns how many were moved."""
        path = self.metrics_path
        records = read_jsonl(path)
        orphans = [record for record in records if record["stage"] == stage and (record["step"] or 0) > step]
        if orphans:
            kept = [record for record in records if record not in orphans]
            aside = f"metrics.orphan-{datetime.now(UTC):%Y%m%d-%H%M%S-%fZ}.jsonl"
            write_text(self.path / aside, _lines(orphans))
            write_text(path, _lines(kept))
        return len(orphans)

    # What it found

    @property
    def phases(self) -> dict[str, Any]:
        """What each phase recorded so far, by phase; results are made from it."""
        return self._optional_json("phases.json") or {}

    def record_phase(self, phase: str, facts: Mapping[str, Any]) -> None:
        """Record what a phase found, so that a resumed run need not find it again."""
        write_json(self.path / "phases.json", {**self.phases, phase: dict(facts)})

    @property
    def seconds(self) -> dict[str, float]:
        """How long each phase took, all sessions together; empty while nothing was timed."""
        return dict(self.phases.get("seconds") or {})

    @property
    def results(self) -> dict[str, Any] | None:
        """The final numbers, or None while there are none."""
        return self._optional_json("results.json")

    @property
    def data(self) -> dict[str, Any] | None:
        """What text it was made from, or None."""
        return self._optional_json("data.json")

    @property
    def env(self) -> dict[str, Any] | None:
        """What it was made with, or None."""
        return self._optional_json("env.json")

    @property
    def notes(self) -> str:
        """Free text that a person left in `notes.md`."""
        path = self.path / "notes.md"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def tags(self) -> tuple[str, ...]:
        """Words that a person put on it."""
        return tuple(str(word) for word in (self._optional_json("tags.json") or {}).get("tags") or ())

    def write_tags(self, tags: Sequence[str]) -> None:
        """Write `tags.json`; `housekeeping.tag` checks the words."""
        write_json(self.path / "tags.json", {"schema_version": 1, "tags": list(tags)})

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Write `results.json`: final numbers only, with n and interval; the file other code relies on.

        The same settings give the same bytes (on one machine), so what differs from run to run has no place in it:
        times and speeds are recorded by phase, and other runs are named in `run.json`.
        """
        write_json(self.path / "results.json", dict(results))

    def write_data(self, data: Mapping[str, Any]) -> None:
        """Write `data.json`: per language source, counts, hash, licence."""
        write_json(self.path / "data.json", dict(data))

    def write_env(self, **facts: Any) -> None:
        """Write `env.json`: Python, packages, commit, device, threads, and any further facts such as seeds."""
        write_json(self.path / "env.json", environment.describe() | facts)

    @property
    def plan(self) -> dict[str, Any] | None:
        """Settings of an experiment that follows this run's plan, for the functions of `recipes`; None without one."""
        path = self.path / "plan.yaml"
        if not path.exists():
            return None
        return {key: tuple(value) if isinstance(value, list) else value for key, value in _mapping(path).items()}

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Write `plan.yaml`: new experts layer by layer, and what they were planned for."""
        write_text(self.path / "plan.yaml", dump_yaml(as_json(plan)))

    @property
    def equivalence(self) -> dict[str, Any] | None:
        """How far an upcycled model is from its base, start by start, or None where that was not compared."""
        return self._optional_json("equivalence.json")

    def write_equivalence(self, facts: Mapping[str, Any]) -> None:
        """Write `equivalence.json`."""
        write_json(self.path / "equivalence.json", dict(facts))

    def write_table(self, name: str, table: "pd.DataFrame") -> None:
        """Write `tables/<name>.csv`."""
        run_formats.write_table(self._file("tables", name, ".csv", "table"), table)

    def read_table(self, name: str) -> "pd.DataFrame | None":
        """Read `tables/<name>.csv`, or None when there is none."""
        path = self._file("tables", name, ".csv", "table")
        return run_formats.read_table(path) if path.is_file() else None

    def table_names(self) -> tuple[str, ...]:
        """The tables there are."""
        return self._names("tables", ".csv")

    def write_figure(self, name: str, plotly_json: str | Mapping[str, Any]) -> None:
        """Write `figures/<name>.json`: what plotly's `to_json` gives, as text or as a mapping."""
        path = self._file("figures", name, ".json", "figure")
        path.parent.mkdir(exist_ok=True)
        text = plotly_json if isinstance(plotly_json, str) else json.dumps(plotly_json, ensure_ascii=False)
        write_text(path, text)

    def figures(self) -> dict[str, Any]:
        """Return every figure's plotly JSON by name."""
        return {name: read_json(self.path / "figures" / f"{name}.json") for name in self._names("figures", ".json")}

    def write_trace(self, name: str, trace: "RoutingTrace") -> None:
        """Write a routing trace as `traces/<name>.*`; the name is the language code where there is one."""
        run_formats.write_trace(self.path / "traces", run_formats.checked_name(name, "trace"), trace)

    def read_trace(self, name: str) -> "RoutingTrace":
        """Read a routing trace.

        Raises:
            MissingError: there is none of that name.
            DamagedError: its files are altered or do not fit together.
        """
        run_formats.checked_name(name, "trace")
        if name not in self.trace_names():
            hint = f"It has {', '.join(self.trace_names())}." if self.trace_names() else "It has none."
            raise MissingError(f"Run {self.id} has no routing trace {name!r}. {hint}")
        return run_formats.read_trace(self.path / "traces", name)

    def delete_trace(self, name: str) -> None:
        """Delete a routing trace; without effect where there is none."""
        run_formats.checked_name(name, "trace")
        for suffix in (".json", ".npz", ".tokens.jsonl"):  # first the one that the list of traces goes by
            (self.path / "traces" / f"{name}{suffix}").unlink(missing_ok=True)

    def trace_names(self) -> tuple[str, ...]:
        """The traces there are."""
        return self._names("traces", ".json")

    def append_generation(self, record: Mapping[str, Any], name: str = "pairs") -> None:
        """Append one generated pair to `generations/<name>.jsonl`."""
        path = self._file("generations", name, ".jsonl", "file of generations")
        path.parent.mkdir(exist_ok=True)
        append_jsonl(path, dict(record))

    def generations(self, name: str = "pairs") -> list[dict[str, Any]]:
        """Return the generated pairs, oldest first."""
        return read_jsonl(self._file("generations", name, ".jsonl", "file of generations"))

    # Where things go

    def stage_dir(self, stage: str) -> Path:
        """Return the folder a training stage keeps its checkpoints in; made when absent."""
        path = self.path / "stages" / run_formats.checked_name(stage, "stage")
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def checkpoint_dir(self) -> Path:
        """Where the sealed final adapter is or will be."""
        return self.path / "checkpoint"

    @property
    def statistics_dir(self) -> Path:
        """Where the sealed router statistics are or will be: what a further language group needs of the text so far."""
        return self.path / "statistics"

    @property
    def has_checkpoint(self) -> bool:
        """Whether the final adapter is there and was sealed; loading verifies its bytes."""
        return (self.checkpoint_dir / MANIFEST).is_file()

    @property
    def notebook_path(self) -> Path:
        """Where the executed notebook is or will be."""
        return self.path / "notebook.ipynb"

    @property
    def log_path(self) -> Path:
        """Where what was printed while running is or will be."""
        return self.path / "logs" / "run.log"

    def say(self, text: str) -> None:
        """Print a remark to stderr, and keep it in the log."""
        print(text, file=sys.stderr, flush=True)
        if os.environ.get(PRINTED_TO) != str(self.log_path):
            self.log_path.parent.mkdir(exist_ok=True)
            with self.log_path.open("a", encoding="utf-8") as log:
                log.write(text + "\n")

    @property
    def tracking_dir(self) -> Path:
        """Where the trackers that a stage was handed on to keep their files (see `tracking`)."""
        return self.path / "tracking"

    def _file(self, folder: str, name: str, suffix: str, what: str) -> Path:
        return self.path / folder / f"{run_formats.checked_name(name, what)}{suffix}"

    def _names(self, folder: str, suffix: str) -> tuple[str, ...]:
        paths = (self.path / folder).glob(f"*{suffix}")
        return tuple(sorted(path.name.removesuffix(suffix) for path in paths if not path.name.startswith(".")))

    def _optional_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.exists():
            return None
        value = read_json(path)
        if not isinstance(value, dict):
            raise DamagedError(f"{path} does not hold a JSON object.")
        return value


def _mapping(path: Path) -> dict[str, Any]:
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise DamagedError(f"{path} does not hold settings by name.")
    return value


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)


def _drop_cut_line(path: Path) -> None:
    """Cut off a last line that a kill (no newline) or a power cut (zero bytes) left half-written, before appending."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rstrip(b"\0")
    whole = whole[: whole.rfind(b"\n") + 1]
    if len(whole) != len(content):
        os.truncate(path, len(whole))
