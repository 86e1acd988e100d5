"""A run's own alerts: each rule at its bound and not before, once a stage, and the same after a resume."""

import math

import pytest

from lpr_lab.errors import UsageError
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts
from lpr_lab.runs.watch.alerts import Alert, Bounds, Watch


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs", kind="expansion", slug="el", title="el", config={})


def step(number, **numbers):
    return {"step": number, "loss": 2.0, "grad_norm": 1.0, **numbers}


def raised(watch, *steps):
    return [(alert.rule, alert.step) for metrics in steps for alert in watch.update(metrics)]


def test_a_collapse_is_raised_after_so_many_steps_in_a_row_and_once():
    loads = [0.0, 0.009, 0.01, 0.0, 0.0, 0.0, 0.0]
    steps = [step(place, least_load=load) for place, load in enumerate(loads, 1)]
    assert raised(Watch("expand", Bounds(steps=3)), *steps) == [("collapse", 6)]
    assert raised(Watch("expand", Bounds(steps=5)), *steps) == []


def test_the_collapse_names_the_expert_and_its_layer():
    where = {"least_load": 0.0, "least_load_layer": 7.0, "least_load_expert": 3.0}
    (alert,) = Watch("expand", Bounds(steps=1)).update(step(1, **where))
    assert "expert 3 of layer 7" in alert.text and alert.stage == "expand"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_what_is_not_finite_is_raised_at_its_step(name, value):
    assert raised(Watch("expand"), step(1), step(2, **{name: value}), step(3)) == [("not_finite", 2)]


def test_divergence_is_what_the_training_noticed_itself():
    assert raised(Watch("review"), step(1, diverged=0.0), step(2, diverged=1.0), step(3, diverged=1.0)) == [
        ("divergence", 2)
    ]


@pytest.mark.parametrize(("low", "high", "is_raised"), [(3.1, 9.0, True), (2.9, 9.0, False), (None, None, False)])
def test_forgetting_needs_the_whole_interval_beyond_the_bound(low, high, is_raised):
    row = {"language": "en", "role": "original", "dataset": "heldout", "change_percent": 6.0}
    row |= {"ci_low": low, "ci_high": high, "before": 1.0, "after": 1.06}
    found = alerts.of_results({"change": [row, {**row, "role": "expanded"}]})
    assert [(alert.rule, alert.stage) for alert in found] == ([("forgetting", "heldout")] if is_raised else [])


def test_a_resumed_stage_drops_what_lies_beyond_its_checkpoint_and_goes_on_with_the_row(run):
    for number in (1, 2, 3):
        run.metrics.log({"step": number, "tokens": number, "t": 1.0, "least_load": 0.0}, stage="expand")
    kept = Alert(rule="not_finite", stage="review", step=9, text="x")
    for alert in (kept, Alert(rule="collapse", stage="expand", step=3, text="y")):
        alerts.add(run, alert)
    watch = alerts.resume(run, "expand", 3, Bounds(steps=3))
    assert alerts.read(run) == [kept]
    assert raised(watch, step(3, least_load=0.0)) == [("collapse", 3)]


def test_an_alert_is_there_once_and_a_damaged_file_hides_no_run(run):
    alert = Alert(rule="collapse", stage="expand", step=1, text="Ο ειδικός")
    alerts.add(run, alert)
    alerts.add(run, alert)
    assert alerts.read(run) == [alert] and alerts.line(alert) == "expand: Ο ειδικός"
    alerts.path_of(run).write_text("[]\n")
    assert alerts.read(run) == []


def test_bounds_that_make_no_sense_are_refused():
    for given in ({"least_load": -0.1}, {"least_load": 1.0}, {"steps": 0}, {"forgetting_percent": math.nan}):
        with pytest.raises(UsageError):
            Bounds(**given)
