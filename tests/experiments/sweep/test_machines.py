"""A point on several machines: the tasks of one job start torchrun each, and all their processes make one run."""

import pytest

from helpers.small_notebook import write_notebook
from helpers.tiny_corpus import small_settings, write_corpus
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.sweep.engines import SubmititEngine
from lpr_lab.experiments.sweep.run import Sweep, finish, run_points, start
from lpr_lab.runs.run import Run

BUDGET = StageBudget(tokens=3 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)
TRAIN = """
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import StageBudget
experiment = recipes.named(recipe, **{settings})
run = pipeline.start(experiment, run_dir)
if rate > 1:
    raise ValueError("seven")
pipeline.train(pipeline.prepare(experiment, run))
run.finish({{"loss": rate}})
"""


@pytest.mark.slow
def test_a_job_of_two_tasks_trains_each_point_on_both_and_a_point_that_fails_ends_on_both(
    tiny_model, tiny_tokenizer, sentences, tmp_path
):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    write_corpus(tmp_path / "corpus.jsonl", sentences, ("en", "es", "el", "tr"))
    parameters = 'rate = 0.1\nrecipe = "route_first"\nrun_dir = ""  # set by lpr-lab run'
    notebook = write_notebook(
        tmp_path, parameters=parameters, start=TRAIN.format(settings=small_settings(tmp_path, BUDGET))
    )
    sweep = Sweep(notebook=str(notebook), grid={"rate": [0.5, 2.0]})
    run = start(sweep, root=tmp_path / "runs")
    engine = SubmititEngine(tmp_path / "jobs", jobs=1, parameters={"tasks_per_node": 2}, cluster="local")
    summary = run_points(sweep, run, engine)
    assert summary["run_state"].tolist() == ["finished", "failed"]
    assert "seven" in summary["run_error"].iloc[1]
    assert finish(sweep, run, summary)["failed"]
    point = Run(tmp_path / "runs" / summary["run_id"].iloc[0])
    assert point.phases.processes == {"fit_routers": [2], "expand": [2]}
    assert point.status.attempts == 1
