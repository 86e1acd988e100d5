"""The tree reads as the method: what is there is named where a newcomer looks, and what is named is there."""

import re
import subprocess
from pathlib import Path

import pytest

from lpr_lab.runs.scorecard.kept_runs import SUFFIX

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in names.split("\0") if name]


def tree_entries() -> set[str]:
    """Read the paths of the README's tree of folders."""
    (block,) = re.findall(r"^## Where things are\n.*?^```\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    entries: set[str] = set()
    folders: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names, phrase = re.split(r"\s{2,}", line.strip(), maxsplit=1)
        assert phrase, f"no phrase for {names}"
        for name in names.split(", "):
            entries.add("/".join([*folders[:depth], name.rstrip("/")]))
            if name.endswith("/"):
                folders[depth:] = [name.rstrip("/")]
    return entries


def test_the_readme_tree_names_every_top_level_path(tracked):
    missing = {path.parts[0] for path in tracked} - tree_entries() - {"README.md"}
    assert not missing, f"not in the README's tree: {sorted(missing)}"


def test_the_readme_tree_names_the_folders_of_the_package(tracked):
    folders = {path.parent for path in tracked if path.parts[0] == "lpr_lab" and path.suffix == ".py"}
    of_one_page = {folder for folder in folders if "pages" in folder.parts[:-1]}
    missing = {folder.as_posix() for folder in folders - of_one_page} - tree_entries()
    assert not missing, f"not in the README's tree: {sorted(missing)}"


def test_the_readme_tree_names_nothing_that_is_not_there():
    gone = [path for path in tree_entries() if not (ROOT / path).exists()]
    assert not gone, f"in the README's tree, but not here: {gone}"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_the_docs_name_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:lpr_lab|notebooks|tests|docs)/[\w./-]+)`", text)
    gone = [name for name in named if not (ROOT / name).exists()]
    links = [link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if not (page.parent / link).exists()]
    assert not gone + links, f"{page.name} names what is not there: {gone + links}"


def test_no_tracked_file_is_large(tracked):
    def limit(path):  # seven hundred runs behind a scorecard are the one thing that may take more
        return 2_000_000 if path.name.endswith(SUFFIX) else 1_000_000

    large = [path for path in tracked if (ROOT / path).is_file() and (ROOT / path).stat().st_size > limit(path)]
    assert not large, f"over 1 MB: {large}"


def test_every_folder_of_the_package_has_its_folder_of_tests(tracked):
    folders = {path.parts[1] for path in tracked if path.parts[0] == "lpr_lab" and len(path.parts) > 2}
    tested = {path.parts[1] for path in tracked if path.parts[0] == "tests" and len(path.parts) > 2}
    assert folders <= tested, f"no tests for {sorted(folders - tested)}"
