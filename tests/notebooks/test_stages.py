"""The notebooks of the method's stages from first cell to last, on a tiny random model and a few sentences."""

import io
import subprocess
import sys

import papermill
import pytest

from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.runs import environment
from lpr_lab.runs.find import list_runs
from lpr_lab.runs.run import Run

pytestmark = pytest.mark.notebook


@pytest.fixture
def texts(tiny_materials):
    return {**tiny_materials(("en", "el")), "original": ["en"], "expanded": ["el"]}


def execute(name: str, folder, values) -> Run:
    done = run_notebook(notebooks_dir() / f"{name}.ipynb", runs_dir=folder, values=values, output=io.StringIO())
    assert done.run.status.state == "finished"
    assert len(done.run.paths.notebook.read_text()) < 1_000_000
    assert all(claim["holds"] for claim in done.run.results["claims"] if claim["is_exact"])
    return done.run


def test_the_data_notebook_says_what_text_there_is_and_what_tokens_become_of_it(tmp_path, texts):
    run = execute("01_data_and_tokenizer", tmp_path / "runs", texts)
    assert run.kind == "text" and set(run.figures.read()) == {"fertility", "script_mix"}
    assert {"texts", "leakage", "fertility", "script_mix"} == set(run.tables.names())
    assert len(run.documents.read("data")["texts"]["el"]["heldout"]["sha256"]) == 64
    fertility = run.tables.read("fertility").set_index(["split", "language"])
    assert fertility.loc[("train", "el"), "num_tokens"] > 0
    mix = run.tables.read("script_mix").set_index(["split", "language", "script"])["share"]
    assert mix["train", "el", "Greek"] > 0.9 < mix["train", "en", "Latin"]


def test_stage_after_stage_each_goes_on_from_the_newest_before_it(tmp_path, texts):
    runs, small = tmp_path / "runs", {"eval_tokens_per_language": 512, "precision": "fp32"}
    first = execute("03_upcycle", runs, {"base": texts["base"]})
    assert first.kind == "upcycle" and set(first.figures.read()) == {"starts"}
    assert first.paths.has_checkpoint and len(first.documents.read("equivalence")["starts"]) == 5
    second = execute("04_stage1_post_pretrain", runs, texts | small | {"stage1_tokens": 2048})
    assert second.kind == "stage1" and second.parents == (first.id,) and second.paths.has_checkpoint
    assert set(second.figures.read()) == {"training", "retention", "layers"}
    assert set(second.metrics.read()["stage"]) == {"expand"}
    third = execute("05_stage2_review_lpr", runs, texts | small | {"stage2_tokens": 2048})
    assert third.kind == "stage2" and third.parents == (second.id,) and third.paths.has_checkpoint
    assert set(third.figures.read()) == {"training", "original_weight", "review", "retention"}
    assert "lpr_loss" in set(third.metrics.read()["name"])
    solved = execute("05_stage2_review_lpr", runs, texts | small | {"how": "local_review", "from_run": second.id})
    assert solved.parents == (second.id,) and "router_fit" in solved.tables.names()
    assert solved.metrics.read().empty


def test_the_last_stage_alone_makes_all_that_comes_before_it(tmp_path, texts):
    small = {"eval_tokens_per_language": 256, "precision": "fp32", "stage1_tokens": 1024, "stage2_tokens": 1024}
    run = execute("05_stage2_review_lpr", tmp_path / "runs", texts | small)
    made = {other.kind: other for other in list_runs(tmp_path / "runs")}
    assert set(made) == {"upcycle", "stage1", "stage2"}
    assert run.parents == (made["stage1"].id,) and made["stage1"].parents == (made["upcycle"].id,)


def test_plain_papermill_gives_the_same_results_twice(tmp_path, texts, monkeypatch):
    """Its command line and its function, without any of our tooling around them."""
    monkeypatch.setenv("PYTHONPATH", str(environment.CHECKOUT))
    notebook = str(notebooks_dir() / "00_quickstart.ipynb")
    values = {"base": texts["base"], "corpus": texts["corpus"], "stage1_tokens": 1024, "eval_tokens_per_language": 256}

    monkeypatch.setenv("LPR_LAB_RUNS", str(tmp_path / "one"))
    command = [sys.executable, "-m", "papermill", notebook, str(tmp_path / "one.ipynb"), "--no-progress-bar"]
    command += ["-p", "seed", "1", "-y", "{original: [en], expanded: [el], precision: fp32}"]
    command += [part for key, value in values.items() for part in ("-p", key, str(value))]
    subprocess.run(command, check=True, capture_output=True)

    monkeypatch.setenv("LPR_LAB_RUNS", str(tmp_path / "two"))
    values |= {"seed": 1, "original": ["en"], "expanded": ["el"], "precision": "fp32"}
    papermill.execute_notebook(notebook, str(tmp_path / "two.ipynb"), values, progress_bar=False)

    found = []
    for name in ("one", "two"):
        (run,) = list_runs(tmp_path / name)
        assert run.status.state == "finished" and run.config["seed"] == 1
        found.append((run.path / "results.json").read_bytes())
    assert found[0] == found[1]
