"""Runs a notebook with papermill: checked parameters, this interpreter, one run directory, live output.

    lpr-lab run 00_quickstart -p recipe=moe_lpr

finds or makes the run directory first, hands it to the notebook as its parameter `run_dir`, shows what the cells print
while they run, and leaves the executed copy in the run directory as `notebook.ipynb`, also when a cell failed. Plain
`papermill in.ipynb out.ipynb` and Jupyter run the same notebooks; then the notebook makes its own run directory.
"""

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lpr_lab import errors
from lpr_lab.errors import BusyError, LprError, MissingError, UsageError, did_you_mean
from lpr_lab.experiments.notebooks.executed import executed_code, keep_copy
from lpr_lab.experiments.notebooks.parameters import NotebookFile, read_notebook, resolve
from lpr_lab.experiments.notebooks.together import follow, release
from lpr_lab.experiments.processes.number import LED, follows, leads
from lpr_lab.runs import environment
from lpr_lab.runs.files import PRINTED_TO
from lpr_lab.runs.find import discard, list_runs
from lpr_lab.runs.run import Run
from lpr_lab.runs.status import claimed
from lpr_lab.yaml_files import as_json

RUN_DIR = "run_dir"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours in tracebacks
START_TIMEOUT_SECONDS = 60  # of each of two attempts
_LIVE_GRACE_SECONDS = 5.0  # a kernel whose parent was killed notices within about a second


@dataclass(frozen=True, kw_only=True)
class NotebookRun:
    """The result of `run_notebook`.

    Attributes:
        run: the run directory.
        parameters: every parameter and its value, `run_dir` left out.
        how: `new`, `resumed`, `reused` (it was finished before and nothing was executed), or `followed` (this is one of
            several processes that were started together, and the first executed it).
    """

    run: Run
    parameters: dict[str, Any]
    how: str


def notebooks_dir() -> Path:
    """Return the folder of this project's notebooks.

    Raises:
        MissingError: they are neither in the package nor beside it.
    """
    folder = environment.folder_of("notebooks")
    if not folder.is_dir():
        raise MissingError(
            f"The notebooks are not there ({folder} is missing): they come with the package and with the checkout. "
            "Install one of them anew: `pip install --force-reinstall --no-deps lpr_lab`, or `pip install -e .`."
        )
    return folder


def find_notebook(name: Path | str) -> Path:
    """Return the path of a notebook: a path that exists, else a bundled one by name, such as `00_quickstart`."""
    path = Path(name)
    if not path.exists() and len(path.parts) == 1:
        return notebooks_dir() / f"{path.name.removesuffix('.ipynb')}.ipynb"
    return path


