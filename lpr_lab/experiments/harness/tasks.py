"""Which tasks an evaluation reads, found and loaded before any model is, and without a network unless it was allowed.

Almost every task that comes with the harness reads a data set of the hub. What a person has in the cache, or in files
of their own, is read without asking.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import datasets.config
import huggingface_hub.constants
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from lpr_lab.errors import MissingError, UsageError, did_you_mean, first_line


@contextmanager
def without_fetching() -> Iterator[None]:
    """Keep the hub's libraries to their caches inside the block."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True))
        stack.enter_context(patch.object(datasets.config, "HF_HUB_OFFLINE", True))
        yield


def expand(tasks: Sequence[str]) -> list[str]:
    """Return names and files of tasks, with a folder replaced by the task files in it; files as absolute paths.

    Raises:
        MissingError: a file that does not exist, or a folder without tasks.
    """
    found: list[str] = []
    for task in tasks:
        path = Path(task).expanduser()
        if path.suffix in (".yaml", ".yml"):
            if not path.is_file():
                raise MissingError(f"There is no task file {task}; expected a YAML file of the harness.")
            found.append(str(path.absolute()))
        elif "/" in task and path.is_dir():
            files = sorted(path.absolute().glob("*.yaml"))
            if not files:
                raise MissingError(f"The folder {task} has no task files (*.yaml).")
            found += map(str, files)
        else:
            found.append(task)
    return list(dict.fromkeys(found))


def find_tasks(
    tasks: Sequence[str], include_path: str | None = None, metadata: Mapping[str, Any] | None = None
) -> tuple[TaskManager, list[str]]:
    """Return the harness's table of tasks, and the names and files asked for, patterns resolved.

    The harness reads 14,000 files to know its own tasks; where all that was asked for is the person's own, they are
    left out.

    Args:
        tasks: names, patterns (`belebele_*`), task files, or folders of these.
        include_path: a folder of one's own tasks, known by their names.
        metadata: what tasks are told.

    Raises:
        UsageError: no task, or a name that no task has, with the closest one.
        MissingError: see `expand`.
    """
    wanted = expand(tasks)
    if not wanted:
        raise UsageError("Say what to evaluate: --tasks NAME or --tasks FILE.yaml.")
    if include_path is not None and not Path(include_path).is_dir():
        raise MissingError(f"There is no folder {include_path}; expected one of task files (--include_path).")
    told = dict(metadata or {})
    manager = TaskManager(include_path=include_path, include_defaults=False, metadata=told)
    own = [name in manager.all_subtasks or _is_single(name) for name in wanted]
    if not all(own):
        manager = TaskManager(include_path=include_path, metadata=told)
    names: list[str] = []
    for name in wanted:
        matches = [name] if Path(name).is_file() else manager.match_tasks([name])
        if not matches:
            raise UsageError(
                f"The harness has no task {name!r}.{did_you_mean(name, manager.all_tasks)} `lm_eval ls tasks` lists "
                "them; a task of your own is a file (--tasks task.yaml) or a name in --include_path."
            )
        names += matches
    return manager, list(dict.fromkeys(names))


def load_tasks(manager: TaskManager, names: Sequence[str]) -> list[str]:
    """Load every task with its data, so that what is missing is known before a model is loaded; return their names.

    Raises:
        MissingError: data that is neither here nor in the cache; says what the harness would fetch.
        UsageError: a task that the harness cannot make sense of.
    """
    loaded: list[str] = []
    for name in names:
        try:
            loaded += manager.load([name])["tasks"]
        except ConnectionError as error:
            raise MissingError(
                f"The task {Path(name).name} reads data that is not on this machine ({first_line(error)}). Nothing is "
                "fetched unasked: with --fetch the harness may fetch it from the hub; its licence is on its page there."
            ) from error
        except FileNotFoundError as error:
            raise MissingError(
                f"The task {Path(name).name} reads a file that is not there ({first_line(error)}). Paths of data_files "
                "in a task file are absolute, or from the folder that the command runs in."
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"The harness cannot load the task {Path(name).name}: {first_line(error)}.") from error
    return list(dict.fromkeys(loaded))


def _is_single(name: str) -> bool:
    """Whether this is a file of one task; a group may have tasks of the harness in it."""
    return Path(name).is_file() and isinstance(load_yaml(name, resolve_func=False).get("task"), str)
