"""The report as a notebook: from plain papermill with nothing but the example, and from our own command with runs."""

import io
from pathlib import Path

import papermill
import pytest

from helpers.sample_runs import make_run
from lpr_lab.errors import LprError, MissingError
from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.experiments.studies import report as report_run
from lpr_lab.runs.environment import CHECKOUT
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run
from lpr_lab.storage import read_json, write_json
from lpr_lab.views.report.page import write_report

NOTEBOOK = notebooks_dir() / "10_report.ipynb"


@pytest.mark.notebook
def test_plain_papermill_with_no_run_reports_on_the_example(tmp_path, monkeypatch):
    monkeypatch.setenv("LPR_LAB_RUNS", str(tmp_path / "runs"))
    papermill.execute_notebook(str(NOTEBOOK), str(tmp_path / "out.ipynb"), progress_bar=False)
    (run,) = list_runs(tmp_path / "runs")
    assert run.status.state == "finished" and run.kind == "report"
    text = (run.path / "report.html").read_text()
    assert "smollm2-135m-el-hu-tr" in text and len(text.encode()) < 8_000_000
    assert len((tmp_path / "out.ipynb").read_text()) < 1_000_000


@pytest.mark.notebook
def test_runs_that_were_named_are_in_it_and_are_its_parents(tmp_path):
    first, second = make_run(tmp_path), make_run(tmp_path, title="Another")
    values = {"runs": [first.id, second.id], "title": "Δύο", "lang": "el"}
    done = run_notebook(NOTEBOOK, runs_dir=tmp_path, values=values, output=io.StringIO())
    run = Run.open(tmp_path, done.run.id)
    assert run.parents == (first.id, second.id) and run.title == "What came of these runs, in one file to send?"
    text = (run.path / "report.html").read_text()
    assert '<h1 lang="el" dir="ltr">Δύο</h1>' in text and second.id in text
    assert all(claim["holds"] for claim in run.results["claims"])


def test_without_a_name_it_is_the_newest_scored_run_with_its_line_and_the_example_only_where_there_is_none(tmp_path):
    example = CHECKOUT / "runs" / "examples"
    assert [run.path.parent for run in report_run.choose([], tmp_path)] == [example]
    parent = make_run(tmp_path)
    child = make_run(tmp_path, parents=[parent.id])
    facts = read_json(child.path / "run.json")
    write_json(child.path / "run.json", facts | {"created": "2999-01-01T00:00:00Z"})
    make_run(tmp_path, finished=False)
    Run.create(tmp_path, kind="plan", slug="x", title="x", config={}).finish({"schema_version": 1})
    assert [run.id for run in report_run.choose([], tmp_path)] == [parent.id, child.id]
    with pytest.raises(MissingError):
        report_run.choose(["20260101-000000Z-none-0000"], tmp_path)


def test_a_report_is_checked_before_it_is_started_and_again_when_it_is_finished(tmp_path):
    subject = make_run(tmp_path)
    with pytest.raises(LprError):
        report_run.start([subject.id], "x", "klingon", root=tmp_path)
    assert len(list_runs(tmp_path)) == 1
    work = report_run.start([subject.id], root=tmp_path)
    assert report_run.write(work, write_report) == work.path.stat().st_size
    work.path.write_text(work.path.read_text() + '<img src="https://example.org/x.png">')
    claims = {claim["name"]: claim["holds"] for claim in report_run.finish(work)["claims"]}
    assert claims == {"is_small": True, "stands_alone": False, "tells_of_all": True}
    assert Path(work.path).is_file() and report_run.finish(work)["claims"]
