"""How large the code is and how it is divided, of this checkout or of another one: run it before and after a change.

    python tests/benchmarks/structure.py [CHECKOUT]     (or `make structure`)

Lines are all lines of a file. A function's length is without its docstring; a class's members are its public methods
and fields; public names are functions and classes at the top of a module; a circle is a set of modules that import one
another, lazily or not, imports for type checkers aside. A block is repeated where six lines in a row stand in two
places; blank lines, imports and lone brackets do not count.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

BLOCK = 6
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules_of(checkout: Path) -> dict[str, tuple[Path, ast.Module]]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted((checkout / "lpr_lab").rglob("*.py")):
        name = ".".join(path.relative_to(checkout).with_suffix("").parts).removesuffix(".__init__")
        found[name] = path, ast.parse(path.read_text(encoding="utf-8"))
    return found


def code_lines(function: Function) -> int:
    """Count the lines of a function without those of its docstring."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def members(of: ast.ClassDef) -> int:
    """Count the public methods and fields of a class."""
    named = [node.name for node in of.body if isinstance(node, Function)]
    named += [
        node.target.id for node in of.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    return sum(not name.startswith("_") for name in named)


def imports_of(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """Yield the modules of the package that a module imports."""
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of modules that reach one another, by depth-first search from each."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        seen, waiting = set(), list(edges[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += edges.get(module, ())
        reached[start] = seen
    found = {frozenset(other for other in reached[start] if start in reached.get(other, ())) for start in edges}
    return sorted(sorted(circle) for circle in found if len(circle) > 1)


def repeated_blocks(paths: list[Path]) -> int:
    """Count the places where a run of six lines or more stands that stands elsewhere too."""
    places: dict[tuple[str, ...], list[tuple[Path, int]]] = defaultdict(list)
    for path in paths:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [line for line in lines if any(c.isalnum() for c in line) and not line.startswith(("import ", "from "))]
        for at in range(len(lines) - BLOCK + 1):
            places[tuple(lines[at : at + BLOCK])].append((path, at))
    starts = {place for found in places.values() if len(found) > 1 for place in found}
    return sum((path, at - 1) not in starts for path, at in starts)


def main(checkout: Path) -> None:
    """Print the table."""
    modules = modules_of(checkout)
    lines = {name: path.read_text(encoding="utf-8").count("\n") for name, (path, _) in modules.items()}
    folders: dict[str, int] = defaultdict(int)
    functions, classes, public = [], [], 0
    for name, (path, tree) in modules.items():
        if path.name != "__init__.py":
            folders[path.parent.relative_to(checkout).as_posix()] += 1
        public += sum(isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") for node in tree.body)
        for node in ast.walk(tree):
            if isinstance(node, Function):
                functions.append((code_lines(node), f"{name}.{node.name}"))
            elif isinstance(node, ast.ClassDef):
                classes.append((members(node), f"{name}.{node.name}"))
    edges = {name: {*imports_of(tree, set(modules))} & set(modules) for name, (_, tree) in modules.items()}
    largest = max((count, folder) for folder, count in folders.items())
    longest = max((count, name) for name, count in lines.items())
    rows = [
        ("modules", len(modules), ""),
        ("lines", sum(lines.values()), ""),
        ("most modules in a folder", *largest),
        ("longest module", *longest),
        ("modules over 350 lines", sum(count > 350 for count in lines.values()), ""),
        ("longest function", *max(functions)),
        ("functions over 60 lines", sum(length > 60 for length, _ in functions), ""),
        ("largest class", *max(classes)),
        ("classes over 20 members", sum(count > 20 for count, _ in classes), ""),
        ("public functions and classes", public, ""),
        ("import circles", len(circles(edges)), "; ".join(" <-> ".join(circle) for circle in circles(edges))),
        ("repeated blocks", repeated_blocks([path for path, _ in modules.values()]), "places"),
    ]
    for name, value, where in rows:
        print(f"{name:30} {value:>7,}  {where}".rstrip())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2])
