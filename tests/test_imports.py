"""The dashboard and everything it reads with import without torch, and so does the package itself."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lpr_lab"
HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "gguf")
TORCH_FREE = (
    "lpr_lab",
    "lpr_lab.cli",
    "lpr_lab.dashboard",
    "lpr_lab.errors",
    "lpr_lab.runs.run",
    "lpr_lab.measure.trace",
    "lpr_lab.method.allocation",
    "lpr_lab.method.scores.table",
    "lpr_lab.method.similarity_table",
    "lpr_lab.progress",
    "lpr_lab.storage",
    "lpr_lab.text.corpus",
    "lpr_lab.text.graphemes",
    "lpr_lab.text.languages",
    "lpr_lab.text.demo.readers",
    "lpr_lab.text.splits",
    "lpr_lab.views",
)


def _below(name: str) -> list[str]:
    """Name a module and, for a package whose whole inside is torch-free, everything in it."""
    folder = PACKAGE.joinpath(*name.split(".")[1:])
    if name in ("lpr_lab.dashboard", "lpr_lab.views"):
        return [name, *(f"{name}.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__")]
    return [name]


def heavy_modules_after(code: str) -> list[str]:
    """Run code in a fresh interpreter and return which heavy packages it pulled in."""
    check = f"\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_torch_free_part_imports_no_model_library():
    names = [name for group in TORCH_FREE for name in _below(group)]
    first = "from lpr_lab.dashboard.server.quick_gradio import skip_type_stubs; skip_type_stubs()\n"  # for quickness
    assert heavy_modules_after(first + "\n".join(f"import {name}" for name in names)) == []


def test_the_guard_sees_what_is_heavy_when_it_is_there():
    assert heavy_modules_after("import gguf") == ["gguf"]  # the one that imports soonest


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCH_FREE)
def test_each_torch_free_module_imports_on_its_own(name):
    assert heavy_modules_after(f"import {name}") == []