def find_parameters(name: Path | str) -> Path:
    """Return the path of a file of parameters: a path that exists, else a bundled one, such as `00_quickstart.gpu`.

    Raises:
        MissingError: neither is there.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = {file.stem: file for file in sorted((notebooks_dir() / "params").glob("*.yaml"))}
    if (stem := str(path).removesuffix(".yaml")) in known:
        return known[stem]
    raise MissingError(
        f"There is no file of parameters {path}; expected a YAML or JSON file, or one of {', '.join(known)}."
        f"{did_you_mean(stem, known)}"
    )


def run_notebook(
    path: Path | str,
    *,
    runs_dir: Path | str,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
    parents: Sequence[str] = (),
    new: bool = False,
    output: TextIO | None = None,
) -> NotebookRun:
    """Run a notebook in a run directory; a finished run with the same parameters is reused, an unfinished one resumed.

    Args:
        path: the notebook.
        runs_dir: the folder of runs.
        values: values by name (`parameters.resolve` reads those that a person typed, and files); the others are the
            notebook's defaults.
        name: words for the folder's name; the expanded languages or the notebook's name when not given.
        parents: ids of the runs that a new run belongs to.
        new: make a new run whatever there is.
        output: where to show what the cells print; stderr when not given.

    Raises:
        UsageError: wrong parameters.
        BusyError: another process works on a run with these parameters.
        LprError: a cell failed; an error of ours keeps its kind and its exit code.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; the run is marked interrupted.
    """
    notebook = read_notebook(path)
    if RUN_DIR not in notebook.parameters:
        raise UsageError(f'{path} has no parameter `{RUN_DIR} = ""`, so it cannot be told where its run directory is.')
    parameters = resolve(notebook.parameters, values=values)
    if parameters.pop(RUN_DIR):
        raise UsageError(f"`{RUN_DIR}` is set by this command. Use --runs-dir to say where runs are kept.")
    if follows():
        return NotebookRun(run=Run(follow()), parameters=parameters, how="followed")
    done = _run_alone(notebook, parameters, Path(runs_dir).resolve(), name, parents, new, output)
    if leads():
        release(done.run.path)
    return done


def _run_alone(
    notebook: NotebookFile,
    parameters: dict[str, Any],
    root: Path,
    name: str | None,
    parents: Sequence[str],
    new: bool,
    output: TextIO | None,
) -> NotebookRun:
    given = settings_given(notebook, parameters)
    kind = kind_of(notebook)
    run, how = (None, "new") if new else run_before(list_runs(root), notebook, parameters, kind)
    if run is None:
        slug = name or " ".join(str(code) for code in parameters.get("expanded") or ())
        title = name or notebook.title
        run = Run.create(root, kind=kind, slug=slug, title=title, config_input=given, parents=parents)
    if how == "reused":
        return NotebookRun(run=run, parameters=parameters, how=how)
    with claimed(run.path):
        if run.status.recorded_state == "finished":  # by another process, since we looked
            return NotebookRun(run=run, parameters=parameters, how="reused")
        try:
            _execute(notebook, parameters, run, output or sys.stderr, how)
        except (UsageError, MissingError) as error:
            if how == "new" and not run.status.done_phases and not isinstance(error, BusyError):
                discard(run)  # a wrong or missing thing that only the code behind the notebook could notice
            raise
    # The notebook wrote settings and parents that this process has not read.
    return NotebookRun(run=Run(run.path), parameters=parameters, how=how)


def kind_of(notebook: NotebookFile) -> str:
    """Return the kind of a notebook's runs: what its metadata say (`lpr_lab.kind`), else its name without number."""
    return notebook.kind or _stem(notebook)


def _stem(notebook: NotebookFile) -> str:
    return notebook.path.stem.lstrip("0123456789_-") or notebook.path.stem


