"""Dependencies are declared once; the other ways to install must lead to the same set."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_TEXT = (ROOT / "environment.yml").read_text(encoding="utf-8")
CONDA = yaml.safe_load(CONDA_TEXT)


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~ \[;]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all statements inside, without walking through expressions: no import is in one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield child
            yield from _statements(child)


def test_conda_installs_the_project_itself_and_declares_no_package_twice():
    from_conda = [entry for entry in CONDA["dependencies"] if isinstance(entry, str)]
    (from_pip,) = (entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict))
    assert len(from_pip) == 1
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", from_pip[0])
    assert extras, from_pip
    assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
    declared = {_name(entry) for entry in PROJECT["dependencies"]}
    assert not declared & {_name(entry) for entry in from_conda}


def test_conda_asks_for_the_same_python():
    assert f"python{PROJECT['requires-python']}" in CONDA["dependencies"]


def test_the_conda_file_stays_short():
    lines = [line for line in CONDA_TEXT.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 15


def test_torch_is_a_plain_pin_so_that_gpu_users_get_their_build():
    (torch,) = (entry for entry in PROJECT["dependencies"] if _name(entry) == "torch")
    assert torch == "torch==2.13.0"


def test_no_package_is_declared_in_two_places():
    names = [_name(entry) for entry in PROJECT["dependencies"]]
    names += [_name(entry) for extra in PROJECT["optional-dependencies"].values() for entry in extra]
    names = [name for name in names if name != "lpr-lab"]  # an extra may take in another one
    assert sorted(names) == sorted(set(names))


def test_every_package_that_the_code_imports_is_declared():
    sources = [*ROOT.glob("*.py"), *(ROOT / "lpr_lab").rglob("*.py")]
    imported: set[str] = set()
    for node in (node for path in sources for node in _statements(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "lpr_lab"}
    provided_by = packages_distributions()
    extras = PROJECT["optional-dependencies"]
    optional = {_name(entry) for extra in extras.keys() - {"dev"} for entry in extras[extra]}
    declared = {_name(entry) for entry in PROJECT["dependencies"]} | optional
    undeclared = {name for name in imported if not {_name(d) for d in provided_by.get(name, [name])} & declared}
    assert not undeclared, f"imported, but not among the dependencies of pyproject.toml: {sorted(undeclared)}"
