"""Pictures and tables of the findings are those of the results that came with the code."""

import importlib.util
import re

import pytest

from lpr_lab.experiments.each_language.table import RESULTS as LANGUAGES
from lpr_lab.runs.environment import CHECKOUT
from lpr_lab.runs.scorecard.table import RESULTS
from lpr_lab.storage import read_json_object
from lpr_lab.views.numbers import points


@pytest.fixture(scope="module")
def hook():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CHECKOUT / "docs" / "hooks"))
        yield loaded()


def loaded():
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


def numbers_with_intervals(value):
    """Every effect of a results file, as documents write it."""
    if isinstance(value, dict):
        if {"value", "low", "high"} <= set(value) and value["low"] is not None:
            ends = [points(value[end]) for end in ("value", "low", "high")]
            yield f"{ends[0]} ({ends[1]} to {ends[2]})"
        for inner in value.values():
            yield from numbers_with_intervals(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers_with_intervals(inner)


def test_every_number_with_an_interval_is_one_of_the_committed_results(hook):
    files = [*RESULTS.glob("*.json"), *LANGUAGES.glob("*.json")]
    results = [*map(read_json_object, files), hook.side_by_side()]
    known = {number for result in results for number in numbers_with_intervals(result)}
    known |= {turned(number) for number in known}
    known |= {number.replace("+", "") for number in known if "−" not in number}  # shares and distances
    for path in hook.PAGES:
        said = re.findall(r"[−+]?\d+\.\d\d \([−+]?\d+\.\d\d to [−+]?\d+\.\d\d\)", path.read_text(encoding="utf-8"))
        assert said and set(said) <= known, f"{path.name}: {sorted(set(said) - known)}"


def turned(number):
    """Return the same difference seen from the other side."""
    value, low, high = re.findall(r"[−+]?\d+\.\d\d", number)
    value, low, high = (one.translate(str.maketrans("−+", "+−")) for one in (value, high, low))
    return f"{value} ({low} to {high})"
