"""Maps files of the repository to pages of the site."""

from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "notebooks/README.md": "tutorials/index.md",
    "runs/README.md": "reference/run-directory.md",
}
"""Pages that lie outside docs/, by path from the root; they keep their place, so they read well without the site."""


def page_of(path: str) -> str | None:
    """Return the site's page for a file of the repository (both from their roots), or None where there is no such file.

    >>> page_of("lpr_lab/model/router.py"), page_of("docs/concepts.md"), page_of("notebooks/00_quickstart.ipynb")
    ('api/model/router.md', 'concepts.md', 'tutorials/00_quickstart.md')
    """
    if path in PAGES:
        return PAGES[path]
    if not (ROOT / path).is_file():
        return None
    name = PurePosixPath(path)
    if name.parts[0] == "docs":
        return str(name.relative_to("docs"))
    if name.parts[0] == "notebooks" and name.suffix == ".ipynb":
        return f"tutorials/{name.stem}.md"
    if name.parts[0] == "lpr_lab" and name.suffix == ".py":
        inside = name.relative_to("lpr_lab")
        return f"api/{inside.parent / 'index' if inside.stem == '__init__' else inside.with_suffix('')}.md"
    return f"code/{path}.md"


def file_named(name: str) -> str | None:
    """Return the path of a file that a text names: from the root, or below lpr_lab/ or tests/ as in the paper map."""
    for folder in ("", "lpr_lab/", "tests/"):
        if (ROOT / folder / name).is_file():
            return folder + name
    return None
