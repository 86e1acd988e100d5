"""The run itself writes its alerts while it trains: from the numbers of its steps, and where a step is not finite."""

from types import SimpleNamespace

import pytest

from lpr_lab.errors import NotFiniteError, UsageError
from lpr_lab.experiments import pipeline, recipes, steps, training
from lpr_lab.experiments.config import Experiment
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts


@pytest.fixture
def context(tmp_path):
    run = Run.create(tmp_path / "runs", kind="expansion", slug="el", title="el", config={})
    return SimpleNamespace(run=run, writes=True, track=lambda metrics: None, experiment=recipes.moe_lpr())


def test_steps_that_leave_an_expert_out_leave_an_alert_and_a_line_where_progress_goes(context, capfd):
    log = steps._logger(context, "expand", SimpleNamespace(num_steps=20, max_minutes=None))
    for step in range(1, 12):
        load = {"least_load": 0.0 if step > 2 else 0.5, "least_load_layer": 4.0, "least_load_expert": 2.0}
        log({"step": step, "tokens": step, "seconds": 1.0, "loss": 2.0, "grad_norm": 1.0, **load})
    (alert,) = alerts.read(context.run)
    assert (alert.rule, alert.stage, alert.step) == ("collapse", "expand", 2 + alerts.Bounds().steps)
    printed = "".join(capfd.readouterr())
    assert printed.count(alerts.line(alert)) == 1


def test_a_step_that_is_not_finite_leaves_an_alert_and_fails_as_before(context, monkeypatch, tmp_path):
    def fails(*_):
        raise NotFiniteError("Step 3 gave loss nan", {"step": 3, "loss": float("nan"), "grad_norm": 1.0})

    monkeypatch.setitem(steps.STEPS, "expand", fails)
    with pytest.raises(NotFiniteError, match="Step 3"):
        training._trained(context, "expand", tmp_path)
    (alert,) = alerts.read(context.run)
    assert (alert.rule, alert.step) == ("not_finite", 3)


def test_the_bounds_are_settings_of_the_experiment(context):
    context.experiment = recipes.moe_lpr(alert_steps=2, alert_least_load=0.3)
    log = steps._logger(context, "expand", SimpleNamespace(num_steps=20, max_minutes=None))
    for step in (1, 2, 3):
        log({"step": step, "tokens": step, "seconds": 1.0, "loss": 2.0, "grad_norm": 1.0, "least_load": 0.2})
    (alert,) = alerts.read(context.run)
    assert (alert.rule, alert.step) == ("collapse", 2) and "30 %" in alert.text


@pytest.mark.parametrize(("bound", "number"), [(1.0, 1), (3.0, 0)])
def test_a_run_is_measured_by_its_own_bound_of_forgetting(context, monkeypatch, bound, number):
    row = {"dataset": "dev", "language": "en", "role": "original", "change_percent": 2.0}
    row |= {"ci_low": 1.5, "ci_high": 2.5}
    monkeypatch.setattr(pipeline, "results_of", lambda run, experiment: {"change": [row]})
    context.experiment = recipes.moe_lpr(alert_forgetting_percent=bound)
    pipeline.finish(context)
    assert len(alerts.read(context.run)) == number


@pytest.mark.parametrize("settings", [{"alert_steps": 0}, {"alert_least_load": 1.0}, {"alert_forgetting_percent": -1}])
def test_bounds_that_cannot_be_are_refused_before_anything_runs(settings):
    with pytest.raises(UsageError, match="Alerts"):
        recipes.moe_lpr(**settings)


def test_a_run_of_before_the_setting_has_the_bounds_of_then():
    config = recipes.moe_lpr().to_config()
    older = {name: value for name, value in config.items() if not name.startswith("alert_")}
    assert Experiment.from_config(older).alerts == alerts.Bounds()
