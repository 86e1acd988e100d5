"""`lpr-lab report`."""

import json

from helpers.cli_calls import call
from helpers.sample_runs import make_run


def test_a_run_becomes_one_file(runs, tmp_path):
    run = make_run(runs)
    out = tmp_path / "there" / "report.html"
    done = call("report", run.id, "-o", str(out), "--title", "Δοκιμή", "--lang", "el", "--json")
    assert done.exit_code == 0, done.stderr
    files = [{"path": str(out), "bytes": out.stat().st_size}]
    assert json.loads(done.stdout) == {"runs": [run.id], "files": files}
    assert '<h1 lang="el" dir="ltr">Δοκιμή</h1>' in out.read_text()


def test_without_a_run_the_newest_is_taken_and_without_any_it_says_so(runs, tmp_path):
    assert call("report", "-o", str(tmp_path / "x.html")).exit_code == 3
    run = make_run(runs)
    assert call("report", "-o", str(tmp_path / "x.html")).exit_code == 0
    assert run.id in (tmp_path / "x.html").read_text()
    assert call("report", "20260101-000000Z-none-0000").exit_code == 3


def test_tables_are_written_for_papers_and_spreadsheets(runs, tmp_path):
    run = make_run(runs)
    done = call("report", run.id, "--tables", str(tmp_path / "t"))
    names = {"results-heldout.tex", "results-dev.tex", "routing.tex", "settings.tex"}
    assert {path.name for path in (tmp_path / "t").iterdir()} == names and "settings.tex" in done.stdout
    assert call("report", run.id, "--tables", str(tmp_path / "t"), "--format", "csv").exit_code == 0
    assert (tmp_path / "t" / "routing.csv").is_file()
    assert call("report", run.id, "--tables", str(tmp_path / "t"), "--format", "cvs").exit_code == 2


def test_the_name_of_before_still_works_for_a_version_and_names_the_new_one(runs, tmp_path):
    run = make_run(runs)
    done = call("export", run.id, "-o", str(tmp_path / "x.html"), "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["runs"] == [run.id]
    assert "lpr-lab report" in done.stderr and (tmp_path / "x.html").is_file()
    assert "export" not in call("--help").stdout
