"""The run directory: one folder of plain files per experiment. The only module that knows its file names.

    20261122-081130Z-demo-el-hu-tr-7f3a/     UTC time, kind, slug, four random digits
      run.json         what it is                    status.json      state (see `status.py`)
      config.yaml      every setting, resolved       config.input.yaml  what the person gave
      env.json data.json   made with, made from      metrics.jsonl    one line per number while training
      alerts.jsonl     what it raised itself
      results.json     the final numbers             tables/ figures/ traces/ generations/ prompts/
      stages/<stage>/checkpoint-<step>/  checkpoint/ while training; the sealed result
      notebook.ipynb   the executed copy             logs/run.log  notes.md  tags.json  tracking/
      own_texts.json sittings/  imported by people, judged by people

Everything but `metrics.jsonl`, `alerts.jsonl` and `generations/` (which only grow) is replaced whole. Nothing here
imports torch, and pandas only when a table is asked for: the dashboard and `lpr-lab runs list` read with this module.
"""

import errno
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError, LprError, MissingError, UsageError, did_you_mean
from lpr_lab.runs import environment, files, formats
from lpr_lab.runs.latest import point_latest
from lpr_lab.runs.status import Rank, Status, StatusFile, Worker, error_tail_of, sigterm_as_interrupt, utc_now
from lpr_lab.storage import (
    friendly_disk_errors,
    staged_directory,
    write_json,
    write_text,
)
from lpr_lab.yaml_files import as_json, dump_yaml

RUN_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,80}")
EXAMPLES = "examples"
_RESERVED = (EXAMPLES, "latest", "latest.txt", "README.md")


