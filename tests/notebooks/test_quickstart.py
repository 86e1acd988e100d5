"""The quickstart from first cell to last, on a tiny random model and a few sentences: seconds instead of minutes."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lpr_lab.experiments.notebooks.run import notebooks_dir, run_notebook
from lpr_lab.runs import environment
from lpr_lab.runs.find import list_runs

EXACT = {"starts_equal", "base_untouched"}


@pytest.fixture
def tiny_parameters(tiny_materials):
    """Parameters for a model and texts small enough for a test."""
    return {
        **tiny_materials(("en", "el")),
        "original": ["en"],
        "expanded": ["el"],
        "stage1_tokens": 2048,
        "stage2_tokens": 2048,
        "eval_tokens_per_language": 512,
    }


@pytest.mark.notebook
@pytest.mark.parametrize("recipe", ["route_first", "moe_lpr"])
def test_the_quickstart_tells_the_whole_story(tmp_path, tiny_parameters, recipe):
    shown = io.StringIO()
    done = run_notebook(
        notebooks_dir() / "00_quickstart.ipynb",
        runs_dir=tmp_path / "runs",
        values=tiny_parameters | {"recipe": recipe},
        output=shown,
    )
    run = done.run
    assert run.status.state == "finished" and run.kind == "expansion"
    assert run.results["recipe"] == recipe
    assert {claim["name"] for claim in run.results["claims"] if claim["is_exact"] and claim["holds"]} == EXACT
    assert run.config["base"] == tiny_parameters["base"]
    assert run.paths.has_checkpoint and run.documents.read("data") and run.documents.read("env")
    assert {"change", "load", "retention"} <= set(run.tables.names())
    assert set(run.figures.read()) == {"training", "retention", "load", "layers"}
    assert run.traces.names() == ("el", "en") and len(run.generations.read()) == 2
    assert not run.metrics.read().empty
    copy = run.paths.notebook.read_text()
    assert len(copy) < 1_000_000 and "application/vnd.plotly.v1+json" in copy and "lpr-lab app" in copy
    assert "which knew English, was taught Greek" in copy
    assert f"run={run.id}" in shown.getvalue()


@pytest.mark.notebook
def test_a_baseline_goes_through_the_same_notebook_to_its_end(tmp_path, tiny_parameters):
    shown = io.StringIO()
    done = run_notebook(
        notebooks_dir() / "00_quickstart.ipynb",
        runs_dir=tmp_path / "runs",
        values=tiny_parameters | {"recipe": "full"},
        output=shown,
    )
    run = done.run
    assert run.status.state == "finished" and run.results["baseline"] == "full"
    assert {claim["name"] for claim in run.results["claims"] if claim["is_exact"] and claim["holds"]} == EXACT
    assert set(run.figures.read()) == {"training", "retention"}
    assert run.traces.names() == () and len(run.generations.read()) == 2
    copy = run.paths.notebook.read_text()
    assert "dense model (full)" in copy and "finetune" in copy and "was taught Greek" in copy
    assert f"retention?run={run.id}" in shown.getvalue()


@pytest.mark.notebook
def test_ctrl_c_in_stage_1_and_the_same_command_again_complete_the_demo(tmp_path, tiny_parameters):
    parameters = tmp_path / "parameters.json"
    short = {"stage1_tokens": 192 * 2 * 32, "settings": {"stage1": {"block_tokens": 32, "blocks_per_step": 2}}}
    parameters.write_text(json.dumps(tiny_parameters | short | {"precision": "fp32"}))
    command = [sys.executable, "-m", "lpr_lab", "demo", "--no-app", "-f", str(parameters), "--json"]
    environ = {**os.environ, "PYTHONPATH": str(environment.CHECKOUT), "LPR_LAB_RUNS": str(tmp_path / "runs")}

    with (tmp_path / "first.txt").open("w") as shown:
        first = subprocess.Popen(command, stdout=shown, stderr=shown, env=environ)
        _wait_for_steps(first, tmp_path / "runs", "expand")
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=60) == 130
    (run,) = list_runs(tmp_path / "runs")
    assert run.status.state == "interrupted" and not run.phases.is_done("expand")

    second = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300)
    assert second.returncode == 0, second.stderr
    assert "Going on with" in second.stderr and "resuming from checkpoint" in second.stderr + run.paths.log.read_text()
    result = json.loads(second.stdout)
    assert (result["id"], result["how"], result["state"]) == (run.id, "resumed", "finished")
    losses = run.metrics.read().query("stage == 'expand' and name == 'lm_loss'")
    assert losses["step"].tolist() == list(range(1, 193))


def _wait_for_steps(process, runs_dir, stage: str) -> None:
    """Wait for the first steps of a stage, by its metrics: they are there long before a progress bar says so."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be interrupted"
        for run in list_runs(runs_dir):
            metrics = run.metrics.read()
            if not metrics.empty and (metrics["stage"] == stage).any():
                return
        time.sleep(0.05)
    raise AssertionError(f"no step of {stage} within two minutes")
