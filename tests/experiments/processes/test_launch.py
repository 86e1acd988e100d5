"""One training on two processes: the same run directory, watched, interrupted, killed and resumed as with one."""

import os
import shutil
import signal
import threading
from dataclasses import replace

import psutil
import pytest
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file

from helpers.launched import only_run, ranks_below, steps_done, wait_until
from helpers.tiny_corpus import small_settings
from lpr_lab.errors import LprError
from lpr_lab.experiments import pipeline, recipes
from lpr_lab.experiments.config import StageBudget
from lpr_lab.runs.status import StatusFile

BUDGET = StageBudget(tokens=120 * 2 * 32, block_tokens=32, blocks_per_step=2, learning_rate=1e-2)
STEPS = BUDGET.num_steps


def train(materials, root, processes, recipe="route_first", budget=BUDGET):
    """Do all of a run but its measurements; one that was begun goes on."""
    settings = small_settings(materials, budget) | ({"classifiers": 1} if recipe == "layer_moe" else {})
    experiment = recipes.named(recipe, **settings)
    run = pipeline.start(experiment, root=root)
    context = pipeline.prepare(experiment, run, processes=processes)
    pipeline.train(context)
    return context


def weights(run):
    return load_file(run.paths.checkpoint / "adapter_model.safetensors")


def disturbed(root, after, act):
    """Do something to the ranks once the stage has come so far; return the thread, and whom it met."""
    met = {}

    def wait():
        wait_until(lambda: (run := only_run(root)) and steps_done(run, "expand") >= after)
        met.update(ranks_below())
        act(met)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, met


@pytest.mark.slow
def test_two_processes_that_are_interrupted_and_then_lose_one_end_bit_identical(materials, tmp_path, capfd):
    before = set(psutil.Process().children(recursive=True))
    whole = train(materials, tmp_path / "whole", 2)
    assert set(whole.run.status.done_phases) == {"prepare", "fit_routers", "expand", "save"}
    assert whole.run.status.state == "running"  # it is this process's until it is finished
    assert steps_done(whole.run, "expand") == STEPS
    assert whole.run.phases.processes == {"fit_routers": [2], "expand": [2]}
    in_memory = {name: tensor for name, tensor in whole.model.state_dict().items() if "moe_lpr_experts" in name}
    assert in_memory  # what the processes trained is here too

    root = tmp_path / "cut"
    thread, met = disturbed(root, STEPS // 6, lambda _: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(materials, root, 2)
    thread.join()
    run = only_run(root)
    assert run.status.state == "interrupted"
    assert not any(rank.is_running() for rank in met.values()) and len(met) == 2
    saved = int(max(path.name for path in run.paths.stage("expand").glob("checkpoint-*")).rpartition("-")[2])
    assert STEPS // 6 <= saved < STEPS

    thread, met = disturbed(root, saved + STEPS // 6, lambda ranks: ranks[1].kill())
    with pytest.raises(LprError, match=r"(?s)1 of 2.*SIGKILL.*again"):
        train(materials, root, 2)
    thread.join()
    assert only_run(root).id == run.id
    assert run.status.state == "failed" and "SIGKILL" in run.status.error_tail
    assert not any(rank.is_running() for rank in met.values()) and len(met) == 2
    assert not run.phases.is_done("expand")

    again = train(materials, root, 2)
    assert again.run.id == run.id and again.run.status.attempts == 3
    assert f"resuming from checkpoint-{saved:06d}" in capfd.readouterr().err
    expected, found = weights(whole.run), weights(again.run)
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    logged = again.run.metrics.read()
    assert sorted(logged[logged["name"] == "loss"]["step"]) == list(range(1, STEPS + 1))
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.slow
def test_two_processes_measure_what_one_does_whatever_number_trained(materials, tmp_path):
    short = replace(BUDGET, tokens=3 * 2 * 32)
    one = train(materials, tmp_path / "one", 1, "layer_moe", short)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one.run.stop("interrupted")
    run = only_run(tmp_path / "two")
    StatusFile(run.path / "status.json").update(state="interrupted")
    two = train(materials, tmp_path / "two", 2, "layer_moe", short)
    for context in (one, two):
        pipeline.measure(context)
    assert two.run.id == one.run.id and two.run.phases.is_done("measure")
    names = set(one.run.tables.names())
    assert names == set(two.run.tables.names()) and {"retention", "load", "classifiers", "expert_pairs"} <= names
    for name in names:
        assert_frame_equal(one.run.tables.read(name), two.run.tables.read(name), rtol=1e-4, atol=1e-6)
    assert two.run.phases["measure"]["base_difference"] == one.run.phases["measure"]["base_difference"] == 0.0
    assert two.run.status.state == "running"
