"""Parts of a run's page."""

import re

import pytest

from lpr_lab.runs.find import start_run
from lpr_lab.text.load import load_corpus
from lpr_lab.views.html.run_overview import render_texts


@pytest.fixture
def run(tmp_path):
    return start_run({}, kind="text", slug="x", title="x", root=tmp_path / "runs")


def test_what_was_found_and_not_read_stands_below_the_texts(run, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "el.txt").write_text("\n\n".join(f"Κείμενο {'α' * i} που γράφτηκε εδώ." for i in range(1, 30)))
    (folder / "<b>.docx").touch()
    with pytest.warns(UserWarning, match="not read"):
        run.documents.write("data", load_corpus(folder).manifest)
    shown = render_texts(run)
    assert re.search(r"&lt;b&gt;\.docx: .*not read", shown) and "(1)" in shown


def test_runs_of_before_it_was_recorded_are_shown_as_they_were(run):
    run.documents.write("data", {"texts": {"el": {"train": {"n_documents": 3, "characters": 70, "sha256": "ab" * 32}}}})
    assert "Greek" in render_texts(run) and "not read" not in render_texts(run)
