"""`lpr-lab run --processes 2` and `accelerate launch -m lpr_lab run` make one run, and leave nothing when killed."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from helpers.launched import only_run, ranks_below, steps_done, wait_until
from helpers.small_notebook import write_notebook
from helpers.tiny_corpus import small_settings, write_corpus
from lpr_lab.experiments.config import StageBudget
from lpr_lab.experiments.processes.configurations import configuration_file
from lpr_lab.runs import environment
from lpr_lab.runs.watch.live import Follower

BUDGET = StageBudget(tokens=120 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)
PARAMETERS = 'recipe = "route_first"\nrun_dir = ""  # set by lpr-lab run'
TRAIN = """
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import StageBudget
experiment = recipes.named(recipe, **{settings})
run = pipeline.start(experiment, run_dir)
context = pipeline.prepare(experiment, run)
pipeline.train(context)
run.finish({{"loss": 1.0}})
"""


@pytest.fixture
def notebook(tiny_model, tiny_tokenizer, sentences, tmp_path):
    """A notebook that trains a tiny model."""
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    write_corpus(tmp_path / "corpus.jsonl", sentences, ("en", "es", "el", "tr"))
    settings = small_settings(tmp_path, BUDGET)
    return write_notebook(tmp_path, parameters=PARAMETERS, start=TRAIN.format(settings=settings))


def start(notebook, *options, under=()):
    runs = ("--runs-dir", str(notebook.parent / "runs"))
    return subprocess.Popen(
        [sys.executable, *under, "-m", "lpr_lab", "run", str(notebook), *runs, *options],
        env={**os.environ, "PYTHONPATH": environment.python_path(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_command_that_is_killed_leaves_no_rank_and_the_same_command_goes_on(notebook):
    root = notebook.parent / "runs"
    first = start(notebook, "--processes", "2")
    wait_until(lambda: (run := only_run(root)) and steps_done(run, "expand") >= 20)
    run, ranks = only_run(root), ranks_below(first.pid)
    seen = Follower(run).snapshot()
    assert (seen.state, seen.stage, seen.num_steps) == ("running", "expand", BUDGET.num_steps)
    assert seen.tokens_per_second and seen.seconds_left is not None
    assert len(ranks) == 2
    first.send_signal(signal.SIGKILL)
    first.communicate()
    wait_until(lambda: not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks.values()))
    assert run.status.state == "interrupted"
    assert list(run.paths.stage("expand").glob("checkpoint-*"))  # the step under way was finished and saved

    second = start(notebook, "--processes", "2")
    printed, _ = second.communicate(timeout=400)
    assert second.returncode == 0, printed
    assert "resuming from checkpoint-" in printed
    assert only_run(root).id == run.id and run.status.state == "finished"
    assert run.phases.processes == {"fit_routers": [2], "expand": [2]}
    assert "resuming from checkpoint-" in run.paths.log.read_text(encoding="utf-8")


@pytest.mark.slow
def test_accelerate_launch_runs_a_notebook_once_with_all_its_processes(notebook):
    under = ("-m", "accelerate.commands.launch", "--config_file", str(configuration_file("ddp")))
    command = start(notebook, under=under)
    printed, _ = command.communicate(timeout=400)
    assert command.returncode == 0, printed
    run = only_run(notebook.parent / "runs")
    assert len(list((notebook.parent / "runs").glob("2*"))) == 1
    assert run.status.state == "finished" and run.status.attempts == 1
    assert run.phases.processes == {"fit_routers": [2], "expand": [2]}
    assert printed.count("Run: ") == 1


@pytest.mark.slow
def test_a_number_of_processes_that_cannot_share_a_step_leaves_no_run(notebook):
    command = start(notebook, "--processes", "3")
    printed, _ = command.communicate(timeout=400)
    assert command.returncode == 2 and "blocks_per_step = 2" in printed, printed
    assert only_run(notebook.parent / "runs") is None
