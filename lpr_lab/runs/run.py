"""The run directory: one folder of plain files per experiment. The only module that knows its file names.

    20261122-081130Z-demo-el-hu-tr-7f3a/     UTC time, kind, slug, four random digits
      run.json         what it is                    status.json      where it stands (see run_status.py)
      config.yaml      every setting, resolved       config.input.yaml  what the person gave
      env.json data.json   made with, made from      metrics.jsonl    one line per number while training
      results.json     the final numbers             tables/ figures/ traces/ generations/ prompts/
      stages/<stage>/checkpoint-<step>/  checkpoint/ while training; the sealed result
      notebook.ipynb   the executed copy             logs/run.log  notes.md  tags.json  tracking/

Everything but `metrics.jsonl` and `generations/` (which only grow) is replaced whole. Nothing here imports torch, and
pandas only when a table is asked for: the dashboard and `lpr-lab runs list` read with this module.
"""

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError, LprError, MissingError, UsageError, did_you_mean
from lpr_lab.runs import environment
from lpr_lab.runs import formats as run_formats
from lpr_lab.runs.files import RunFiles
from lpr_lab.runs.latest import point_latest
from lpr_lab.runs.status import Status, StatusFile, Worker, error_tail_of, sigterm_as_interrupt, utc_now
from lpr_lab.runs.yaml_files import as_json, dump_yaml
from lpr_lab.storage import (
    friendly_disk_errors,
    remove_directory,
    staged_directory,
    write_json,
    write_text,
)

RUN_ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,80}")
EXAMPLES = "examples"
Complete = Callable[[Mapping[str, Any]], dict[str, Any]]
_RESERVED = (EXAMPLES, "latest", "latest.txt", "README.md")


def default_runs_dir() -> Path:
    """Return the folder of runs: `$LPR_LAB_RUNS`, else `runs/` of the checkout one is in, else `runs/` here."""
    explicit = os.environ.get("LPR_LAB_RUNS")
    if explicit:
        return Path(explicit).expanduser()
    # A notebook runs in notebooks/, and its runs belong beside all others.
    checkout = environment.CHECKOUT
    is_checkout = (checkout / "notebooks").is_dir() and not environment.is_installed()
    inside = is_checkout and Path.cwd().is_relative_to(checkout)
    return (checkout if inside else Path.cwd()) / "runs"


class Run(RunFiles):
    """One run directory. Make one with `Run.create`, find them with `Run.open`, `list_runs` and their like.

    Attributes:
        path: the folder.
        problem: None, or one sentence that says why this run cannot be read; then only `.id` and `.path` are sure.
        is_example: whether it was committed with the code (no weights, never worked on).
    """

    def __init__(self, path: Path):
        super().__init__(path)
        self.is_example = path.parent.name == EXAMPLES
        self.problem: str | None = None
        self._status_file = StatusFile(path / "status.json")
        self._worker: Worker | None = None
        self._facts: dict[str, Any] = {}
        try:
            self._facts = run_formats.checked_facts(path / "run.json")
            self._status_file.read()
        except LprError as error:
            self.problem = str(error)
        except OSError as error:
            self.problem = f"{path} cannot be read ({error.strerror})."

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def short_id(self) -> str:
        """What tells it from runs of the same title: the last digits of its id, or all of one that has none."""
        found = re.search(r"-([0-9a-f]{4,})$", self.id)
        return found[1] if found and self.id[:8].isdecimal() else self.id

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
            config: every setting, JSON-able; None when only what the person gave is known (see `write_config`).
            config_input: what the person gave, when that is not `config`.
            parents: ids of the runs it builds on.

        Raises:
            UsageError: the settings hold something that is not JSON (a path, a NaN, a class).
        """
        root = Path(root)
        given = config if config_input is None else config_input
        files = {"config.yaml": config, "config.input.yaml": {} if given is None else given}
        texts = {name: dump_yaml(as_json(value)) for name, value in files.items() if value is not None}
        now = datetime.now(UTC)
        words = [part for part in (_slug(kind), _slug(slug)[:40].strip("-")) if part]
        with friendly_disk_errors("starting a run", root):
            root.mkdir(parents=True, exist_ok=True)
        for _ in range(100):
            run_id = "-".join([f"{now:%Y%m%d-%H%M%S}Z", *words, secrets.token_hex(2)])
            try:
                with staged_directory(root / run_id) as stage:
                    facts = {"schema_version": run_formats.SCHEMA_VERSION, "id": run_id, "kind": kind, "title": title}
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
        hint = did_you_mean(run_id, [run.id for run in list_runs(root)])
        raise MissingError(f"There is no run {run_id!r} in {root}.{hint} `lpr-lab runs list` shows the ids.")

    # What it is

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
        return run_formats.version_note(self._facts.get("schema_version"))

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the runs it builds on."""
        return tuple(str(parent) for parent in self._facts.get("parents") or ())

    def add_parents(self, parents: Sequence[str]) -> None:
        """Link the runs that this one builds on, when it was made before they were known."""
        if not set(parents) <= set(self.parents):
            self._facts["parents"] = list(dict.fromkeys([*self.parents, *parents]))
            write_json(self.path / "run.json", self._facts)

    def write_config(self, config: Mapping[str, Any], completed: Complete = dict) -> None:
        """Record the settings as resolved by the code, for a run that was made from what a person gave.

        Args:
            config: every setting.
            completed: adds to settings recorded by an earlier version those that came later, as they were then.

        Raises:
            UsageError: other settings were recorded before; the message names those that differ.
        """
        resolved = as_json(config)
        if self.is_resolved:
            before = as_json(completed(self.config))
            differing = sorted(key for key in before.keys() | resolved.keys() if before.get(key) != resolved.get(key))
            if differing:
                raise UsageError(
                    f"Run {self.id} was made with other settings ({', '.join(differing)} differ). Start a new run."
                )
        else:
            write_text(self.path / "config.yaml", dump_yaml(resolved))
            self.__dict__.pop("config", None)  # cached from config.input.yaml

    # Where it stands

    @property
    def status(self) -> Status:
        """Where it stands now, read afresh."""
        return self._status_file.read()

    def start(self, stage: str | None = None) -> None:
        """Begin (or take up again) work in this process: lock, `running`, heartbeat until `finish` or the process ends.

        Raises:
            UsageError: it is finished or an example, or another process works on it.
        """
        if self._worker is not None:
            if stage is not None:
                self._status_file.update(stage=stage, num_steps=None, max_seconds=None)
            return
        if self.is_example or self.status.recorded_state == "finished":
            what = "is an example" if self.is_example else "is finished"
            raise UsageError(f"Run {self.id} {what} and is never written over. Start a new run.")
        worker = Worker(self._status_file)
        worker.start(stage)
        self._worker = worker
        self.repair()
        if not (self.path / "env.json").exists():
            self.write_env(seeds=run_formats.seeds_in(self.config))

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
        """Let go of the run as `interrupted`, `failed` (with what went wrong) or `finished`."""
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
        """Write the results, if given here, and say `finished`."""
        if results is not None:
            self.write_results(results)
        self.stop("finished")

    def expect(self, num_steps: int, max_minutes: float | None = None) -> None:
        """Say what the stage under way may take, so that whoever watches it knows how much is left."""
        max_seconds = None if max_minutes is None else 60 * max_minutes
        self._status_file.update(num_steps=num_steps, max_seconds=max_seconds)

    def mark_done(self, phase: str) -> None:
        """Record a phase that a resumed run need not repeat."""
        done = self.status.done_phases
        if phase not in done:
            self._status_file.update(done_phases=(*done, phase))

    def is_done(self, phase: str) -> bool:
        """Whether `mark_done(phase)` was called, in this or an earlier attempt."""
        return phase in self.status.done_phases


