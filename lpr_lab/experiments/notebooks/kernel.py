"""The kernel that a notebook runs in: this interpreter, interrupted gently, never left behind.

Importing this module imports papermill and Jupyter's client; `run` does so when it is about to execute.
"""

import logging
import os
import signal
import sys
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from lpr_lab.errors import LprError
from lpr_lab.experiments.notebooks.quick_import import without_iri_grammar
from lpr_lab.runs.status import signals_handled

with without_iri_grammar():
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from nbclient.exceptions import DeadKernelError
    from papermill import execute_notebook
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError
    from papermill.log import logger

__all__ = ["ENGINE", "DeadKernelError", "PapermillExecutionError", "execute_notebook", "graceful_signals"]

ENGINE = "lpr_lab"


class _ThisInterpreter(KernelSpecManager):
    """Returns this interpreter for every kernel name: an installed `python3` kernel may be another one."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(resource_dir="", **get_kernel_dict())


class _Client(PapermillNotebookClient):
    """Runs the cells; `interrupt` stops the one that is running and all that would follow."""

    running: ClassVar["_Client | None"] = None
    interrupted = False
    _start_options: dict[str, Any]  # those of the kernel that was started last

    def create_kernel_manager(self) -> Any:
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = _ThisInterpreter()
        return manager

    def start_new_kernel(self, **options: Any) -> None:
        self._start_options = options
        super().start_new_kernel(**options)

    def start_new_kernel_client(self) -> Any:
        """Connect to the kernel, and start it once more when it doesn't answer: no cell has run yet.

        Jupyter chooses ports by binding and releasing them, so another process may take one before the kernel does.
        """
        try:
            return super().start_new_kernel_client()
        except RuntimeError:
            self.km = self.create_kernel_manager()
            self.start_new_kernel(**self._start_options)
        try:
            return super().start_new_kernel_client()
        except RuntimeError as error:
            raise LprError(
                f"The notebook's Python process was started twice and did not answer within {self.startup_timeout} "
                f"seconds ({error}). Is the machine out of memory or very busy? Run the same command again."
            ) from error

    def execute(self, **kwargs: Any) -> Any:
        _Client.running = self
        try:
            return super().execute(**kwargs)
        finally:
            _Client.running = None

    def execute_cell(self, cell: Any, cell_index: int, **kwargs: Any) -> Any:
        if self.interrupted:
            raise KeyboardInterrupt
        return super().execute_cell(cell, cell_index, **kwargs)

    def interrupt(self) -> bool:
        """Send the kernel what Ctrl-C sends; False when there is no kernel yet or it was interrupted before."""
        pid = getattr(self.km and self.km.provisioner, "pid", None)
        if self.interrupted or pid is None:
            return False
        self.interrupted = True
        os.kill(pid, signal.SIGINT)
        return True


class _Engine(NBClientEngine):
    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        start_timeout: int = 60,
        kernel_cwd: str | None = None,
        kernel_env: dict[str, str] | None = None,
        **options: Any,
    ) -> Any:
        client = _Client(
            nb_man,
            timeout=None,
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log=logger,
            stdout_file=options["stdout_file"],
            stderr_file=options["stderr_file"],
            coalesce_streams=True,  # else a progress bar becomes an output per update
            extra_arguments=["--log-level=40"],  # the kernel's own start-up remarks are not for the person
        )
        return client.execute(cwd=kernel_cwd, env=kernel_env)


papermill_engines.register(ENGINE, _Engine)
logger.setLevel(logging.ERROR)  # it warns of parameters that it cannot parse (`x: float | None`); ours are checked


def graceful_signals() -> AbstractContextManager[None]:
    """Pass the first Ctrl-C or SIGTERM on to the kernel, so that its cell can clean up; the second one ends at once."""

    def handle(number: int, frame: Any) -> None:
        if _Client.running is None or not _Client.running.interrupt():
            raise KeyboardInterrupt
        print("\nStopping after what it is doing right now; Ctrl-C again stops at once.", file=sys.stderr, flush=True)

    return signals_handled(handle, signal.SIGINT, signal.SIGTERM)