def settings_given(notebook: NotebookFile, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input settings that a run of this notebook records, by which it is found again."""
    return as_json({"notebook": _stem(notebook), "parameters": {**parameters}})


def _given_then(notebook: NotebookFile, run: Run) -> dict[str, Any]:
    """Return the input settings that a run recorded; new parameters of the notebook at their default."""
    recorded = run.documents.config_input
    if not isinstance(recorded.get("parameters"), dict):
        return recorded
    defaults = {name: parameter.default for name, parameter in notebook.parameters.items() if name != RUN_DIR}
    return as_json({**recorded, "parameters": {**defaults, **recorded["parameters"]}})


def run_before(
    runs: Sequence[Run], notebook: NotebookFile, parameters: Mapping[str, Any], kind: str
) -> tuple[Run | None, str]:
    """Return the newest run of this notebook with these parameters, and whether it is to be reused or resumed.

    A finished run counts only if the notebook's code is still the same; an unfinished one is resumed also after the
    notebook was mended, which is the usual reason to start it again.

    Args:
        runs: those there are, newest first.
        notebook: as it lies on disk.
        parameters: every parameter and its value, `run_dir` left out.
        kind: of the runs that count.

    Raises:
        BusyError: another process works on it.
    """
    given = settings_given(notebook, parameters)
    for run in runs:
        try:
            same = not run.problem and not run.is_example and run.kind == kind and _given_then(notebook, run) == given
        except LprError:
            continue
        if not same:
            continue
        deadline = time.monotonic() + _LIVE_GRACE_SECONDS
        while run.status.is_live and time.monotonic() < deadline:
            time.sleep(0.2)
        state = run.status.state
        if state == "running":
            raise BusyError(
                f"Run {run.id} with the same parameters is being worked on by process {run.status.pid}. "
                "Wait for it, stop it, or use --new."
            )
        if state != "finished":
            return run, "resumed"
        if executed_code(run) == notebook.code:
            return run, "reused"
        return None, "new"
    return None, "new"


class _Tee:
    """Writes what the cells print both to the terminal and to the run's log."""

    def __init__(self, terminal: TextIO, log: TextIO):
        self._targets = (terminal, log)

    def write(self, text: str) -> None:
        for target in self._targets:
            target.write(text)

    def flush(self) -> None:
        for target in self._targets:
            target.flush()


def _execute(notebook: NotebookFile, parameters: Mapping[str, Any], run: Run, terminal: TextIO, how: str) -> None:
    doing = "Going on with" if how == "resumed" else "Running"
    terminal.write(f"{doing} {notebook.path.name} in {run.path}\n")
    terminal.flush()
    from lpr_lab.experiments.notebooks import kernel as notebook_kernel  # and papermill with it, which takes a second

    partial = run.path / ".notebook.partial.ipynb"
    run.paths.log.parent.mkdir(exist_ok=True)
    try:
        with run.paths.log.open("a", encoding="utf-8") as log, notebook_kernel.graceful_signals():
            tee = _Tee(terminal, log)
            notebook_kernel.execute_notebook(
                _as_literal(notebook.path),  # resolved to an existing file, so never taken for an address
                _as_literal(partial),
                {**parameters, RUN_DIR: str(run.path)},
                engine_name=notebook_kernel.ENGINE,
                kernel_name="python3",
                language="python",
                progress_bar=False,  # the cells show their own progress
                stdout_file=tee,
                stderr_file=tee,
                start_timeout=START_TIMEOUT_SECONDS,
                kernel_cwd=str(Path.cwd()),  # a path that was typed as a parameter means what it means in the shell
                kernel_env=_kernel_environment(run),
            )
    except KeyboardInterrupt:
        _settle(run, "interrupted")
        raise
    except notebook_kernel.PapermillExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            _settle(run, "interrupted")
            raise KeyboardInterrupt from error
        failure = _failure_of(error, notebook, run)
        if not isinstance(failure, BusyError):  # what the run is like is for the process that works on it to say
            _settle(run, "failed", failure, _ANSI.sub("", "\n".join(error.traceback))[-4000:])
        raise failure from None
    except notebook_kernel.DeadKernelError as error:
        failure = LprError(
            f"The notebook's Python process died without a word (out of memory?) in run {run.id}. "
            "Run the same command again: it resumes."
        )
        _settle(run, "failed", failure)
        raise failure from error
    except Exception as error:
        _settle(run, "failed", error)
        raise
    finally:
        keep_copy(partial, run.paths.notebook)
    if run.status.recorded_state != "finished":  # a notebook need not say so itself
        run.stop("finished")


def _failure_of(error: Any, notebook: NotebookFile, run: Run) -> LprError:
    """Return what a cell raised: one of `lpr_lab.errors` as it is, any other as a sentence that says where to look."""
    ours = getattr(errors, error.ename, None)
    if isinstance(ours, type) and issubclass(ours, LprError):
        return ours(error.evalue)
    return LprError(
        f"Cell {error.exec_count} of {notebook.path.name} failed with {error.ename}: "
        f"{error.evalue.rstrip('.')}. The copy with the traceback is {run.paths.notebook}."
    )


def _as_literal(path: Path) -> str:
    """Papermill fills braces in paths like a format string; doubled they stand for themselves."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _kernel_environment(run: Run) -> dict[str, str]:
    # Progress bars here are text; tqdm would complain that it finds no widgets.
    warnings = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found"]))
    ours = {"LPR_LAB_RUNS": str(run.path.parent), PRINTED_TO: str(run.paths.log)} | ({LED: "1"} if leads() else {})
    return {**os.environ, "PYTHONPATH": environment.python_path(), "PYTHONWARNINGS": warnings, **ours}


def _settle(run: Run, state: str, error: BaseException | None = None, tail: str | None = None) -> None:
    """Record how the run ended, unless the notebook has recorded it in more detail."""
    if run.status.recorded_state == state:
        return
    run.stop(state, error=error, error_tail=tail)
