"""The evaluation notebook from first cell to last, on a tiny run: both ways of scoring, and what it refuses."""

import io
import json

import papermill
import pytest

from helpers.tiny_notebooks import copy_run
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.retention import compose as retention
from lpr_lab.errors import ComparisonRefusedError, LprError, UsageError
from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.experiments.studies import evaluation
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run

NOTEBOOK = "06_eval_retention.ipynb"
SMALL = {"eval_tokens_per_language": 512, "bootstrap": 200, "precision": "fp32"}


def expansion(root):
    return next(run for run in list_runs(root) if run.kind == "expansion" and run.paths.has_checkpoint)


def run_it(root, **values):
    done = run_notebook(notebooks_dir() / NOTEBOOK, runs_dir=root, values=values, output=io.StringIO())
    return Run.open(root, done.run.id)  # afresh: the notebook's process linked its parents


@pytest.mark.notebook
def test_the_newest_expansion_is_measured_against_its_base_and_the_dashboard_shows_it(finished_runs):
    run = run_it(finished_runs, **SMALL, tasks=["choice"], task_items=4)
    subject = expansion(finished_runs)
    assert (run.kind, run.status.state, run.parents) == ("evaluation", "finished", (subject.id,))
    tables = {"retention", "change", "documents", "slices", "stages", "load", "original_weight"}
    assert tables | {"tasks", "task_items", "task_changes"} == set(run.tables.names())
    assert run.results["tasks"]["scores"][0]["chance"] == 0.25
    assert set(run.figures.read()) == {"retention", "trade_off"}
    assert len(run.paths.notebook.read_text()) < 1_000_000
    claims = {claim["name"]: claim for claim in run.results["claims"]}
    assert claims["follows_from_documents"]["holds"] and claims["repeatable"]["holds"]
    kept, now = subject.tables.read("change"), run.tables.read("change")
    kept = kept[kept["dataset"].isin(now["dataset"])]  # held-out text alone, unless more is asked for
    assert list(kept["test_set"]) == list(now["test_set"])
    assert now["after"].to_numpy() == pytest.approx(kept["after"].to_numpy(), rel=1e-4)

    shown = retention.compose(shell.page_context(finished_runs, {"run": run.id}), finished_runs)
    assert "Before: <b>base</b>" in shown["top"] and "better" in shown["table"] + shown["top"]
    staged = retention.compose(shell.page_context(finished_runs, {"run": run.id, "stage2": "G1 review"}), finished_runs)
    assert "G1 review" in str(staged["before"])


@pytest.mark.notebook
def test_kept_scores_of_two_stages_are_compared_by_plain_papermill(finished_runs, tmp_path, monkeypatch):
    monkeypatch.setenv("LPR_LAB_RUNS", str(finished_runs))
    executed = tmp_path / "out.ipynb"
    values = {"before": "G1 expand", "scores": "kept"}
    papermill.execute_notebook(str(notebooks_dir() / NOTEBOOK), str(executed), values, progress_bar=False)
    run = next(run for run in list_runs(finished_runs) if run.kind == "evaluation" and run.config["scores"] == "kept")
    assert run.status.state == "finished" and run.results["before"] == "G1 expand"
    assert list(dict.fromkeys(run.tables.read("documents")["stage"])) == ["G1 expand", "G1 review"]
    assert json.loads(executed.read_text())["cells"][-1]["outputs"]
    shown = retention.compose(shell.page_context(finished_runs, {"run": run.id}), finished_runs)
    assert "Before: <b>G1 expand</b>. After: <b>expanded</b>" in shown["top"]


def test_other_test_sets_are_refused_as_the_dashboard_refuses_them(finished_runs):
    subject = expansion(finished_runs)
    other = copy_run(subject, "other-documents")
    other.tables.write("change", subject.tables.read("change").assign(test_set="0" * 16))
    settings = evaluation.EvaluationSettings(before=other.id, after=subject.id, scores="kept")
    work = evaluation.start(settings, root=finished_runs)
    with pytest.raises(ComparisonRefusedError, match=r"different documents.*Greek"):
        evaluation.measure(work)
    assert work.run.status.state == "failed" and work.run.status.exit_code == 4


def test_what_cannot_be_compared_is_refused_before_a_run_is_made(finished_runs):
    subject, before = expansion(finished_runs), len(list_runs(finished_runs))
    for settings, message in [
        ({"before": "expanded"}, "before and after .*expanded"),
        ({"before": "G1 expnd"}, "mean 'G1 expand'"),
        ({"after": "20990101-000000Z-expansion-none-0000"}, "There is no run"),
    ]:
        with pytest.raises(LprError, match=message):
            evaluation.start(evaluation.EvaluationSettings(**settings), root=finished_runs)
    with pytest.raises(UsageError, match=r"scores = 'knew'.*mean 'new'"):
        evaluation.EvaluationSettings(scores="knew")
    assert len(list_runs(finished_runs)) == before and subject.paths.has_checkpoint


def test_two_corpora_need_one_named_to_measure_both_on(finished_runs):
    subject = expansion(finished_runs)
    other = copy_run(subject, "other-corpus", corpus="elsewhere")
    settings = evaluation.EvaluationSettings(before=other.id, after=subject.id)
    with pytest.raises(ComparisonRefusedError, match="Name a corpus"):
        evaluation.start(settings, root=finished_runs)
