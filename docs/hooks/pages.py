"""Makes the pages of the site that are not in docs/: notebooks, one page per module, and files that pages name.

They are made from what is in the repository each time the site is built, so they cannot fall behind it.
"""

import ast
from pathlib import Path

import tutorials
from links import linked_files, named_files
from mkdocs.structure.files import File, Files
from places import PAGES, ROOT, page_of

import lpr_lab

HIDDEN = "---\nsearch:\n  exclude: true\n---\n\n"


def on_files(files: Files, config) -> Files:
    """Add the pages that are made here."""
    for path in _sources():
        _add(files, config, path, _content(path))
    _add(files, config, "lpr_lab/__init__.py", _verbs(), page="reference/verbs.md")
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in PAGES if path != "README.md"}
    texts |= {f"docs/{file.src_uri}": file.content_string for file in files if file.src_uri.endswith(".md")}
    for path in sorted(set().union(*(named_files(text) | linked_files(text, path) for path, text in texts.items()))):
        page = page_of(path)
        if page is not None and page.startswith("code/"):
            _add(files, config, path, _source(path))
    files.append(File.generated(config, "assets/plotly.min.js", content=tutorials.plotly_js()))
    return files


def _sources() -> list[str]:
    """Return the files that become pages of their own."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    modules = sorted(path for path in (ROOT / "lpr_lab").rglob("*.py") if path.name != "__main__.py")
    kept = [path for path in modules if path.name != "__init__.py" or path.stat().st_size > 500]
    return [*PAGES.keys() - {"README.md"}, *(path.relative_to(ROOT).as_posix() for path in [*notebooks, *kept])]


def _content(path: str) -> str:
    if path.endswith(".ipynb"):
        return tutorials.page(ROOT / path)
    if path.endswith(".py"):
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return f"# {name.removeprefix('lpr_lab.')}\n\n::: {name}\n"
    return (ROOT / path).read_text(encoding="utf-8")


def _source(path: str) -> str:
    kind = {".py": "python", ".toml": "toml", ".yml": "yaml"}.get(Path(path).suffix, "text")
    return f"{HIDDEN}# {path}\n\n~~~~{kind}\n{(ROOT / path).read_text(encoding='utf-8')}\n~~~~\n"


def _verbs() -> str:
    rows = ["# The verbs\n", "`import lpr_lab as lab`, then `lab.<verb>`. Each is loaded on first use.\n"]
    rows += ["| verb | what it does |", "|---|---|"]
    for verb, module in lpr_lab._VERBS.items():
        target = f"../{page_of(_file_of(module))}"
        anchor = "" if verb in lpr_lab._MODULES else f"#{module}.{verb}"
        rows.append(f"| [`{verb}`]({target}{anchor}) | {_first_sentence(module, verb)} |")
    return "\n".join(rows) + "\n"


def _file_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def _first_sentence(module: str, verb: str) -> str:
    tree = ast.parse((ROOT / _file_of(module)).read_text(encoding="utf-8"))
    of_verb = [node for node in tree.body if getattr(node, "name", None) == verb]
    text = ast.get_docstring(of_verb[0] if of_verb else tree) or ""
    return text.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _add(files: Files, config, path: str, content: str, page: str | None = None) -> None:
    file = File.generated(config, page or page_of(path), content=content)
    file.origin = path  # its links lead from there
    file.edit_uri = None
    files.append(file)
