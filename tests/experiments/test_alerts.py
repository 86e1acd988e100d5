"""The run itself writes its alerts while it trains: from the numbers of its steps, and where a step is not finite."""

from types import SimpleNamespace

import pytest

from lpr_lab.errors import NotFiniteError
from lpr_lab.experiments import steps, training
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts


@pytest.fixture
def context(tmp_path):
    run = Run.create(tmp_path / "runs", kind="expansion", slug="el", title="el", config={})
    return SimpleNamespace(run=run, writes=True, track=lambda metrics: None)


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