def run_folders(root: Path) -> list[Path]:
    """Return the folders in `root` whose names are those of runs, in no order; none where `root` is missing.

    Raises:
        MissingError: `root` cannot be read.
    """
    try:
        return [
            path
            for path in root.iterdir()
            if RUN_ID_PATTERN.fullmatch(path.name)
            and path.name not in _RESERVED
            and path.is_dir()
            and not path.is_symlink()
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MissingError(f"The runs folder {root} cannot be read ({error.strerror}). Name another one.") from error


def short_id(run_id: str) -> str:
    """Return what tells a run from others of the same title: the last digits of its id, or all of one that has none.

    >>> short_id("20261122-081130Z-demo-el-hu-tr-7f3a"), short_id("smollm2-135m-el-hu-tr")
    ('7f3a', 'smollm2-135m-el-hu-tr')
    """
    found = re.search(r"-([0-9a-f]{4,})$", run_id)
    return found[1] if found and run_id[:8].isdecimal() else run_id


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class Run:
    """One run directory. Make one with `Run.create`, find them with `Run.open` and the functions of `find`.

    It says what the run is, which state it is in, and starts and ends work on it; each part of the directory has its
    own small class in `files`.

    Attributes:
        path: the folder.
        problem: None, or one sentence that says why this run cannot be read; then only `.id` and `.path` are sure.
        is_example: whether it was committed with the code (no weights, never worked on).
        metrics: the numbers logged while training.
        tables, figures, traces, generations: the results by name.
        phases: what each phase found, how long it took, and which are done.
        documents: settings, results and other single files.
        paths: where weights, the notebook and the log are.
    """

    def __init__(self, path: Path):
        self.path = path
        self.is_example = path.parent.name == EXAMPLES
        self.problem: str | None = None
        self._status_file = StatusFile(path / "status.json")
        self.metrics = files.Metrics(path / "metrics.jsonl")
        self.tables = files.Tables(path / "tables")
        self.figures = files.Figures(path / "figures")
        self.traces = files.Traces(path / "traces")
        self.generations = files.Generations(path / "generations")
        self.phases = files.Phases(path / "phases.json", self._status_file)
        self.documents = files.Documents(path)
        self.paths = files.Paths(path)
        self._worker: Worker | Rank | None = None
        self._facts: dict[str, Any] = {}
        try:
            self._facts = formats.checked_facts(path / "run.json")
            self._status_file.read()
        except LprError as error:
            self.problem = str(error)
        except OSError as error:
            self.problem = f"{path} cannot be read ({error.strerror})."

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(
        cls,
        root: Path | str,
        *,
        kind: str,
        slug: str,
        title: str,
        config: Mapping[str, Any] | None = None,
        config_input: Mapping[str, Any] | None = None,
        parents: Sequence[str] = (),
    ) -> "Run":
        """Make a new run directory; it appears complete or not at all, and no two starts ever share one.

        Args:
            root: the folder of runs; made when absent.
            kind: what sort of experiment, one short word (`demo`, `expand`, `review`, `eval`).
            slug: a few words for the folder name, such as the expanded languages; anything unfit becomes a hyphen.
            title: one line for people.
            config: every setting, JSON-able; None when only what the person gave is known (see `find.record_config`).
            config_input: what the person gave, when that is not `config`.
            parents: ids of the runs it builds on.

        Raises:
            UsageError: the settings hold something that is not JSON (a path, a NaN, a class).
        """
        root = Path(root)
        given = config if config_input is None else config_input
        settings = {"config.yaml": config, "config.input.yaml": {} if given is None else given}
        texts = {name: dump_yaml(as_json(value)) for name, value in settings.items() if value is not None}
        now = datetime.now(UTC)
        words = [part for part in (_slug(kind), _slug(slug)[:40].strip("-")) if part]
        with friendly_disk_errors("starting a run", root):
            root.mkdir(parents=True, exist_ok=True)
        for _ in range(100):
            run_id = "-".join([f"{now:%Y%m%d-%H%M%S}Z", *words, secrets.token_hex(2)])
            try:
                with staged_directory(root / run_id) as stage:
                    facts = {"schema_version": formats.SCHEMA_VERSION, "id": run_id, "kind": kind, "title": title}
                    facts |= {"created": f"{now:%Y-%m-%dT%H:%M:%SZ}", "parents": list(parents), "status": "status.json"}
                    pages = ("routing", "retention", "compare")
                    facts["app_view"] = {page: f"/{page}?run={run_id}" for page in pages}
                    write_json(stage / "run.json", facts)
                    for name, text in texts.items():
                        write_text(stage / name, text)
                    StatusFile(stage / "status.json").write(Status())
            except OSError as error:  # the rename refuses to replace a run that has the same name
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                continue
            point_latest(root, run_id)
            return cls(root / run_id)
        raise LprError(f"No free name for a run was found in {root} in 100 tries; look at what is in that folder.")

    @classmethod
    def open(cls, root: Path | str, run_id: str) -> "Run":
        """Open a run by id, examples included.

        Raises:
            UsageError: `run_id` is not the name of a run (so no path is ever followed from one).
            MissingError: there is no such run.
            DamagedError: there is, but it cannot be read.
        """
        root = Path(root)
        if not RUN_ID_PATTERN.fullmatch(run_id) or run_id in _RESERVED:
            raise UsageError(f"{run_id!r} is not a run id. `lpr-lab runs list` shows the ids.")
        for path in (root / run_id, root / EXAMPLES / run_id):
            if path.is_dir():
                run = cls(path)
                if run.problem:
                    raise DamagedError(run.problem)
                return run
        known = [path.name for folder in (root, root / EXAMPLES) for path in run_folders(folder)]
        hint = did_you_mean(run_id, known)
        raise MissingError(f"There is no run {run_id!r} in {root}.{hint} `lpr-lab runs list` shows the ids.")

    # What it is

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def kind(self) -> str:
        """What sort of experiment, one word."""
        return str(self._facts.get("kind", "unknown"))

    @property
    def title(self) -> str:
        """One line for people."""
        return str(self._facts.get("title", self.id))

    @property
    def created(self) -> str:
        """UTC, `2026-11-22T08:11:30Z`; empty when the run cannot be read."""
        return str(self._facts.get("created", ""))

    @property
    def note(self) -> str:
        """One sentence where the run was written by the version before this one, else empty."""
        return formats.version_note(self._facts.get("schema_version"))

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the runs it builds on."""
        return tuple(str(parent) for parent in self._facts.get("parents") or ())

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every setting, as `documents.config`, read once."""
        return self.documents.config

    @property
    def results(self) -> dict[str, Any]:
        """The final numbers; empty while there are none."""
        return self.documents.read("results")

    # Its state

    @property
    def status(self) -> Status:
        """Its state, stage and progress now, read afresh."""
        return self._status_file.read()

    def start(self, stage: str | None = None) -> None:
        """Begin (or take up again) work in this process: lock, `running`, heartbeat until `finish` or the process ends.

        Raises:
            UsageError: it is finished or an example, or another process works on it.
        """
        if self._worker is not None:
            if stage is not None:
                self._worker.enter(stage)
            return
        if self.is_example or self.status.recorded_state == "finished":
            what = "is an example" if self.is_example else "is finished"
            raise UsageError(f"Run {self.id} {what} and is never written over. Start a new run.")
        worker = Worker(self._status_file)
        worker.start(stage)
        self._worker = worker
        self.metrics.repair()
        self.generations.repair()
        if not (self.path / "env.json").exists():
            self.documents.write("env", environment.describe() | {"seeds": formats.seeds_in(self.config)})

    def join(self, *, writes: bool) -> None:
        """Work on it as one of several processes that another one started, which holds it and says how it ends.

        Args:
            writes: whether this is the first of them, which alone writes into the run.
        """
        self._worker = Rank(self._status_file, writes=writes)

    @contextmanager
    def working(self, stage: str | None = None) -> Iterator["Run"]:
        """Work on one stage: an exception leaves the run `failed`, Ctrl-C or SIGTERM `interrupted`, both re-raised.

        When the block ends well the run stays `running` for the next stage; `finish` ends it.
        """
        self.start(stage)
        try:
            with sigterm_as_interrupt():
                yield self
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            self.stop("interrupted")
            raise
        except BaseException as error:
            self.stop("failed", error=error)
            raise

    def stop(self, state: str, *, error: BaseException | None = None, error_tail: str | None = None) -> None:
        """End work on the run as `interrupted`, `failed` (with the error) or `finished`."""
        changes: dict[str, Any] = {"error_tail": error_tail, "exit_code": 0 if state == "finished" else None}
        if state == "interrupted":
            changes["exit_code"] = 130
        if state == "failed":
            changes["exit_code"] = error.exit_code if isinstance(error, LprError) else 1
        if error is not None and error_tail is None:
            changes["error_tail"] = error_tail_of(error)
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop(state, **changes)
        else:
            self._status_file.update(state=state, ended=utc_now(), **changes)

    def finish(self, results: Mapping[str, Any] | None = None) -> None:
        """Write the results, if given here, and mark the run `finished`."""
        if results is not None:
            self.documents.write("results", results)
        self.stop("finished")
