"""Import gradio without its type stubs.

While gradio is imported it writes a `.pyi` file beside each of its components anew, for editors; nothing at run time
reads them, and a read-only installation has no place for them. Without, the import takes 3.1 instead of 5.1 seconds of
processor time, which is what somebody waits for who starts the dashboard.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_MODULE = "gradio.component_meta"
_WRITER = "create_or_modify_pyi"


def skip_type_stubs() -> None:
    """Let the first import of gradio in this process write no stubs; without effect once it is there."""
    if _MODULE not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds one module, once, as Python itself would, and takes one function out of it before anything uses it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_without_writer(module: ModuleType) -> None:
            execute(module)
            if hasattr(module, _WRITER):  # another gradio may have none; then it is as it was
                setattr(module, _WRITER, _write_nothing)

        spec.loader.exec_module = execute_without_writer
        return spec


def _write_nothing(*_: Any) -> None:
    pass
