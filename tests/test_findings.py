"""Pictures and tables of the findings are those of the results that came with the code."""

import importlib.util

import pytest

from lpr_lab.runs.environment import CHECKOUT


@pytest.fixture(scope="module")
def hook():
    path = CHECKOUT / "docs" / "hooks" / "finding_figures.py"
    spec = importlib.util.spec_from_file_location("finding_figures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_are_of_the_committed_results(hook):
    kept = {path.stem: path.read_text(encoding="utf-8") for path in hook.FOLDER.glob("*.svg")}
    assert kept == hook.pictures(), "run: python docs/hooks/finding_figures.py"


@pytest.mark.parametrize("name", ["findings.md", "allocation.md"])
def test_tables_are_of_the_committed_results(hook, name):
    text = (hook.DOCS / name).read_text(encoding="utf-8")
    assert text == hook.page(text), "run: python docs/hooks/finding_figures.py"


def test_every_picture_is_shown_with_words_for_those_who_do_not_see_it(hook):
    text = "".join(path.read_text(encoding="utf-8") for path in hook.PAGES)
    for name in hook.pictures():
        assert f"](assets/findings/{name}.svg)" in text, name
        before = text.split(f"](assets/findings/{name}.svg)")[0]
        assert len(before.rpartition("![")[2]) > 10, name