# Finding runs


def list_runs(root: Path | str) -> list[Run]:
    """Return every run, newest first, examples last; one that cannot be read is there with `.problem` set."""
    root = Path(root)
    own = _runs_in(root)
    examples = _runs_in(root / EXAMPLES)
    return own + examples


def _runs_in(folder: Path) -> list[Run]:
    try:
        paths = [
            path
            for path in folder.iterdir()
            if RUN_ID_PATTERN.fullmatch(path.name)
            and path.name not in _RESERVED
            and path.is_dir()
            and not path.is_symlink()
        ]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MissingError(f"The runs folder {folder} cannot be read ({error.strerror}). Name another one.") from error
    runs = [Run(path) for path in paths]
    return sorted(runs, key=lambda run: (run.created or run.id, run.id), reverse=True)


def newest_run(root: Path | str) -> Run | None:
    """Return the newest readable run that is not an example, or None."""
    return next((run for run in list_runs(root) if run.problem is None and not run.is_example), None)


def find_same_config(root: Path | str, config: Mapping[str, Any], kind: str, completed: Complete = dict) -> Run | None:
    """Return the newest run of a kind whose settings, resolved or as given, equal `config`, whatever its state.

    `completed` is as in `Run.write_config`.
    """
    wanted = as_json(config)
    for run in list_runs(root):
        if run.problem is not None or run.is_example or run.kind != kind:
            continue
        try:
            if wanted in (run.config, run.config_input) or wanted == as_json(completed(run.config)):
                return run
        except LprError:
            continue
    return None


def discard(run: Run) -> None:
    """Remove a run in which nothing was done, because it could not even begin."""
    remove_directory(run.path)
    point_latest_at_newest(run.path.parent)


def point_latest_at_newest(root: Path) -> None:
    """Let `latest` lead to the newest run that is left, after one was taken away."""
    newest = newest_run(root)
    point_latest(root, newest.id if newest is not None else None)


def start_run(
    config: Mapping[str, Any],
    *,
    kind: str,
    slug: str,
    title: str,
    run_dir: Path | str = "",
    root: Path | str | None = None,
    parents: Sequence[str] = (),
    completed: Complete = dict,
) -> Run:
    """Return the run to work in, started: the one given, or the newest unfinished with these settings, or a new one.

    Args:
        config: every setting, resolved.
        kind: see `Run.create`.
        slug: see `Run.create`.
        title: see `Run.create`.
        run_dir: a run directory made before (by `lpr-lab run`, say); its settings must not have been others.
        root: the folder of runs; `default_runs_dir()` when not given.
        parents: ids of the runs it builds on.
        completed: see `Run.write_config`.
    """
    if run_dir:
        run = Run(Path(run_dir))
        if run.problem:
            raise DamagedError(run.problem)
        run.write_config(config, completed)
        run.add_parents(parents)
        run.start()
        return run
    root = default_runs_dir() if root is None else Path(root)
    before = find_same_config(root, config, kind, completed)
    resumable = before is not None and before.status.state not in ("finished", "running")
    run = before if resumable else None
    while True:
        run = run or Run.create(root, kind=kind, slug=slug, title=title, config=config, parents=parents)
        try:
            run.start()
        except UsageError:  # another process with the same settings was quicker, and may even be done
            run = None
        else:
            return run


# Small pieces


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
