"""What a run raised itself is on its page, in the list, in the terminal, in the report and in `lpr-lab runs`."""

import json

import pytest

from helpers.cli_calls import call
from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.runs.page import compose, render_live
from lpr_lab.runs.run import Run
from lpr_lab.runs.watch import alerts
from lpr_lab.runs.watch.alerts import Alert
from lpr_lab.runs.watch.live import Follower
from lpr_lab.views.html import live
from lpr_lab.views.report import sections

HOSTILE = Alert(rule="collapse", stage="expand", step=8, text="An expert collapsed <b>${x}</b> مرحبا.")
DIVERGES = Alert(rule="divergence", stage="expand", step=4, text="The training diverges: its loss is 9 at step 4.")
SAID = "expand: An expert collapsed &lt;b&gt;${x}&lt;/b&gt; مرحبا."


@pytest.fixture
def alerted(run: Run) -> Run:
    alerts.add(run, HOSTILE)
    return run


def test_page_list_and_report_say_it_escaped(alerted, runs_dir):
    head, listing, _, detail = compose(shell.page_context(runs_dir, {"run": alerted.id}), runs_dir)
    assert SAID in detail and "1 alert" in listing and "<b>${x}" not in detail + listing + head
    assert SAID in sections.status(alerted)


def test_a_run_at_work_says_it_once_in_its_card_and_in_one_line(tmp_path):
    run = Run.create(tmp_path / "runs", kind="expansion", slug="el", title="el", config={})
    run.start("expand")
    run.metrics.log({"step": 4, "tokens": 4, "t": 1.0, "loss": 9.0, "diverged": 1.0}, stage="expand")
    for alert in (HOSTILE, DIVERGES):
        alerts.add(run, alert)
    seen = Follower(run).snapshot()
    assert SAID in render_live(run) and str(render_live(run)).count("diverges") == 1
    assert live.to_text(seen).count("diverges") == 1 and alerts.line(HOSTILE) in live.to_text(seen)
    assert [one["rule"] for one in json.loads(seen.to_json())["alerts"]] == ["collapse", "divergence"]
    page = compose(shell.page_context(run.path.parent, {"run": run.id}), run.path.parent)[-1]
    assert SAID not in page
    run.stop("interrupted")


def test_the_command_line_lists_the_rule_and_shows_the_sentence(alerted, runs_dir):
    listed = call("runs", "list", "--runs-dir", str(runs_dir))
    shown = call("runs", "show", alerted.id, "--json", "--runs-dir", str(runs_dir))
    assert "! collapse" in listed.stdout
    assert json.loads(shown.stdout)["alerts"] == [alerts.line(HOSTILE)]
