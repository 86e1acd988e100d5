"""Find runs in a folder of runs: all, the newest, the one with the same settings, the one to take up or to start."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lpr_lab.errors import DamagedError, LprError, UsageError
from lpr_lab.runs import environment
from lpr_lab.runs.latest import point_latest
from lpr_lab.runs.run import EXAMPLES, Run, run_folders
from lpr_lab.storage import read_json, remove_directory, write_json, write_text
from lpr_lab.yaml_files import as_json, dump_yaml

Complete = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Adds to settings of an earlier version the ones introduced since, with the values that it used."""


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


def list_runs(root: Path | str) -> list[Run]:
    """Return every run, newest first, examples last; one that cannot be read is there with `.problem` set."""
    listed = []
    for folder in (Path(root), Path(root) / EXAMPLES):
        runs = [Run(path) for path in run_folders(folder)]
        listed += sorted(runs, key=lambda run: (run.created or run.id, run.id), reverse=True)
    return listed


def newest_run(root: Path | str) -> Run | None:
    """Return the newest readable run that is not an example, or None."""
    return next((run for run in list_runs(root) if run.problem is None and not run.is_example), None)


def find_same_config(root: Path | str, config: Mapping[str, Any], kind: str, completed: Complete = dict) -> Run | None:
    """Return the newest run of a kind whose settings, resolved or as given, equal `config`, whatever its state.

    `completed` is as in `record_config`.
    """
    wanted = as_json(config)
    for run in list_runs(root):
        if run.problem is not None or run.is_example or run.kind != kind:
            continue
        try:
            recorded = run.config
            if wanted in (recorded, run.documents.config_input):
                return run
            # Settings with the same names are of this version: nothing is to be added, which takes milliseconds a run.
            if recorded.keys() != wanted.keys() and wanted == as_json(completed(recorded)):
                return run
        except LprError:
            continue
    return None


def discard(run: Run) -> None:
    """Remove a run in which nothing was done, because it could not be started."""
    remove_directory(run.path)
    point_latest_at_newest(run.path.parent)


def point_latest_at_newest(root: Path) -> None:
    """Point `latest` at the newest run that is left, after one was removed."""
    newest = newest_run(root)
    point_latest(root, newest.id if newest is not None else None)


def record_config(run: Run, config: Mapping[str, Any], completed: Complete = dict) -> None:
    """Record the settings as resolved by the code, for a run that was made from what a person gave.

    Args:
        run: to open again afterwards, where its settings were read before.
        config: every setting.
        completed: adds to settings of an earlier version the ones introduced since, with the values that it used.

    Raises:
        UsageError: other settings were recorded before; the message names those that differ.
    """
    resolved = as_json(config)
    if not run.documents.is_resolved:
        write_text(run.path / "config.yaml", dump_yaml(resolved))
        return
    before = as_json(completed(run.config))
    differing = sorted(key for key in before.keys() | resolved.keys() if before.get(key) != resolved.get(key))
    if differing:
        raise UsageError(f"Run {run.id} was made with other settings ({', '.join(differing)} differ). Start a new run.")


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
        completed: see `record_config`.
    """
    if run_dir:
        run = Run(Path(run_dir))
        if run.problem:
            raise DamagedError(run.problem)
        record_config(run, config, completed)
        if not set(parents) <= set(run.parents):
            facts = read_json(run.path / "run.json")
            write_json(run.path / "run.json", facts | {"parents": list(dict.fromkeys([*run.parents, *parents]))})
        run = Run(run.path)
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
        except UsageError:  # another process with the same settings started first, and may even be done
            run = None
        else:
            return run
